"""Pictures of validation cases, for TensorBoard and MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from monai.handlers import MLFlowHandler, TensorBoardHandler
from torch import Tensor


class Previews(TensorBoardHandler):
    """Handler that draws the first validation cases: the reconstruction's three central planes above the truth's.

    The pictures go to TensorBoard, and to MLflow if ``--tracking`` has attached its handler to the same engine.

    Args:
        log_dir: TensorBoard's folder.
        cases: number of batches; the first case of each is drawn.
    """

    def __init__(self, log_dir: str | Path, cases: int = 3) -> None:
        super().__init__(log_dir=str(log_dir))
        self.cases = cases

    def attach(self, engine: Engine) -> None:
        """Draw after the first iterations of every run of the validator ``engine``."""
        first = Events.ITERATION_COMPLETED(event_filter=lambda _, iteration: iteration <= self.cases)
        engine.add_event_handler(first, self)

    def __call__(self, engine: Evaluator) -> None:
        """Draw the first case of the batch that ``engine`` has just validated."""
        name, output, epoch = engine.state.batch[0]["name"], engine.state.output[0], engine.state.epoch
        shown = torch.cat([central_planes(output[key][0]) for key in ("pred", "label")])
        picture = ((shown.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
        self._writer.add_image(f"val/{name}", picture, epoch, dataformats="HW")
        self._writer.flush()
        for tracker in mlflow_handlers(engine):
            run: Any = tracker.cur_run  # declared as None by MONAI, but set once the engine has started
            file = f"previews/{name}/epoch_{epoch:05d}.png"
            tracker.client.log_image(run.info.run_id, picture, artifact_file=file)


def central_planes(volume: Tensor) -> Tensor:
    """Return the axial, coronal and sagittal central planes of ``volume [U, V, W]`` as a picture ``[rows, columns]``.

    Superior (axial: anterior) is up; the patient's right (sagittal: anterior) is on the left. Planes with fewer rows
    are padded below with -1, the network's air.
    """
    u, v, w = (n // 2 for n in volume.shape)
    planes = [plane.flip((0, 1)).T for plane in (volume[:, :, w], volume[:, v], volume[u])]
    rows = max(len(plane) for plane in planes)
    return torch.cat([F.pad(plane, (0, 0, 0, rows - len(plane)), value=-1.0) for plane in planes], dim=1)


def mlflow_handlers(engine: Engine) -> list[MLFlowHandler]:
    """Return the MLflow handlers attached to ``engine``, which MONAI adds itself, so no configuration names them."""
    methods = (handler for handler, *_ in engine._event_handlers[Events.STARTED])
    return [m.__self__ for m in methods if isinstance(getattr(m, "__self__", None), MLFlowHandler)]
