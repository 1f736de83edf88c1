"""From data set items to the network's inputs and targets, on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scripts.intensity import hu_to_mu, hu_to_network, radiograph_to_network


@dataclass(frozen=True)
class PrepareSimulated:
    """Projects CTs to radiographs on the fly: a batch with ``hu [B, 1, U, V, W]`` becomes (image, x0).

    The projection runs on the training device and in float32.

    Args:
        projector: mu in 1/mm to line integrals ``[B, 2, N, N]``.
        noise_std: standard deviation of Gaussian noise added to the line integrals.
        gain_std: standard deviation of a common factor on each exam's line integrals, for a wrong beam energy.
    """

    projector: nn.Module
    noise_std: float = 0.0
    gain_std: float = 0.0

    @torch.no_grad()
    def __call__(
        self, batch: dict[str, Tensor], device: torch.device, non_blocking: bool = False, **_: Any
    ) -> tuple[Tensor, Tensor]:
        """Image ``[B, 2, N, N]`` in network units and target ``[B, 1, U, V, W]`` in [-1, 1]."""
        hu = batch["hu"].to(device, non_blocking=non_blocking)
        line_integrals = self.projector(hu_to_mu(hu))
        if self.gain_std:
            gain = torch.randn(len(hu), 1, 1, 1, device=device)
            line_integrals = line_integrals * (1 + self.gain_std * gain)
        if self.noise_std:
            line_integrals = line_integrals + self.noise_std * torch.randn_like(line_integrals)
        return radiograph_to_network(line_integrals), hu_to_network(hu)


def prepare_measured(
    batch: dict[str, Tensor], device: torch.device, non_blocking: bool = False, **_: Any
) -> tuple[Tensor, Tensor | None]:
    """Radiographs from the batch itself: ``image`` (line integrals) and, where known, ``hu`` become (image, x0)."""
    image = radiograph_to_network(batch["image"].to(device, non_blocking=non_blocking))
    hu = batch.get("hu")
    return image, None if hu is None else hu_to_network(hu.to(device, non_blocking=non_blocking))


@dataclass(frozen=True)
class WithTarget:
    """Hands the target to the inferer too, as ``x0``: a diffusion model is trained on noisy versions of it.

    Args:
        prepare: makes (image, x0).
    """

    prepare: Callable[..., tuple[Tensor, Tensor]]

    def __call__(
        self, batch: dict[str, Tensor], device: torch.device, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[Tensor, Tensor, tuple, dict[str, Tensor]]:
        """(image, x0, no further arguments, ``{"x0": x0}``), as MONAI's engines expect."""
        image, x0 = self.prepare(batch, device, non_blocking, **kwargs)
        return image, x0, (), {"x0": x0}
