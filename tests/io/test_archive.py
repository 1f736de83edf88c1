import io
import os
import random
import stat
import struct
import zipfile

import pytest

from scripts.io import archive
from scripts.io.archive import unpacked


def pack(path, entries, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as packed:
        for name, data in entries:
            packed.writestr(name, data)
    return path


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_files_are_unpacked_and_vanish_afterwards(tmp_path, method):
    content = {"frontal.dcm": b"1" * 5_000_000, "study/ü 2/lateral.dcm": b"", "IM0001": os.urandom(99)}
    path = pack(tmp_path / "x.zip", [("study/", b""), *content.items()], method)
    with unpacked(path) as folder:
        assert files(folder) == content
    assert not folder.exists()
    assert os.listdir(tmp_path) == ["x.zip"]


def test_hidden_files_are_left_out(tmp_path):
    macos = [("__MACOSX/._a.dcm", b"2"), ("__MACOSX/._b.zip", b"2"), ("exam/__MACOSX/._a", b"2")]
    path = pack(tmp_path / "x.zip", [("a.dcm", b"1"), *macos, (".DS_Store", b"3")])
    with unpacked(path) as folder:
        assert files(folder) == {"a.dcm": b"1"}


def test_the_folder_vanishes_when_its_user_fails_with_the_users_own_error(tmp_path):
    with pytest.raises(OSError, match="mine"), unpacked(pack(tmp_path / "x.zip", [("a", b"1")])) as folder:
        raise OSError("mine")
    assert not folder.exists()


def special(name, kind):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (kind | 0o777) << 16
    return entry


def with_flag(path, flag):
    """Set a flag bit in the local and the central header of the only entry."""
    data = bytearray(pack(path, [("a", b"1")]).read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.index(signature) + offset
        data[at : at + 2] = struct.pack("<H", flag)
    path.write_bytes(data)


def bomb_that_lies(path):
    """An entry of 4 MB that declares 10 bytes."""
    data = bytearray(pack(path, [("a", bytes(4_000_000))]).read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(signature) + offset
        data[at : at + 4] = struct.pack("<L", 10)
    path.write_bytes(data)


def overlapping(path):
    """Many entries that share one compressed block."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a", bytes(900_000))
        first = packed.infolist()[0]
        for i in range(20):
            copy = zipfile.ZipInfo(f"b{i}")
            for attribute in ("compress_type", "CRC", "compress_size", "file_size", "header_offset", "flag_bits"):
                setattr(copy, attribute, getattr(first, attribute))
            packed.filelist.append(copy)
            packed.NameToInfo[copy.filename] = copy
        packed._didModify = True
    path.write_bytes(inner.getvalue())


def large_directory(path):
    pack(path, [(f"{i:06d}" + "x" * 200, b"") for i in range(500)])


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: pack(p, [("../a", b"1")]), "'../a' could leave the folder"),
        (lambda p: pack(p, [("a/../../b", b"1")]), "could leave the folder"),
        (lambda p: pack(p, [("/etc/passwd", b"1")]), "'/etc/passwd' could leave"),
        (lambda p: pack(p, [("C:/a", b"1")]), "could leave the folder"),
        (lambda p: pack(p, [("..\\a", b"1")]), "could leave the folder"),
        (lambda p: pack(p, [(special("a", stat.S_IFLNK), b"/etc/passwd")]), "'a' is a link or device"),
        (lambda p: pack(p, [(special("a", stat.S_IFIFO), b"")]), "'a' is a link or device"),
        (lambda p: pack(p, [("a/b.ZIP", b"1")]), "'a/b.ZIP' is itself an archive"),
        (lambda p: pack(p, [("a", b"1"), ("a", b"2")]), "'a' .*File exists.; pack"),
        (lambda p: pack(p, [("a", b"1"), ("./a", b"2")]), "cannot be unpacked"),
        (lambda p: pack(p, [("a", b"1"), ("a/b", b"2")]), "cannot be unpacked"),
        (lambda p: pack(p, [("x" * 5000, b"1")]), "cannot be unpacked .File name"),
        (lambda p: pack(p, [("a", b"1")], zipfile.ZIP_LZMA), "deflate"),
        (lambda p: pack(p, [("a", b"1")], zipfile.ZIP_BZIP2), "deflate"),
        (lambda p: with_flag(p, 1), "'a' is encrypted"),
        (lambda p: with_flag(p, 0x20), "not a readable zip"),
        (lambda p: pack(p, [(str(i), b"") for i in range(1001)]), "holds 1001 files, at most 1000"),
        (lambda p: pack(p, [("a", bytes(600_000)), ("b", bytes(600_000))]), "unpacks to more than 1000000 bytes"),
        (bomb_that_lies, "not a readable zip"),
        (overlapping, "unpacks to|not a readable zip"),
        (large_directory, "not a readable zip .*directory"),
        (lambda p: p.write_bytes(b"PK\x03\x04 no"), "not a readable zip"),
        (lambda p: p.write_bytes(b""), "an empty file"),
        (lambda p: p.mkdir(), "not a regular file"),
        (os.mkfifo, "not a regular file"),
        (lambda p: None, "cannot be read"),
    ],
)
def test_a_hostile_archive_is_refused_and_leaves_nothing(tmp_path, monkeypatch, make, message):
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 1_000_000)
    monkeypatch.setattr(archive, "_MAX_DIRECTORY_BYTES", 100_000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    make(tmp_path / "x.zip")
    with pytest.raises(ValueError, match=message) as refusal, unpacked(tmp_path / "x.zip"):
        pass
    assert str(refusal.value).startswith(f"{tmp_path / 'x.zip'}: ")
    assert not os.listdir(tmp_path / "temporary")
    assert set(os.listdir(tmp_path)) <= {"x.zip", "temporary"}


def test_a_damaged_archive_is_unpacked_or_refused_by_name(tmp_path):
    path = pack(tmp_path / "x.zip", [("a/b.dcm", os.urandom(200)), ("c.dcm", bytes(5000))])
    whole, dice = path.read_bytes(), random.Random(0)
    for _ in range(150):
        data = bytearray(whole[: dice.randrange(len(whole))] if dice.random() < 0.2 else whole)
        for _ in range(dice.choice([1, 4, 30])):
            if data:
                data[dice.randrange(len(data))] = dice.randrange(256)
        path.write_bytes(data)
        try:
            with unpacked(path):
                pass
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
