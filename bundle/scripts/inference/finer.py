"""Reconstruction on a grid finer than that of another inferer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import torch
from monai.utils import convert_to_tensor
from torch import Tensor, nn

from scripts.resolution import coarsened, interpolated


class FinerInferer:
    """Inferer that lets another one reconstruct on its grid, and carries its volumes over to a finer one.

    The other inferer sees the radiographs averaged to its own pixels. Its volumes are interpolated, and then changed by
    what the radiographs show at full resolution.

    Args:
        reconstruct: the other inferer.
        factor: voxels and pixels per side for each of the other inferer's.
        changes: one for each sample in turn, called as ``change(volume, image)`` with one volume per exam on the finer
            grid, in network range; see :class:`~scripts.inference.refine.Refine` and
            :class:`~scripts.networks.trusted.TrustedConsistency`.
    """

    def __init__(
        self,
        reconstruct: Callable[[Tensor, nn.Module], Tensor],
        factor: int,
        changes: Sequence[Callable[[Tensor, Tensor], Tensor]],
    ) -> None:
        self.reconstruct, self.factor, self.changes = reconstruct, int(factor), changes

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Return volumes ``[B, samples, f U, f V, f W]`` in [-1, 1] for images ``[B, 2, f N, f N]``."""
        image = convert_to_tensor(inputs)
        samples = self.reconstruct(coarsened(image, self.factor), network).split(1, dim=1)
        changed = (
            change(interpolated(sample, self.factor), image)
            for sample, change in zip(samples, cycle(self.changes), strict=False)
        )
        return torch.cat(tuple(changed), dim=1)
