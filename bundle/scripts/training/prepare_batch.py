"""From data set items to the network's inputs and targets, on the device, as a list of small steps.

:class:`PrepareBatch` first makes a pair of image and target from a batch. Steps then change the image: each maps images
``[B, 2, N, N]`` in network units to such images. In the end the pair is arranged as the trainer wants it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from scripts.intensity import hu_to_mu, hu_to_network, network_to_radiograph, radiograph_to_network

Batch = dict[str, Tensor]
ForEngine = tuple[Tensor, Tensor, tuple, dict[str, Tensor]]
"""(inputs, targets, arguments, named arguments) of the inferer, as MONAI's engines take them."""


def with_target(image: Tensor, x0: Tensor) -> ForEngine:
    """Hand the target to the inferer too, as ``x0``: a diffusion model is trained on noisy versions of it."""
    return image, x0, (), {"x0": x0}


@dataclass(frozen=True)
class PrepareBatch:
    """MONAI's ``prepare_batch`` for training.

    Args:
        pair: makes (image, x0) from a batch and a device, like :class:`PrepareSimulated`.
        steps: change the image, one after the other.
        arrange: lays out image and x0 for the engine.
    """

    pair: Callable[..., tuple[Tensor, Tensor]]
    steps: Sequence[Callable[[Tensor], Tensor]] = ()
    arrange: Callable[[Tensor, Tensor], ForEngine] = with_target

    def __call__(self, batch: Batch, device: torch.device, non_blocking: bool = False, **kwargs: Any) -> ForEngine:
        """Inputs and targets of ``batch`` on ``device``."""
        image, x0 = self.pair(batch, device, non_blocking, **kwargs)
        for step in self.steps:
            image = step(image)
        return self.arrange(image, x0)


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
        self, batch: Batch, device: torch.device, non_blocking: bool = False, **_: Any
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
class MakeFilms:
    """A step that turns radiographs into films, differently for every exam.

    Args:
        films: drawn from with the CPU's global generator, which the trainer seeds at every iteration.
    """

    films: FilmEffects

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        """Films of ``image``."""
        film = self.films.draw(len(image), torch.default_generator)
        return radiograph_to_network(film(network_to_radiograph(image)))


@dataclass(frozen=True)
class DropViews:
    """A step that takes one view away from some exams, so that a network learns to do with either.

    The channel of a lost view becomes zero.

    Args:
        probability: that an exam loses a view, the frontal as often as the lateral one.
    """

    probability: float = 0.0

    def __call__(self, image: Tensor) -> Tensor:
        """``image``, with a channel of zeros where a view is missing."""
        if not self.probability:
            return image
        chance, half = torch.rand(len(image), 1, device=image.device), self.probability / 2
        lost = torch.cat([chance < half, (half <= chance) & (chance < self.probability)], dim=1)
        return image.masked_fill(lost[:, :, None, None], 0.0)
