"""Reconstruction on a grid finer than the network's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from monai.utils import convert_to_tensor
from torch import Tensor, nn


class FinerInferer:
    """Inferer that lets another reconstruct on the network's grid, and carries its volumes over to a finer one.

    The network sees the radiographs averaged to its own pixels. Its volumes are interpolated, and then changed to meet
    the radiographs at full resolution, from which they take what detail there is along the beams.

    Args:
        reconstruct: the other inferer.
        factor: voxels and pixels per side for each of the network's.
        meet: called as ``meet(volume, image)`` with one volume per exam on the finer grid, in network range; see
            :class:`~scripts.networks.trusted.TrustedConsistency`.
    """

    def __init__(
        self,
        reconstruct: Callable[[Tensor, nn.Module], Tensor],
        factor: int,
        meet: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        self.reconstruct, self.factor, self.meet = reconstruct, factor, meet

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Return volumes ``[B, samples, f U, f V, f W]`` in [-1, 1] for images ``[B, 2, f N, f N]``."""
        image = convert_to_tensor(inputs)
        coarse = self.reconstruct(F.avg_pool2d(image, self.factor), network)
        return torch.cat([self.meet(self._interpolated(sample), image) for sample in coarse.split(1, dim=1)], dim=1)

    def _interpolated(self, volume: Tensor) -> Tensor:
        return F.interpolate(volume, scale_factor=float(self.factor), mode="trilinear", align_corners=False)
