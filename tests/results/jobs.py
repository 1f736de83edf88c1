"""Jobs for other processes; they import nothing that takes time."""

import os
import signal
from pathlib import Path


def write(folder: Path) -> None:
    """Make the folder, with the process's number as its content."""
    folder.mkdir()
    (folder / "process").write_text(str(os.getpid()))


def write_interrupted(folder: Path) -> None:
    """Write after Ctrl-C."""
    signal.raise_signal(signal.SIGINT)
    write(folder)


def refuse(folder: Path) -> None:
    """Fail as on a bad input."""
    raise ValueError(f"{folder.name}: refused")


def die(folder: Path) -> None:
    """Die as for lack of memory."""
    os._exit(1)


def hang(folder: Path) -> None:
    """Write and never return."""
    write(folder)
    signal.pause()
