"""Misfit of radiographs to a body that a network finds to explain them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scripts.intensity import hu_to_mu, network_to_hu, radiograph_to_network


@dataclass(frozen=True, eq=False)
class FilmMisfit:
    """L2 misfit of pairs of radiographs to the volumes that a network reconstructs from them.

    A network that knows bodies finds one that explains both radiographs, unless one of them is the wrong way round.

    Attributes:
        reconstruct: inferer of the network; a single step is enough.
        network: the network.
        projector: maps attenuation ``[B, 1, U, V, W]`` in 1/mm to line integrals ``[B, 2, N, N]``.
        device: where they are.
        batch: pairs that are reconstructed together.
    """

    reconstruct: Callable[[Tensor, Any], Tensor]
    network: Any
    projector: Callable[[Tensor], Tensor]
    device: torch.device
    batch: int = 1

    @torch.no_grad()
    def __call__(self, line_integrals: Tensor) -> Tensor:
        """Return the misfits ``[B]`` of ``line_integrals [B, 2, N, N]``."""
        return torch.cat([self._of(some.to(self.device)).cpu() for some in line_integrals.split(self.batch)])

    def _of(self, line_integrals: Tensor) -> Tensor:
        volume = self.reconstruct(radiograph_to_network(line_integrals), self.network)
        return (line_integrals - self.projector(hu_to_mu(network_to_hu(volume)))).flatten(1).norm(dim=1)
