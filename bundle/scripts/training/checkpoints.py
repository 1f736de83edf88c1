"""Training checkpoints, written atomically after every epoch, for exact resumption."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from scripts.io.atomic import require_writable, whole_file
from scripts.io.refusal import write_refusals
from scripts.io.tensors import read_tensors

logger = logging.getLogger(__name__)


class Checkpoints:
    """Handler that saves the complete state of a training after every epoch, and resumes from the newest checkpoint.

    A run that is killed at any moment and restarted repeats the current epoch; with
    :class:`~scripts.training.seeding.SeedIterations` and a data set with items that depend only on their index, it ends
    with the same weights as an uninterrupted run. MONAI's ``CheckpointSaver`` cannot guarantee that: it writes in
    place, and deletes an old checkpoint before the new one is complete.

    Args:
        folder: folder of the checkpoints, ``checkpoint_epoch=<n>.pt``.
        state: objects with ``state_dict`` and ``load_state_dict``, restored in this order; the engine itself is added.
        unchanged: settings that determine the meaning of the state; a run resumes only if those that its checkpoint
            names are equal.
        n_saved: number of checkpoints to keep.
        map_location: device to load to.
        is_writer: whether this process saves, True for one process of a distributed run.
    """

    def __init__(
        self,
        folder: str | Path,
        state: Mapping[str, Any],
        unchanged: Mapping[str, Any] | None = None,
        n_saved: int = 2,
        map_location: torch.device | str | None = None,
        is_writer: bool = True,
    ) -> None:
        self.folder, self.state, self.n_saved = Path(folder), dict(state), n_saved
        self.unchanged = {name: repr(value) for name, value in (unchanged or {}).items()}
        self.map_location, self.is_writer = map_location, is_writer
        self.looked = False

    def attach(self, engine: Engine) -> None:
        """Resume when ``engine`` starts for the first time, and save after each of its epochs.

        Raises:
            ValueError: the folder is not writable.
        """
        engine.add_event_handler(Events.STARTED, self.resume)
        if self.is_writer:
            require_writable(self.folder)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def save(self, engine: Engine) -> None:
        """Write the checkpoint of the epoch that ``engine`` has completed, then delete those that are too old."""
        checkpoint = {name: part.state_dict() for name, part in self.state.items()}
        checkpoint |= {"trainer": engine.state_dict(), "unchanged": self.unchanged}
        save_atomically(checkpoint, self.folder / f"checkpoint_epoch={engine.state.epoch}.pt")
        for old in saved_checkpoints(self.folder)[: -self.n_saved]:
            old.unlink()

    def resume(self, engine: Engine) -> None:
        """Restore the newest checkpoint, if any; only the first call does.

        An engine that runs again continues from its own state. In federated learning that state holds the weights of
        the server, which a checkpoint must not replace.

        Raises:
            ValueError: the checkpoint is damaged, or belongs to a run with other settings or another network.
        """
        if self.looked:
            return
        self.looked = True
        engine.state_dict_user_keys.clear()  # an adversarial trainer adds its networks as whole objects
        saved = saved_checkpoints(self.folder)
        if not saved:
            logger.info("no checkpoint in %s: training starts from scratch", self.folder)
            return
        checkpoint, planned = read_checkpoint(saved[-1], self.map_location), engine.state.max_epochs
        try:
            self._restore(engine, checkpoint)
        except (LookupError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"{saved[-1]}: cannot resume: {error}; use the configuration this run was started with, or start "
                "another run with another --output_dir"
            ) from None
        engine.state.max_epochs = planned
        is_done = planned is not None and engine.state.epoch >= planned
        outlook = "nothing left to do; raise --max_epochs to continue" if is_done else "resuming"
        logger.info("%s: %d of %d epochs are done, %s", saved[-1], engine.state.epoch, planned, outlook)

    def _restore(self, engine: Engine, checkpoint: Mapping[str, Any]) -> None:
        before = checkpoint["unchanged"]
        different = [f"{k} was {before[k]}, now {v}" for k, v in self.unchanged.items() if before.get(k, v) != v]
        if different:
            raise ValueError("; ".join(different))
        for name, part in self.state.items():
            part.load_state_dict(checkpoint[name])
        engine.load_state_dict(checkpoint["trainer"])


def saved_checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints in ``folder``, sorted by the epoch in their names, oldest first."""
    epochs = {int(m[1]): p for p in folder.glob("*.pt") if (m := re.fullmatch(r"checkpoint_epoch=(\d+)\.pt", p.name))}
    return [epochs[epoch] for epoch in sorted(epochs)]


def read_checkpoint(path: Path, map_location: torch.device | str | None = None) -> dict[str, Any]:
    """Load a checkpoint after verifying every byte.

    Raises:
        ValueError: the file is damaged or not a checkpoint.
    """
    try:
        return read_tensors(path, map_location)
    except ValueError as error:
        raise ValueError(f"{error}; delete this checkpoint to resume from the previous one") from error


def save_atomically(value: Any, path: Path) -> None:
    """Apply ``torch.save`` to a file that appears, or is replaced, only when it is complete.

    Raises:
        ValueError: the file system refuses.
    """
    with write_refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        try:
            torch.save(value, partial)
        except RuntimeError as error:  # raised by torch on a full disk
            raise OSError(str(error).split("\n")[0]) from error
