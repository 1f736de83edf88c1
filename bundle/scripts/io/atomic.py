"""Files and folders that appear whole or not at all, however many processes write them."""

from __future__ import annotations

import errno
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
"""Nothing takes so long to write. Whether a process of another host still runs, only time tells."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A scratch path beside ``path``, same suffixes, that takes its name when the block succeeds.

    Of several processes the last one wins. What a killed process left behind is swept away by the next one.

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
    """Raise ValueError if nothing can be written to ``folder``, which may not exist yet; call this before long work."""
    place = next(place for place in (folder.absolute(), *folder.absolute().parents) if os.path.exists(place))
    if not place.is_dir():
        raise ValueError(
            f"{place}: a file, so there is no folder {folder} to write to; choose another or move the file"
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"{place}: may not be written to; correct its permissions or choose another folder")


def require_replaceable(path: Path, known_by: str) -> None:
    """Raise ValueError if :func:`whole_folder` would refuse ``path``; call this before work that would be in vain."""
    require_writable(path.parent)
    if _is_somebody_elses(path, known_by):
        raise ValueError(f"{path}: exists and holds no {known_by}, so it is not replaced; write elsewhere or remove it")


@contextmanager
def whole_folder(path: Path, known_by: str) -> Iterator[Path]:
    """A new scratch folder beside ``path`` that takes its place when the block succeeds, an older one included.

    Parents are made. Of several processes the last one wins. What a killed process left behind is swept away by the
    next one.

    Args:
        path: where the folder goes.
        known_by: a file below it that shows what it is: nothing without it is replaced, for it is somebody's data.

    Raises:
        ValueError: something else is there, or the file system refuses.
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
    """Give the folder ``partial`` the name ``path``; other processes may do the same with theirs at any moment."""
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
    """Whatever is at ``path`` makes room for the block; it is deleted afterwards, or comes back if the block fails."""
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
    """Whether anything but an empty folder or one with ``known_by`` is there; asked again if it changes meanwhile."""
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
    """A hidden name beside ``path`` that no other process, thread or call has; it says whose it is."""
    return path.with_name(f".partial-{_HOST}-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


def _sweep(folder: Path) -> None:
    """Remove what killed processes have left in ``folder``."""
    with suppress(OSError):  # another process may sweep too
        for entry in list(os.scandir(folder)):
            owner = _SCRATCH.match(entry.name)
            if owner and _is_stale(owner[1], int(owner[2]), entry.stat(follow_symlinks=False).st_mtime):
                _remove(Path(entry.path))


def _is_stale(host: str, process: int, changed: float) -> bool:
    return time.time() - changed > _STALE_SECONDS or (host == _HOST and not _is_running(process))


def _is_running(process: int) -> bool:
    if os.name != "posix":  # elsewhere, asking would end the process
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
