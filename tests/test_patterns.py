"""Rules of the test suite on the messages that tests match."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
MOST_WORDS = 6
TO_DO: set[str] = set()
"""Folders whose patterns are still to be shortened."""


def patterns(path: Path) -> list[str]:
    """Return the literal ``match=`` patterns of a file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "match":
            parts = [part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)]
            found.append(" ".join(part for part in parts if isinstance(part, str)))
    return found


@pytest.mark.parametrize(
    "folder",
    sorted({path.parent for path in TESTS.rglob("test_*.py")} - {TESTS / name for name in TO_DO}),
    ids=lambda f: f.name,
)
def test_no_pattern_freezes_a_sentence(folder):
    """Tests match the name, value and remedy in a message, not its wording; see ``tests.refusal.refused``."""
    long = {
        f"{path.name}: {pattern}"
        for path in folder.glob("test_*.py")
        for pattern in patterns(path)
        if len(re.findall("[A-Za-z]{2,}", pattern)) > MOST_WORDS
    }
    assert not long
