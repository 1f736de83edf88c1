"""Extraction of the image from the bits of the pixel data, for CT slices and radiographs (PS3.5 section 8.1.1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom import __version__ as pydicom_version
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.tag import Tag
from pydicom.uid import UID

from scripts.dicom.attributes import integer, is_stated, number

OVERLAY_BITS = [Tag(group, 0x0102) for group in range(0x6000, 0x6020, 2)]
"""Overlay Bit Position of each overlay: old equipment stores overlays in the unused bits of pixels."""
_UNKNOWN_SYNTAXES = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
}
"""Transfer syntaxes of the standard for which pydicom has no name."""


class PixelFormat(NamedTuple):
    """Storage format of pixels."""

    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool

    @property
    def extremes(self) -> np.ndarray:
        """Return the lowest and the highest value that can be stored."""
        low = -(1 << self.bits_stored - 1) if self.is_signed else 0
        return np.array([low, low + (1 << self.bits_stored) - 1], dtype=np.int64)

    @property
    def dtype(self) -> np.dtype:
        """Data type of a word of the pixel data."""
        return np.dtype(f"{'i' if self.is_signed else 'u'}{self.bits_allocated // 8}")

    @property
    def low_bit(self) -> int:
        """Position of the lowest stored bit."""
        return self.high_bit + 1 - self.bits_stored


class StoredPixels(NamedTuple):
    """Values of one frame before any look-up table, ``[rows, columns]``, and a bool mask of padding."""

    values: np.ndarray
    is_padding: np.ndarray


def pixel_format(path: str | Path, dataset: Dataset, widths: Sequence[int] = (8, 16)) -> PixelFormat:
    """Read the storage format from the header; a missing or zero frame count means 1, missing bits mean all are used.

    Args:
        path: file, for messages.
        dataset: the header.
        widths: accepted values of BitsAllocated.

    Raises:
        ValueError: the format is not stated, or impossible.
    """
    allocated = integer(path, dataset, "BitsAllocated")
    stored = integer(path, dataset, "BitsStored", default=allocated)
    high = integer(path, dataset, "HighBit", default=stored - 1)
    if allocated not in widths or not 8 <= stored <= high + 1 <= allocated:
        raise ValueError(
            f"{path}: BitsAllocated {allocated}, BitsStored {stored}, HighBit {high}; 8 to {max(widths)} bits are "
            f"read, stored within {' or '.join(map(str, widths))}: export it again"
        )
    return PixelFormat(
        rows=integer(path, dataset, "Rows"),
        columns=integer(path, dataset, "Columns"),
        frames=integer(path, dataset, "NumberOfFrames", default=1) or 1,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high,
        is_signed=integer(path, dataset, "PixelRepresentation", default=0) == 1,
    )


def check_decodable(path: str | Path, syntax: UID) -> None:
    """Check that a decoder for a transfer syntax is installed.

    Raises:
        ValueError: there is none; the message names the syntax and the packages that would decode it.
    """
    name = _UNKNOWN_SYNTAXES.get(syntax, syntax.name)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise ValueError(
            f"{path}: stored as {name} (transfer syntax {syntax}), which pydicom {pydicom_version} does not decode; "
            "export it again, uncompressed"
        ) from None
    if not decoder.is_available:
        raise ValueError(
            f"{path}: stored as {name} (transfer syntax {syntax}), for which no decoder is installed; install one "
            f"({'; '.join(decoder.missing_dependencies)}), or export it again, uncompressed"
        )


def trim(dataset: Dataset, form: PixelFormat) -> int:
    """Cut uncompressed pixel data to the declared length and return the number of excess bytes.

    Raises:
        ValueError: there are too few bytes, they are compressed, or the excess could hold another image.
    """
    if dataset["PixelData"].is_undefined_length:
        raise ValueError("they are compressed, against the transfer syntax")
    frame = form.rows * form.columns * form.bits_allocated // 8
    declared, present = form.frames * frame, len(dataset.PixelData)
    if not declared <= present < declared + max(frame, 2):
        raise ValueError(f"{present} bytes present, {declared} declared")
    if present > declared + declared % 2:
        dataset.PixelData = dataset.PixelData[:declared] + b"\0" * (declared % 2)
    return max(0, present - declared - declared % 2)


def stored_pixels(path: str | Path, dataset: Dataset, form: PixelFormat, raw: np.ndarray) -> StoredPixels:
    """Extract the image from the words of the pixel data.

    The image is in the BitsStored bits up to HighBit. The other bits may repeat the sign, be 0, or hold a declared
    overlay. Anything else means that the header does not fit its pixels, which would be cut off. Padding is exempt: a
    padding value beyond the stored bits becomes the nearest one within them.

    Args:
        path: file, for messages.
        dataset: the header.
        form: storage format stated by the header.
        raw: words of one frame, ``[rows, columns]``.

    Raises:
        ValueError: bits are set outside the stored ones.
    """
    image_bits = _word(((1 << form.bits_stored) - 1) << form.low_bit, form.dtype)
    words = raw.astype(form.dtype, copy=False) & (image_bits | ~_overlay_bits(dataset, form.dtype))
    unused = form.bits_allocated - 1 - form.high_bit
    values = np.right_shift(np.left_shift(words, unused), form.bits_allocated - form.bits_stored)
    is_padding = _is_padding(dataset, words) | _is_padding(dataset, values)
    is_zero_filled = (words & ~image_bits) == 0
    is_sign_filled = words == np.left_shift(values, form.low_bit)
    if not (is_zero_filled | is_padding).all() and not (is_sign_filled | is_padding).all():
        raise ValueError(
            f"{path}: BitsStored {form.bits_stored} and HighBit {form.high_bit} do not hold its pixels, which are "
            f"words from {words.min()} to {words.max()}, and no overlay is declared in the bits between; correct these "
            "attributes, or export it again"
        )
    is_beyond = is_padding & ~is_zero_filled & ~is_sign_filled
    nearest = np.clip(np.right_shift(words, form.low_bit), *form.extremes).astype(form.dtype)
    return StoredPixels(np.where(is_beyond, nearest, values), is_padding)


def rescaled(values: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Return values times RescaleSlope plus RescaleIntercept, which default to 1 and 0.

    Raises:
        ValueError: one of them is not a number.
    """
    slope, intercept = (
        float(dataset[keyword].value) if is_stated(dataset, keyword) else default
        for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
    )
    return values.astype(np.float64) * slope + intercept


def _word(value: int, dtype: np.dtype) -> np.ndarray:
    """Return the low bits of any integer as a word."""
    return np.array(value & ((1 << 8 * dtype.itemsize) - 1), dtype=np.uint64).astype(dtype)


def _overlay_bits(dataset: Dataset, dtype: np.dtype) -> np.ndarray:
    positions = {dataset[tag].value for tag in OVERLAY_BITS if tag in dataset}
    declared = (bit for bit in positions if isinstance(bit, int) and 0 <= bit < 8 * dtype.itemsize)
    return _word(sum(1 << bit for bit in declared), dtype)


def _is_padding(dataset: Dataset, values: np.ndarray) -> np.ndarray:
    """Return the mask of pixels with PixelPaddingValue, or in the range that it delimits: PS3.3 C.7.5.1.1.2."""
    value, limit = (number(dataset, keyword) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if value is None:
        return np.zeros(values.shape, dtype=bool)
    low, high = sorted(_word(int(bound), values.dtype) for bound in (value, value if limit is None else limit))
    return (values >= low) & (values <= high)
