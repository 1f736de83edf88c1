"""MONAI transform of predictions to Hounsfield units."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from scripts.exam.exam import exam_of
from scripts.intensity import network_to_hu


class ToHounsfieldd(MapTransform):
    """Conversion of predictions from network range to HU, with the affine of the exam.

    Args:
        keys: predictions ``[K, U, V, W]``, normally ``pred``.
        reference: key of the exam's image.

    Raises:
        ValueError: a prediction holds NaN or infinity, which integers would turn into plausible HU, or is constant,
            as from a network with a last layer of zeros.
    """

    def __init__(self, keys: Hashable | list[Hashable] = "pred", reference: Hashable = "image") -> None:
        super().__init__(keys)
        self.reference = reference

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each prediction by a ``MetaTensor`` in HU."""
        result = dict(data)
        affine = torch.as_tensor(exam_of(data[self.reference]).affine)
        for key in self.keys:
            hu = network_to_hu(data[key])
            if not torch.isfinite(hu).all():
                raise ValueError(f"{key}: the reconstruction holds NaN or infinity; check the weights")
            if hu.min() == hu.max():
                raise ValueError(f"{key}: every voxel is {float(hu.max()):.0f} HU; check that the weights were trained")
            result[key] = MetaTensor(hu, affine=affine)
        return result
