"""Names from outside never leave a folder."""

import pytest

from scripts.io.names import safe_name

HOSTILE = [
    "../../etc/passwd",
    "..",
    "/",
    "a b\\c",
    ".hidden",
    "",
    "na\u00efve name\n",
    "\x00",
    "x" * 1000,
    "\u75c5" * 200,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_foreign_name_never_leaves_its_folder(tmp_path, text):
    name = safe_name(text)
    assert (tmp_path / name).resolve().parent == tmp_path.resolve()
    assert not name.startswith(".")
    (tmp_path / name).touch()


@pytest.mark.parametrize("text", ["LIDC-IDRI_0002.v1", "\u75c5\u4f8b1"])
def test_an_honest_name_is_kept(text):
    assert safe_name(text) == text


def test_long_names_that_differ_at_their_end_alone_stay_different():
    names = {safe_name("\u75c5" * 100 + end) for end in ("1", "2", "")}
    assert len(names) == 3 and all(len(name.encode()) <= 150 for name in names)
