"""Checks of tensor shapes against a geometry: a mismatch is refused, never silently resampled."""

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


def _require(what: str, given: Tensor, shape: list[int]) -> None:
    if list(given.shape[1:]) != shape:
        raise ValueError(
            f"this geometry has {what} [B] + {shape}, got {list(given.shape)}; resample them or use the network or "
            "projector of their geometry"
        )
