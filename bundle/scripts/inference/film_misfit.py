"""Misfit of radiographs to a body that a network finds to explain them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scripts.intensity import radiograph_to_network


@dataclass(frozen=True, eq=False)
class FilmMisfit:
    """Misfit of pairs of radiographs to the volumes that a network reconstructs from them.

    A network that knows bodies finds one that explains both radiographs, unless one of them is the wrong way round.
    Then it misses them, and even a volume that is changed to meet them does. The misfit is the geometric mean of both.

    Attributes:
        reconstruct: inferer of the network; a single step is enough.
        network: the network.
        consistency: measures the misfits of a volume before and after it is changed to meet radiographs, such as
            :class:`~scripts.networks.trusted.TrustedConsistency`.
        device: where they are.
        batch: pairs that are reconstructed together.
    """

    reconstruct: Callable[[Tensor, Any], Tensor]
    network: Any
    consistency: Any
    device: torch.device
    batch: int = 1

    @torch.no_grad()
    def __call__(self, line_integrals: Tensor) -> Tensor:
        """Return the misfits ``[B]``, relative L2, of ``line_integrals [B, 2, N, N]``."""
        return torch.cat([self._of(some.to(self.device)).cpu() for some in line_integrals.split(self.batch)])

    def _of(self, line_integrals: Tensor) -> Tensor:
        image = radiograph_to_network(line_integrals)
        volume = self.reconstruct(image, self.network)
        before, after = self.consistency.misfits(volume, image)
        return (before * after).sqrt()
