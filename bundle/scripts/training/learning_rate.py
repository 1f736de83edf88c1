"""Learning-rate schedules as functions of training progress."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warm_cosine(epoch: int, max_epochs: int, warmup: int = 1, floor: float = 0.01) -> float:
    """Return the factor on the learning rate: linear rise over ``warmup`` epochs, then half a cosine to ``floor``."""
    if epoch < warmup:
        return (epoch + 1) / (warmup + 1)
    progress = min(1.0, (epoch - warmup) / max(1, max_epochs - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


class EpochSchedule(LambdaLR):
    """``LambdaLR`` that takes only the epoch from a checkpoint, and everything else from the configuration.

    A run resumed with more epochs, another learning rate or weight decay uses them from its first iteration.
    """

    def __init__(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
        super().__init__(optimizer, *args, **kwargs)
        fixed = {"params", "lr", "initial_lr"}
        self.options = [{k: v for k, v in group.items() if k not in fixed} for group in optimizer.param_groups]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to the epoch of ``state_dict``; the optimizer must be restored first."""
        before = {name: state_dict[name] - 1 for name in ("last_epoch", "_step_count")}
        super().load_state_dict(state_dict | before | {"base_lrs": self.base_lrs, "options": self.options})
        for group, options in zip(self.optimizer.param_groups, self.options, strict=True):
            group.update(options)
        self.step()
