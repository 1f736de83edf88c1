"""From data set items to the network's inputs and targets, on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from scripts.intensity import hu_to_mu, hu_to_network, network_to_radiograph, radiograph_to_network


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


class FilmEffects(Protocol):
    """A distribution of what makes films of simulated radiographs."""

    def draw(self, exams: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        """A map of the line integrals ``[exams, 2, N, N]`` of so many exams."""
        ...


@dataclass(frozen=True)
class PrepareFilms:
    """Makes films of the radiographs of a batch, differently for every exam.

    Args:
        prepare: makes (image, x0).
        films: drawn from with the CPU's global generator, which the trainer seeds at every iteration.
    """

    prepare: Callable[..., tuple[Tensor, Tensor]]
    films: FilmEffects

    @torch.no_grad()
    def __call__(
        self, batch: dict[str, Tensor], device: torch.device, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Image ``[B, 2, N, N]`` in network units and the target as it was."""
        image, x0 = self.prepare(batch, device, non_blocking, **kwargs)
        film = self.films.draw(len(image), torch.default_generator)
        return radiograph_to_network(film(network_to_radiograph(image))), x0


@dataclass(frozen=True)
class DropViews:
    """Takes one view away from some exams, so that a network learns to do with either: its channel becomes zero.

    Args:
        prepare: makes (image, x0).
        probability: that an exam loses a view, the frontal as often as the lateral one.
    """

    prepare: Callable[..., tuple[Tensor, Tensor]]
    probability: float = 0.0

    def __call__(
        self, batch: dict[str, Tensor], device: torch.device, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Image ``[B, 2, N, N]``, with a channel of zeros where a view is missing, and the target as it is."""
        image, x0 = self.prepare(batch, device, non_blocking, **kwargs)
        if self.probability:
            chance, half = torch.rand(len(image), 1, device=image.device), self.probability / 2
            lost = torch.cat([chance < half, (half <= chance) & (chance < self.probability)], dim=1)
            image = image.masked_fill(lost[:, :, None, None], 0.0)
        return image, x0


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
