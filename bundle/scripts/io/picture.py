"""Radiographs stored as pictures: grey PNG, TIFF and JPEG."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from scripts.io.intake import check_pixels, check_shape, read_bytes
from scripts.io.radiograph import Radiograph

_FORMATS = ("PNG", "TIFF", "JPEG")
_GREY = ("L", "I", "F", "I;16", "I;16L", "I;16B")
_COLOUR = ("LA", "P", "PA", "RGB", "RGBA")
_COLOURED, _MAX_COLOURED_SHARE = 16, 0.01
"""Largest difference between the channels (256 levels) of a grey pixel; only markers may be coloured."""
_PHOTOMETRIC, _SAMPLE_FORMAT = 262, 339
"""TIFF's tags PhotometricInterpretation, of which 0 means that low values are white, and SampleFormat, of which 1, also
if it is missing, means unsigned."""


def is_picture(data: bytes) -> bool:
    """Return whether a file's content is PNG, JPEG or TIFF."""
    return data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))


def read_picture(path: str | Path) -> Radiograph:
    """Read one picture, turned upright by its EXIF orientation; bone must be bright.

    Grey levels of 8 and 16 bits are read exactly, those of 32 bits in single precision, and a grey picture in colour
    with 8 bits.

    Raises:
        ValueError: the file is unreadable, has several images, is coloured, transparent or bilevel, or has 16 bits per
            channel in colour; the message names the file, the rule, the value and the remedy.
    """
    path = Path(path)
    data = read_bytes(path)
    try:
        image = Image.open(BytesIO(data), formats=_FORMATS)
    except Exception as error:  # on hostile bytes Pillow raises errors of any kind
        raise _unreadable(path, error) from error
    with image:
        check_shape(path, image.height, image.width)
        if getattr(image, "is_animated", False):
            raise ValueError(f"{path}: several images in one {image.format}; store the radiograph alone")
        is_lossy = "jpeg" in f"{image.format} {image.info.get('compression')}".lower()
        tags = getattr(image, "tag_v2", {})
        is_negative = tags.get(_PHOTOMETRIC) == 0 and image.mode != "L"
        is_signed = tags.get(_SAMPLE_FORMAT, (1,)) != (1,)
        is_deep = any(";16" in str(tile.args) for tile in image.tile)
        try:
            image.load()
            upright = ImageOps.exif_transpose(image)
        except Exception as error:  # on hostile bytes Pillow raises errors of any kind
            raise _unreadable(path, error) from error
    if is_deep and image.mode in _COLOUR:
        raise ValueError(
            f"{path}: a picture in colour of 16 bits per channel, of which 8 would be lost; save it as grey levels of "
            "16 bits"
        )
    pixels = _grey(path, upright, is_signed)
    warnings = (f"{path}: a picture, processed for display: its values tell attenuation only by their order",)
    return Radiograph(
        path=str(path),
        sha256=hashlib.sha256(data).hexdigest(),
        pixels=pixels.max() - pixels if is_negative else pixels,  # Pillow inverts 8-bit pictures only
        scale="display",
        is_lossy=is_lossy,
        warnings=warnings + check_pixels(path, pixels),
    )


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: not a readable picture ({error}); copy or save it again as PNG")


def _grey(path: Path, image: Image.Image, is_signed: bool) -> np.ndarray:
    """Return grey values ``[rows, columns]`` float32."""
    if image.mode in _GREY and not image.has_transparency_data:
        levels = np.asarray(image)
        if levels.dtype == np.int32 and not is_signed:  # Pillow decodes all integers of 32 bits as signed
            levels = levels.view(np.uint32)
        return levels.astype(np.float32)
    if image.mode not in (*_GREY, *_COLOUR):
        raise ValueError(f"{path}: a picture of mode {image.mode!r}; save it as grey levels of 8 or 16 bits")
    channels = np.asarray(image.convert("RGBA"))
    if channels[..., 3].min() < 255:
        raise ValueError(f"{path}: a partly transparent picture; save it without an alpha channel")
    colour = channels[..., :3]
    share = float(np.mean(np.ptp(colour, axis=-1) > _COLOURED))
    if share > _MAX_COLOURED_SHARE:
        raise ValueError(
            f"{path}: a colour picture ({share:.0%} of its pixels have a hue); a radiograph is grey: save the original"
        )
    return colour.mean(axis=-1, dtype=np.float32)
