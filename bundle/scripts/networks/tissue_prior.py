"""Covariances of the error of a network's volume, by tissue, for :class:`~scripts.physics.consistency.Consistency`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scripts.geometry import BiplanarGeometry
from scripts.intensity import (
    AIR_BELOW_HU,
    HU_PER_UNIT,
    MU_PER_HU,
    RADIOGRAPH_SCALE,
    TYPICAL_ERROR_HU,
    hu_to_network,
)
from scripts.physics.consistency import Independent
from scripts.physics.separable import exact_product

ERROR_STD = RADIOGRAPH_SCALE * MU_PER_HU * TYPICAL_ERROR_HU
"""Standard deviation of a voxel's error, in a radiograph's network units per mm."""
BONE_ABOVE_HU, BONE_VARIANCE = 150.0, 0.3
"""Bone, and its share of the variance of other tissue. Bone that a network shows is seldom wrong, but much is missed:
with the same variance everywhere, meeting the radiographs would dissolve bone into the tissue around it."""
SMOOTH_MM, INDEPENDENT = 10.0, 0.2
"""Width of the Gaussian in soft tissue, and the part of the variance there that is independent."""
DETAIL_MM = 10.0
"""Width of the Gaussian along the body's axis, beside which bone has detail."""
BONE_HU, BONE_WIDTH_HU = 100.0, 50.0
"""Where soft tissue becomes bone, and the width of the logistic function between them."""


class TissueVariance(Independent):
    """Independent errors: none in air, and in bone with a share of the variance of other tissue. TorchScript-able."""

    def __init__(self) -> None:
        super().__init__()
        self.air_below, self.bone_above = hu_to_network(torch.tensor([AIR_BELOW_HU, BONE_ABOVE_HU])).tolist()
        self.variance, self.bone_variance = ERROR_STD**2, BONE_VARIANCE

    @torch.jit.export
    def weights(self, volume: Tensor) -> Tensor:
        """Return the variance ``[B, 1, U, V, W]`` in a volume in network range."""
        share = torch.where(volume > self.bone_above, self.bone_variance, 1.0)
        return self.variance * (volume > self.air_below) * share


class TissueCovariance(nn.Module):
    """Errors that are smooth in soft tissue, and details along the body's axis in bone. TorchScript-able.

    A radiograph shows single vertebrae, but not at which depth. Independent errors would spread them as stripes over
    all tissue along each ray. But soft tissue hardly changes from vertebra to vertebra, so the stripes must be bone:

        C = S (G + c) S + B H H B,

    where S and B are the standard deviations in soft tissue and in bone (none in air), G is a Gaussian, c the part of
    soft tissue's variance that is independent, and H = 1 - G_w, with a Gaussian along w. H keeps what is darker or
    brighter than the bone above and below it: other bone is seldom wrong, but much is missed, and meeting the
    radiographs would dissolve it into the tissue around it. The design is ours.

    Args:
        geometry: the exam.
    """

    def __init__(self, geometry: BiplanarGeometry) -> None:
        super().__init__()
        self.air_below, self.bone = hu_to_network(torch.tensor([AIR_BELOW_HU, BONE_HU])).tolist()
        self.width, self.std, self.independent = BONE_WIDTH_HU / HU_PER_UNIT, ERROR_STD, INDEPENDENT
        spacing = geometry.volume_spacing_mm
        self.along_u, self.along_v, self.along_w = (
            nn.Buffer(_gaussian(count, SMOOTH_MM / spacing), persistent=False) for count in geometry.volume_shape
        )
        self.bone_along_w = nn.Buffer(_gaussian(geometry.volume_shape[2], DETAIL_MM / spacing), persistent=False)

    @torch.jit.export
    def weights(self, volume: Tensor) -> Tensor:
        """Return the standard deviations in soft tissue and bone ``[B, 2, U, V, W]`` in a volume in network range."""
        bone = torch.sigmoid((volume - self.bone) / self.width)
        return self.std * (volume > self.air_below) * torch.cat([1 - bone, bone], dim=1)

    def forward(self, values: Tensor, weights: Tensor) -> Tensor:
        """Return C ``values`` for volumes ``values [B, 1, U, V, W]``."""
        soft, bone = weights[:, :1], weights[:, 1:]
        in_soft = soft * values
        return soft * (self._smooth(in_soft) + self.independent * in_soft) + bone * self._detail(
            self._detail(bone * values)
        )

    def _smooth(self, values: Tensor) -> Tensor:
        along_w = exact_product(values, self.along_w)
        along_v = exact_product(self.along_v, along_w)
        return exact_product(self.along_u, along_v.flatten(3)).reshape_as(values)

    def _detail(self, values: Tensor) -> Tensor:
        return values - exact_product(values, self.bone_along_w)


def _gaussian(count: int, sigma: float) -> Tensor:
    """Return the symmetric matrix ``[count, count]`` that smooths by a Gaussian of ``sigma`` samples; zero outside."""
    distance = torch.arange(count) - torch.arange(count)[:, None]
    weights = torch.exp(-0.5 * (distance / sigma) ** 2)
    return weights / weights.sum(dim=1).max()
