"""Pictures of validation cases, for TensorBoard and MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from monai.handlers import MLFlowHandler, TensorBoardHandler
from torch import Tensor, nn

from scripts.intensity import hu_to_mu, hu_to_network, network_to_hu

BONE_HU = 100.0
"""HU that is black in the projections of the skeleton."""


class Previews(TensorBoardHandler):
    """Handler that draws the first validation cases: planes and skeleton of the reconstruction above the truth's.

    With a projector, a second picture shows the measured radiographs above those of the reconstruction. The pictures
    go to TensorBoard, and to MLflow if ``--tracking`` has attached its handler to the same engine.

    Args:
        log_dir: TensorBoard's folder.
        cases: number of batches; the first case of each is drawn.
        projector: maps attenuation ``[B, 1, U, V, W]`` in 1/mm to line integrals ``[B, 2, N, N]``; None for no second
            picture.
    """

    def __init__(self, log_dir: str | Path, cases: int = 3, projector: nn.Module | None = None) -> None:
        super().__init__(log_dir=str(log_dir))
        self.cases, self.projector = cases, projector

    def attach(self, engine: Engine) -> None:
        """Draw after the first iterations of every run of the validator ``engine``."""
        first = Events.ITERATION_COMPLETED(event_filter=lambda _, iteration: iteration <= self.cases)
        engine.add_event_handler(first, self)

    def __call__(self, engine: Evaluator) -> None:
        """Draw the first case of the batch that ``engine`` has just validated."""
        case, output = engine.state.batch[0], engine.state.output[0]
        volumes = [output[key][0] for key in ("pred", "label")]
        rows = [torch.cat([central_planes(v), skeleton(v)], dim=1) for v in volumes]
        self._draw(engine, case["name"], torch.cat(rows))
        if self.projector is not None:
            mu = hu_to_mu(network_to_hu(volumes[0].clamp(-1, 1)))[None, None]
            measured = case["line_integrals"].to(mu.device)
            films = torch.cat([torch.cat(list(both.mT), dim=1) for both in (measured, self.projector(mu)[0])])
            self._draw(engine, f"{case['name']}/radiographs", 2 * films / measured.max() - 1)
        self._writer.flush()

    def _draw(self, engine: Evaluator, name: str, shown: Tensor) -> None:
        """Draw ``shown [rows, columns]``, black at -1 and white at 1."""
        picture = ((shown.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
        self._writer.add_image(f"val/{name}", picture, engine.state.epoch, dataformats="HW")
        for tracker in mlflow_handlers(engine):
            run: Any = tracker.cur_run  # declared as None by MONAI, but set once the engine has started
            file = f"previews/{name}/epoch_{engine.state.epoch:05d}.png"
            tracker.client.log_image(run.info.run_id, picture, artifact_file=file)


def central_planes(volume: Tensor) -> Tensor:
    """Return the axial, coronal and sagittal central planes of ``volume [U, V, W]`` as a picture ``[rows, columns]``.

    Superior (axial: anterior) is up; the patient's right (sagittal: anterior) is on the left. Planes with fewer rows
    are padded below with -1, the network's air.
    """
    u, v, w = (n // 2 for n in volume.shape)
    return _beside([volume[:, :, w], volume[:, v], volume[u]])


def skeleton(volume: Tensor) -> Tensor:
    """Return the frontal and the lateral maximum-intensity projection, oriented and padded like the planes.

    They run from black at :data:`BONE_HU` to white at the upper end of the network's range.
    """
    floor = hu_to_network(volume.new_tensor(BONE_HU))
    bone = 2 * (volume.clamp(min=floor) - floor) / (1 - floor) - 1
    shown = _beside([bone.amax(dim=1), bone.amax(dim=0)])
    return F.pad(shown, (0, 0, 0, max(volume.shape[1:]) - len(shown)), value=-1.0)


def _beside(planes: list[Tensor]) -> Tensor:
    turned = [plane.flip((0, 1)).T for plane in planes]
    rows = max(len(plane) for plane in turned)
    return torch.cat([F.pad(plane, (0, 0, 0, rows - len(plane)), value=-1.0) for plane in turned], dim=1)


def mlflow_handlers(engine: Engine) -> list[MLFlowHandler]:
    """Return the MLflow handlers attached to ``engine``, which MONAI adds itself, so no configuration names them."""
    methods = (handler for handler, *_ in engine._event_handlers[Events.STARTED])
    return [m.__self__ for m in methods if isinstance(getattr(m, "__self__", None), MLFlowHandler)]
