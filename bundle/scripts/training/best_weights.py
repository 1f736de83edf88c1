"""Saving of the weights of the best validation."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from ignite.engine import Events
from monai.engines import Evaluator
from torch import nn

from scripts.io.atomic import require_writable
from scripts.training.checkpoints import save_atomically

logger = logging.getLogger(__name__)


class BestWeights:
    """Handler that writes a network's raw ``state_dict`` whenever the validator's key metric improves.

    The best value is part of the training checkpoint, so a resumed run never replaces better weights by worse ones.

    Args:
        network: network to save, usually the moving average.
        path: output file, replaced atomically.
        better: whether the first value is better than the second, by default if larger. NaN never is.
        dtype: floating-point type on disk of the float32 weights.
        is_writer: whether this process writes, True for one process of a distributed run.
    """

    def __init__(
        self,
        network: nn.Module,
        path: str | Path,
        better: Callable[[float, float], bool] = lambda new, best: new > best,
        dtype: torch.dtype = torch.float32,
        is_writer: bool = True,
    ) -> None:
        self.network, self.path, self.better = network, Path(path), better
        self.dtype, self.is_writer = dtype, is_writer
        self.best: float | None = None

    def attach(self, engine: Evaluator) -> None:
        """Compare after every run of the validator ``engine``.

        Raises:
            ValueError: the folder of the weights is not writable.
        """
        if self.is_writer:
            require_writable(self.path.parent)
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Evaluator) -> None:
        """Save if the key metric of ``engine`` is the best so far."""
        value = float(engine.state.metrics[engine.state.key_metric_name])
        if math.isnan(value) or (self.best is not None and not self.better(value, self.best)):
            return
        self.best = value
        if self.is_writer:
            save_weights(self.network, self.path, self.dtype)
            logger.info("best %s so far: %.4f, weights in %s", engine.state.key_metric_name, value, self.path)

    def state_dict(self) -> dict[str, float | None]:
        """Return the best value, for the training checkpoint."""
        return {"best": self.best}

    def load_state_dict(self, state: Mapping[str, float | None]) -> None:
        """Restore the best value of an earlier run."""
        self.best = state["best"]


def save_weights(network: nn.Module, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write a raw ``state_dict`` for MONAI's loaders atomically; float32 entries are stored as ``dtype``."""
    state = {k: v.to(dtype) if v.dtype == torch.float32 else v for k, v in network.state_dict().items()}
    save_atomically(state, path)
