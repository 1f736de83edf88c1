"""Unpacking of zip archives into a temporary folder, with bounds on their content."""

from __future__ import annotations

import io
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from scripts.io.folders import is_hidden
from scripts.io.intake import read_bytes

MAX_ENTRIES = 1000
MAX_UNPACKED_BYTES = 2**30
"""Limit on all entries together, counted while unpacking, since the sizes stated by an archive are not trusted."""
MAX_DEPTH = 32
"""Limit on the parts of an entry's path: Python creates and removes nested folders recursively."""
_CHUNK = 2**20
_MAX_DIRECTORY_BYTES = 4 * 2**20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Compression methods that deliver bounded chunks; the others return a chunk of any size at once."""


@contextmanager
def unpacked(path: str | Path) -> Iterator[Path]:
    """Unpack a zip into a temporary folder under the original names, without hidden files.

    Raises:
        ValueError: the zip is unreadable, or has too many or too large entries; or an entry is encrypted, not a plain
            file, a duplicate, itself an archive, nested too deeply, or would be written outside the folder.
    """
    path = Path(path)
    data = read_bytes(path)
    with tempfile.TemporaryDirectory(prefix="exam-") as name:
        try:
            archive = zipfile.ZipFile(_Bounded(data))
        except Exception as error:  # on hostile bytes zipfile raises errors of any kind
            raise _unreadable(path, error) from error
        with archive:
            _unpack(path, archive, Path(name))
        yield Path(name)


class _Bounded(io.BytesIO):
    """Stream that refuses a directory of millions of entries, which ``zipfile`` would read in one piece."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if len(data) > _MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"its directory has more than {_MAX_DIRECTORY_BYTES} bytes")
        return data


def _unpack(path: Path, archive: zipfile.ZipFile, folder: Path) -> None:
    entries = [entry for entry in archive.infolist() if not entry.filename.endswith("/") and not _of_macos(entry)]
    if len(entries) > MAX_ENTRIES:
        raise ValueError(f"{path}: holds {len(entries)} files, at most {MAX_ENTRIES} are accepted; pack only one exam")
    left = MAX_UNPACKED_BYTES
    for entry in entries:
        name = _safe_path(path, entry)
        if is_hidden(name):
            continue
        with _created(path, entry, folder / name) as file:
            for chunk in _chunks(path, archive, entry):
                left -= len(chunk)
                if left < 0:
                    raise ValueError(
                        f"{path}: unpacks to more than {MAX_UNPACKED_BYTES} bytes; pack only the two radiographs"
                    )
                file.write(chunk)


def _of_macos(entry: zipfile.ZipInfo) -> bool:
    """Return whether macOS added an entry: a twin of another one, which may also be named ``.zip``."""
    return entry.filename.startswith("__MACOSX/")


def _chunks(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    try:
        with archive.open(entry) as source:
            while chunk := source.read(_CHUNK):
                yield chunk
    except Exception as error:  # on hostile bytes zipfile raises errors of any kind
        raise _unreadable(path, error) from error


def _created(path: Path, entry: zipfile.ZipInfo, target: Path) -> BinaryIO:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.open("xb")
    except OSError as error:
        raise ValueError(
            f"{path}: entry {entry.filename!r} cannot be unpacked ({error.strerror}); pack every file once, under a "
            "short name"
        ) from error


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: not a readable zip ({error}); pack or copy it again")


def _safe_path(path: Path, entry: zipfile.ZipInfo) -> PurePosixPath:
    """Return the path of an entry in the folder; raise ValueError for anything but a plain file inside it."""
    name = PurePosixPath(entry.filename)
    drive = PureWindowsPath(entry.filename).drive
    if name.is_absolute() or ".." in name.parts or not name.parts or drive or "\\" in entry.filename:
        raise ValueError(f"{path}: entry {entry.filename!r} could leave the folder it is unpacked to; pack plain names")
    if len(name.parts) > MAX_DEPTH:
        raise ValueError(
            f"{path}: an entry's path has {len(name.parts)} parts, at most {MAX_DEPTH} are accepted; pack no folders"
        )
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise ValueError(f"{path}: entry {entry.filename!r} is a link or device; pack the file itself")
    if entry.flag_bits & 1:
        raise ValueError(f"{path}: entry {entry.filename!r} is encrypted; pack it without a password")
    if entry.compress_type not in _METHODS:
        raise ValueError(f"{path}: entry {entry.filename!r} is not packed by deflate, the usual method; pack it again")
    if name.suffix.lower() == ".zip":
        raise ValueError(f"{path}: entry {entry.filename!r} is itself an archive; pack the radiographs, not the zip")
    return name
