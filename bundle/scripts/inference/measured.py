"""Preparation of batches of measured radiographs as network inputs and targets, on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scripts.geometry import VIEWS
from scripts.intensity import hu_to_network, radiograph_to_network


def prepare_measured(
    batch: dict[str, Tensor], device: torch.device, non_blocking: bool = False, **_: Any
) -> tuple[Tensor, Tensor | None]:
    """Convert ``line_integrals`` and, if known, ``hu`` of a batch to (image, x0)."""
    image = radiograph_to_network(batch["line_integrals"].to(device, non_blocking=non_blocking))
    hu = batch.get("hu")
    return image, None if hu is None else hu_to_network(hu.to(device, non_blocking=non_blocking))


@dataclass(frozen=True)
class KeepViews:
    """Restriction of a network's input to some views: the channels of all others become zero.

    Args:
        views: views to keep.
        prepare: makes (image, x0).
    """

    views: Sequence[str]
    prepare: Callable[..., tuple[Tensor, Tensor | None]] = prepare_measured

    def __call__(
        self, batch: dict[str, Tensor], device: torch.device, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Return the image ``[B, 2, N, N]`` and the unchanged target."""
        image, x0 = self.prepare(batch, device, non_blocking, **kwargs)
        lost = torch.tensor([view not in self.views for view in VIEWS], device=image.device)
        return image.masked_fill(lost[:, None, None], 0.0), x0
