"""What every radiograph from outside must satisfy, before it is decoded and after."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np

from scripts.io.radiograph import MAX_PIXELS

MAX_FILE_BYTES = 512 * 2**20
"""A larger file is refused unread: the largest single radiograph has a quarter of this."""
MIN_SIDE = 64
"""Pixels along each side; a smaller image is an icon."""
REFUSE_CLIPPED, WARN_CLIPPED = 0.5, 0.1
"""Share of pixels in the middle of the image, where the patient is, that lie at the image's lowest or highest value."""


def read_bytes(path: Path, at_most: int = MAX_FILE_BYTES) -> bytes:
    """The content of a regular file of bounded size, or its first bytes.

    Raises:
        ValueError: a folder, pipe or device, a link that leads nowhere, a file that is missing, unreadable, empty or
            too large.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path}: not a regular file but a folder, pipe or device; give a file")
        if status.st_size > MAX_FILE_BYTES:
            raise ValueError(
                f"{path}: {status.st_size} bytes, a radiograph has at most {MAX_FILE_BYTES}; give a file of one image"
            )
        with path.open("rb") as file:
            data = file.read(min(status.st_size, at_most))
    except OSError as error:
        if path.is_symlink() and not path.exists():
            raise ValueError(f"{path}: a link to {os.readlink(path)}, which is not there; mend the link") from error
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    if not data:
        raise ValueError(f"{path}: an empty file; copy or export it again")
    return data


def check_shape(path: Path, rows: int, columns: int) -> None:
    """Refuse an image by its size, before it is decoded.

    Raises:
        ValueError: too few or too many pixels.
    """
    if min(rows, columns) < MIN_SIDE:
        raise ValueError(
            f"{path}: {rows} x {columns} pixels, a radiograph has at least {MIN_SIDE} along each side; "
            "give the image in full resolution"
        )
    if rows * columns > MAX_PIXELS:
        raise ValueError(f"{path}: {rows} x {columns} pixels, at most {MAX_PIXELS} are read; resample the image")


def check_pixels(path: Path, pixels: np.ndarray) -> tuple[str, ...]:
    """Warnings about the values of an image ``[rows, columns]``.

    Air beside the patient may saturate a detector, and collimators blacken its edge: only the middle is judged, half of
    each side.

    Raises:
        ValueError: NaN or infinite pixels, a constant image, or most of its middle clipped.
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
            raise ValueError(f"{found}, at most {REFUSE_CLIPPED:.0%} may; export it unclipped or take another image")
        if share > WARN_CLIPPED:
            warnings.append(f"{found}; what was clipped there is lost")
    return tuple(warnings)
