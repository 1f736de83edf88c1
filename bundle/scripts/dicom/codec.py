"""Decompression of DICOM pixel data in a separate process.

Decoders are C code that a corrupt codestream can crash, hang or make allocate any amount of memory: one in a hundred
randomly damaged files crashes GDCM. Here such a crash ends only a child process, and the exam fails with a message.
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
except ImportError:  # Windows, where only the time limit applies
    resource = None  # type: ignore[assignment]

MAX_SECONDS = 120
MAX_MEMORY_BYTES = 6 * 2**30
"""Memory limit: a decoder needs up to forty bytes per pixel of the largest radiograph."""


def decode(data: bytes, frame: int) -> np.ndarray:
    """Decompress one frame of pixel data to integers ``[rows, columns]`` as stored.

    Args:
        data: content of a DICOM file.
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
    """Run the child process: read a file from stdin, write the frame to stdout and any failure to stderr."""
    if resource:
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    output = os.dup(1)
    os.dup2(2, 1)  # decoders may print to stdout
    array = BytesIO()
    try:
        pixels = pixel_array(BytesIO(sys.stdin.buffer.read()), index=frame, raw=True, correct_unused_bits=False)
        np.save(array, pixels)
    except Exception as error:  # of any kind, since the input may be hostile
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
    with os.fdopen(output, "wb") as pipe:
        pipe.write(array.getbuffer())


if __name__ == "__main__":
    _decode_input(int(sys.argv[1]))
