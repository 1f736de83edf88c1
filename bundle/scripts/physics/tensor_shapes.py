"""Checks of tensor shapes against a geometry: a mismatch is refused, never silently resampled."""

from __future__ import annotations

from torch import Tensor


def require_image(image: Tensor, shape: list[int]) -> None:
    """Refuse a batch of images whose shape is not ``[B] + shape``. TorchScript-able.

    Raises:
        ValueError: the shapes differ; the message names both.
    """
    if list(image.shape[1:]) != shape:
        raise ValueError(
            f"this geometry has images [B] + {shape}, got {list(image.shape)}; resample them or use the network or "
            "projector of their geometry"
        )


def require_volume(volume: Tensor, shape: list[int]) -> None:
    """Refuse a batch of volumes whose shape is not ``[B] + shape``. TorchScript-able.

    Raises:
        ValueError: the shapes differ; the message names both.
    """
    if list(volume.shape[1:]) != shape:
        raise ValueError(
            f"this geometry has volumes [B] + {shape}, got {list(volume.shape)}; resample them or use the network or "
            "projector of their geometry"
        )
