"""Batch normalisation statistics of averaged weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.optim.swa_utils import update_bn


class RecalibrateBatchNorm:
    """Handler that recomputes the batch statistics of a network with averaged weights before each validation.

    The running statistics of averaged weights are those of the last weights, which have other activations (Izmailov et
    al. 2018, section 3.2). For a network without batch normalisation this does nothing.

    Args:
        network: network with averaged weights.
        batches: training batches from a separate loader, so that the trainer's keeps its position.
        prepare_batch: turns a batch and a device into a tuple that starts with the image.
        device: device of the network.
        count: number of batches for the statistics.
    """

    def __init__(
        self,
        network: nn.Module,
        batches: Iterable[Any],
        prepare_batch: Callable[[Any, torch.device], tuple],
        device: torch.device,
        count: int = 16,
    ) -> None:
        self.network, self.batches, self.prepare_batch = network, batches, prepare_batch
        self.device, self.count = device, count

    def attach(self, engine: Engine) -> None:
        """Recalibrate whenever the validator ``engine`` starts."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Recalibrate now."""
        update_bn(
            (self.prepare_batch(batch, self.device)[0] for batch in islice(self.batches, self.count)), self.network
        )
