"""Reconstruction on a grid finer than the network's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.utils import convert_to_tensor
from torch import Tensor, nn

from scripts.resolution import coarsened, interpolated


class FinerInferer:
    """Inferer that lets another reconstruct on the network's grid, and carries its volumes over to a finer one.

    The network sees the radiographs averaged to its own pixels. Its volumes are interpolated, and then changed to meet
    the radiographs at full resolution. This adds detail across the beams, but none along them.

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
        self.reconstruct, self.factor, self.meet = reconstruct, int(factor), meet

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Return volumes ``[B, samples, f U, f V, f W]`` in [-1, 1] for images ``[B, 2, f N, f N]``."""
        image = convert_to_tensor(inputs)
        samples = self.reconstruct(coarsened(image, self.factor), network).split(1, dim=1)
        return torch.cat([self.meet(interpolated(sample, self.factor), image) for sample in samples], dim=1)
