"""Decompresses DICOM pixel data in a process of its own.

Decoders are C code that a corrupt codestream can crash, hang or drive to any amount of memory: of randomly damaged
files, one in a hundred crashes GDCM. Here that ends a child process, and the exam with a message rather than the run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from io import BytesIO

import numpy as np
from pydicom.pixels import pixel_array

try:
    import resource
except ImportError:  # not on Windows; the time limit holds there too
    resource = None  # type: ignore[assignment]

MAX_SECONDS = 120
MAX_MEMORY_BYTES = 6 * 2**30
"""A decoder holds up to forty bytes for each of the largest radiograph's pixels."""


def decode(data: bytes, frame: int) -> np.ndarray:
    """One frame of compressed pixel data, as stored: integers ``[rows, columns]``.

    Args:
        data: a whole DICOM file.
        frame: counted from 0.

    Raises:
        ValueError: the codestream is corrupt, contradicts the header, has no decoder, or takes too long.
    """
    command = [sys.executable, "-m", __name__, str(frame)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
    try:
        child = subprocess.run(command, input=data, capture_output=True, timeout=MAX_SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        raise ValueError(f"decoding takes more than {MAX_SECONDS} s") from None
    if child.returncode > 0:
        raise ValueError(child.stderr.decode(errors="replace").strip().split("\n")[-1])
    if child.returncode < 0:
        raise ValueError(f"the decoder crashed with signal {-child.returncode}")
    return np.load(BytesIO(child.stdout), allow_pickle=False)


def _decode_input(frame: int) -> None:
    """Run the child: standard input brings a file, standard output takes its frame, standard error what failed."""
    if resource:
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    output = os.dup(1)
    os.dup2(2, 1)  # decoders may print
    array = BytesIO()
    try:
        pixels = pixel_array(BytesIO(sys.stdin.buffer.read()), index=frame, raw=True, correct_unused_bits=False)
        np.save(array, pixels)
    except Exception as error:  # of any kind: the input is hostile
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
    with os.fdopen(output, "wb") as pipe:
        pipe.write(array.getbuffer())


if __name__ == "__main__":
    _decode_input(int(sys.argv[1]))
