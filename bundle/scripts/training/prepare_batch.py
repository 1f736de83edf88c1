"""Preparation of batches as network inputs and targets, on the device, by a list of small steps.

:class:`PrepareBatch` first makes a pair of image and target from a batch. Steps then change the image: each maps images
``[B, 2, N, N]`` in network units to images of that kind. Finally the pair is arranged for the trainer.
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
"""(inputs, targets, arguments, named arguments) of the inferer, as MONAI's engines expect them."""


def with_target(image: Tensor, x0: Tensor) -> ForEngine:
    """Pass the target to the inferer too, as ``x0``, since a diffusion model is trained on noisy versions of it."""
    return image, x0, (), {"x0": x0}


@dataclass(frozen=True)
class PrepareBatch:
    """MONAI's ``prepare_batch`` for training.

    Args:
        pair: makes (image, x0) from a batch and a device, like :class:`PrepareSimulated`.
        steps: functions that change the image, applied in order.
        arrange: arranges image and x0 for the engine.
    """

    pair: Callable[..., tuple[Tensor, Tensor]]
    steps: Sequence[Callable[[Tensor], Tensor]] = ()
    arrange: Callable[[Tensor, Tensor], ForEngine] = with_target

    def __call__(self, batch: Batch, device: torch.device, non_blocking: bool = False, **kwargs: Any) -> ForEngine:
        """Return inputs and targets of ``batch`` on ``device``."""
        image, x0 = self.pair(batch, device, non_blocking, **kwargs)
        for step in self.steps:
            image = step(image)
        return self.arrange(image, x0)


@dataclass(frozen=True)
class PrepareSimulated:
    """Projection of CTs to radiographs on the fly: a batch with ``hu [B, 1, U, V, W]`` becomes (image, x0).

    The projection runs on the training device and in float32.

    Args:
        projector: maps mu in 1/mm to line integrals ``[B, 2, N, N]``.
        noise_std: standard deviation of Gaussian noise added to the line integrals.
        gain_std: standard deviation of a common factor on each exam's line integrals, as from another beam energy.
    """

    projector: nn.Module
    noise_std: float = 0.0
    gain_std: float = 0.0

    @torch.no_grad()
    def __call__(
        self, batch: Batch, device: torch.device, non_blocking: bool = False, **_: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the image ``[B, 2, N, N]`` in network units and the target ``[B, 1, U, V, W]`` in [-1, 1]."""
        hu = batch["hu"].to(device, non_blocking=non_blocking)
        line_integrals = self.projector(hu_to_mu(hu))
        if self.gain_std:
            gain = torch.randn(len(hu), 1, 1, 1, device=device)
            line_integrals = line_integrals * (1 + self.gain_std * gain)
        if self.noise_std:
            line_integrals = line_integrals + self.noise_std * torch.randn_like(line_integrals)
        return radiograph_to_network(line_integrals), hu_to_network(hu)


class FilmEffects(Protocol):
    """Distribution of effects that turn simulated radiographs into films."""

    def draw(self, exams: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        """Draw a map of line integrals ``[exams, 2, N, N]``."""
        ...


@dataclass(frozen=True)
class MakeFilms:
    """Step that turns radiographs into films, differently for every exam.

    Args:
        films: distribution of film effects, drawn with the CPU's global generator, which the trainer seeds at every
            iteration.
    """

    films: FilmEffects

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        """Return films of ``image``."""
        film = self.films.draw(len(image), torch.default_generator)
        return radiograph_to_network(film(network_to_radiograph(image)))


@dataclass(frozen=True)
class SomeExams:
    """Step that applies another step to some of the exams.

    Args:
        step: the other step; it sees only the exams that it changes.
        share: probability that an exam is changed.
    """

    step: Callable[[Tensor], Tensor]
    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"training: the share of films must be between 0 and 1, got {self.share!r}")

    def __call__(self, image: Tensor) -> Tensor:
        """Return ``image`` with some exams changed."""
        chosen = torch.rand(len(image)) < self.share
        if not chosen.any():
            return image
        changed = image.clone()
        changed[chosen] = self.step(image[chosen])
        return changed


@dataclass(frozen=True)
class DropViews:
    """Step that removes one view from some exams, so that a network learns to work with either.

    The channel of a removed view becomes zero.

    Args:
        probability: probability that an exam loses a view, frontal and lateral equally often.
    """

    probability: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"--view_dropout must be a probability between 0 and 1, got {self.probability!r}")

    def __call__(self, image: Tensor) -> Tensor:
        """Return ``image`` with a channel of zeros for each removed view."""
        if not self.probability:
            return image
        chance, half = torch.rand(len(image), 1, device=image.device), self.probability / 2
        lost = torch.cat([chance < half, (half <= chance) & (chance < self.probability)], dim=1)
        return image.masked_fill(lost[:, :, None, None], 0.0)
