"""Checks of every radiograph from outside, before and after decoding."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np

from scripts.io.radiograph import MAX_PIXELS

MAX_FILE_BYTES = 512 * 2**20
"""Limit above which a file is refused unread; the largest single radiograph has a quarter of this."""
MIN_SIDE = 64
"""Smallest number of pixels along each side; a smaller image is an icon."""
REFUSE_CLIPPED, WARN_CLIPPED = 0.5, 0.1
"""Limits on the fraction of pixels at the lowest or highest value, in the middle of the image, where the patient is."""


def read_bytes(path: Path, at_most: int = MAX_FILE_BYTES) -> bytes:
    """Return the content of a regular file of limited size, or its first bytes.

    Raises:
        ValueError: the path is a folder, pipe, device or broken link, or the file is missing, unreadable, empty or
            too large.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path}: not a regular file but a folder, pipe or device; give a file")
        if status.st_size > MAX_FILE_BYTES:
            raise ValueError(
                f"{path}: {status.st_size} bytes, a radiograph has at most {MAX_FILE_BYTES}; give a file with one image"
            )
        with path.open("rb") as file:
            data = file.read(min(status.st_size, at_most))
    except OSError as error:
        if path.is_symlink() and not path.exists():
            raise ValueError(f"{path}: a link to {os.readlink(path)}, which does not exist; repair the link") from error
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    if not data:
        raise ValueError(f"{path}: an empty file; copy or export it again")
    return data


def check_shape(path: Path, rows: int, columns: int) -> None:
    """Check the size of an image before it is decoded.

    Raises:
        ValueError: the image has too few or too many pixels.
    """
    if min(rows, columns) < MIN_SIDE:
        raise ValueError(
            f"{path}: {rows} x {columns} pixels, a radiograph has at least {MIN_SIDE} along each side; "
            "give the image in full resolution"
        )
    if rows * columns > MAX_PIXELS:
        raise ValueError(f"{path}: {rows} x {columns} pixels, at most {MAX_PIXELS} are read; resample the image")


def check_pixels(path: Path, pixels: np.ndarray) -> tuple[str, ...]:
    """Check the values of an image ``[rows, columns]`` and return warnings.

    Air beside the patient may saturate a detector, and collimators blacken its edge. Only the middle is therefore
    checked, half of each side.

    Raises:
        ValueError: pixels are NaN, infinite or all the same, or most of the middle is clipped.
    """
    if not np.isfinite(pixels).all():
        raise ValueError(f"{path}: {int((~np.isfinite(pixels)).sum())} pixels are NaN or infinite; export it again")
    extremes = float(pixels.min()), float(pixels.max())
    if extremes[0] == extremes[1]:
        raise ValueError(f"{path}: every pixel is {extremes[0]:.6g}; a constant image shows no patient")
    rows, columns = pixels.shape
    middle = pixels[rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4]
    warnings = []
    for value in extremes:
        share = float(np.mean(middle == value))
        found = f"{path}: saturated: {share:.0%} of the pixels in its middle have the extreme value {value:.6g}"
        if share > REFUSE_CLIPPED:
            raise ValueError(f"{found}, at most {REFUSE_CLIPPED:.0%} may; export it unclipped or use another image")
        if share > WARN_CLIPPED:
            warnings.append(f"{found}; the clipped values are lost")
    return tuple(warnings)
