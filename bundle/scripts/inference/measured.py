"""From data set items to the network's inputs and targets, on the device: measured radiographs."""

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
    """Radiographs from the batch itself: ``image`` (line integrals) and, where known, ``hu`` become (image, x0)."""
    image = radiograph_to_network(batch["image"].to(device, non_blocking=non_blocking))
    hu = batch.get("hu")
    return image, None if hu is None else hu_to_network(hu.to(device, non_blocking=non_blocking))


@dataclass(frozen=True)
class KeepViews:
    """Lets a network see only some views: the channel of every other one becomes zero.

    Args:
        views: those to keep.
        prepare: makes (image, x0).
    """

    views: Sequence[str]
    prepare: Callable[..., tuple[Tensor, Tensor | None]] = prepare_measured

    def __call__(
        self, batch: dict[str, Tensor], device: torch.device, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Image ``[B, 2, N, N]`` and the target as it is."""
        image, x0 = self.prepare(batch, device, non_blocking, **kwargs)
        lost = torch.tensor([view not in self.views for view in VIEWS], device=image.device)
        return image.masked_fill(lost[:, None, None], 0.0), x0
