"""Atomic writing of files and folders, safe with any number of processes."""

from __future__ import annotations

import errno
import functools
import os
import re
import secrets
import shutil
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from scripts.io.refusal import write_refusals

_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
_SCRATCH = re.compile(r"\.partial-([0-9a-f]{8})-(\d+)-[0-9a-f]{8}-")
_STALE_SECONDS = 24 * 3600
"""Age at which a scratch path of another host counts as abandoned; no write takes this long."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Provide a scratch path next to ``path``, with the same suffixes, and rename it when the block succeeds.

    Of several processes the last one wins. The next process removes the leftovers of a killed one.

    Raises:
        ValueError: the file system refuses.
    """
    _sweep(path.parent)
    partial = _scratch(path)
    with write_refusals(path):
        try:
            yield partial
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def require_writable(folder: Path) -> None:
    """Raise ValueError if ``folder``, which may not exist yet, is not writable; call this before long work."""
    place = next(place for place in (folder.absolute(), *folder.absolute().parents) if os.path.exists(place))
    if not place.is_dir():
        raise ValueError(
            f"{place}: a file, so there is no folder {folder} to write to; choose another or move the file"
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"{place}: is not writable; correct its permissions or choose another folder")


def require_replaceable(path: Path, known_by: str) -> None:
    """Raise ValueError if :func:`whole_folder` would refuse ``path``; call this before long work."""
    require_writable(path.parent)
    if _is_somebody_elses(path, known_by):
        raise ValueError(f"{path}: exists and holds no {known_by}, so it is not replaced; write elsewhere or remove it")


@contextmanager
def whole_folder(path: Path, known_by: str) -> Iterator[Path]:
    """Provide a new scratch folder next to ``path``, and replace ``path`` by it when the block succeeds.

    Parents are created. Of several processes the last one wins. The next process removes the leftovers of a killed one.

    Args:
        path: destination of the folder.
        known_by: file in the folder that identifies it; an existing folder without it is somebody's data and is never
            replaced.

    Raises:
        ValueError: ``path`` holds something else, or the file system refuses.
    """
    require_replaceable(path, known_by)
    _sweep(path.parent)
    partial = _scratch(path)
    with write_refusals(path):
        partial.mkdir(parents=True)
        try:
            yield partial
            _publish(partial, path, known_by)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _publish(partial: Path, path: Path, known_by: str) -> None:
    """Rename the folder ``partial`` to ``path``; other processes may do the same at any moment."""
    while True:
        require_replaceable(path, known_by)
        try:
            with _moved_aside(path):
                os.rename(partial, path)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # otherwise another process was faster
                raise


@contextmanager
def _moved_aside(path: Path) -> Iterator[None]:
    """Move ``path`` aside during the block; delete it afterwards, or restore it if the block fails."""
    old = _scratch(path)
    with suppress(FileNotFoundError):
        os.rename(path, old)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            os.rename(old, path)
        raise
    finally:
        _remove(old)


def _is_somebody_elses(path: Path, known_by: str) -> bool:
    """Return whether ``path`` is anything but an empty folder or one with ``known_by``; retry if it changes."""
    while (seen := _identity(path)) is not None:
        with suppress(FileNotFoundError):
            other = not path.is_dir() or (any(path.iterdir()) and not (path / known_by).is_file())
            if _identity(path) == seen:
                return other
    return False


def _identity(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino, status.st_ctime_ns


def _scratch(path: Path) -> Path:
    """Return a hidden name next to ``path``, unique to this process, thread and call, that records its owner."""
    return path.with_name(f".partial-{_HOST}-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


@functools.lru_cache(maxsize=256)
def _sweep(folder: Path) -> None:
    """Remove the leftovers of killed processes in ``folder``, once per process, since looking takes time per entry."""
    with suppress(OSError):  # another process may sweep too
        for entry in list(os.scandir(folder)):
            owner = _SCRATCH.match(entry.name)
            if owner and _is_stale(owner[1], int(owner[2]), entry.stat(follow_symlinks=False).st_mtime):
                _remove(Path(entry.path))


def _is_stale(host: str, process: int, changed: float) -> bool:
    return time.time() - changed > _STALE_SECONDS or (host == _HOST and not _is_running(process))


def _is_running(process: int) -> bool:
    if os.name != "posix":  # elsewhere, os.kill(process, 0) would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
