"""Checks of tensors against a geometry: a mismatch of shapes is refused, never silently resampled.

A missing view is an image channel of zeros, which no real radiograph is.
"""

from __future__ import annotations

from torch import Tensor


def require_image(image: Tensor, shape: list[int]) -> None:
    """Check that images have the shape ``[B] + shape``. TorchScript-able.

    Raises:
        ValueError: the shapes differ; the message names both.
    """
    _require("images", image, shape)


def require_volume(volume: Tensor, shape: list[int]) -> None:
    """Check that volumes have the shape ``[B] + shape``. TorchScript-able.

    Raises:
        ValueError: the shapes differ; the message names both.
    """
    _require("volumes", volume, shape)


def views_present(image: Tensor) -> Tensor:
    """Return which views of ``image [B, 2, N, N]`` are present: ``[B, 2]`` in its dtype, 1 or 0. TorchScript-able."""
    return (image != 0).flatten(2).any(dim=2).to(image.dtype)


def _require(what: str, given: Tensor, shape: list[int]) -> None:
    if list(given.shape[1:]) != shape:
        raise ValueError(
            f"this geometry has {what} [B] + {shape}, got {list(given.shape)}; resample them or use the network or "
            "projector of their geometry"
        )
