"""Pictures show a patient as a radiologist looks at one, and reach TensorBoard and MLflow."""

import io

import mlflow
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.handlers import MLFlowHandler
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scripts.training.previews import Previews, central_planes, mlflow_handlers, skeleton


def marked(u: int, v: int, w: int) -> torch.Tensor:
    """A volume of air with one bright voxel."""
    volume = torch.full((9, 9, 9), -1.0)
    volume[u, v, w] = 1.0
    return volume


def bright(volume: torch.Tensor) -> list[tuple[int, int, int]]:
    """(plane, row, column) of the bright pixels; planes 0, 1, 2 are axial, coronal, sagittal."""
    return [(c // 9, r, c % 9) for r, c in (central_planes(volume) > 0).nonzero().tolist()]


def test_axial_plane_has_anterior_up_and_the_patients_right_on_the_left():
    assert bright(marked(8, 3, 4)) == [(0, 5, 0)]
    assert bright(marked(2, 8, 4)) == [(0, 0, 6)]


def test_coronal_plane_has_superior_up_and_the_patients_right_on_the_left():
    assert bright(marked(8, 4, 7)) == [(1, 1, 0)]


def test_sagittal_plane_has_superior_up_and_anterior_on_the_left():
    assert bright(marked(4, 8, 7)) == [(2, 1, 0)]


def test_centre_is_in_all_three_planes():
    assert bright(marked(4, 4, 4)) == [(0, 4, 4), (1, 4, 4), (2, 4, 4)]


def test_planes_of_a_flat_volume_are_padded_with_air():
    picture = central_planes(torch.ones(8, 6, 4))
    assert picture.shape == (6, 8 + 8 + 6)  # V rows in the axial plane, W in the others
    assert (picture[:, :8] == 1).all() and (picture[:4] == 1).all() and (picture[4:, 8:] == -1).all()


def validate(previews: Previews, cases: int, epoch: int, *handlers) -> None:
    """Run an engine over ``cases`` batches of one case each, whose prediction is half as bright as the truth."""

    def step(engine, index):
        engine.state.batch = [{"name": f"case{index}", "line_integrals": torch.ones(2, 6, 6)}]
        return [{"pred": torch.zeros(1, 4, 4, 4), "label": torch.ones(1, 4, 4, 4)}]

    engine = Engine(step)
    for handler in (previews, *handlers):
        handler.attach(engine)
    engine.state.max_epochs = epoch
    engine.state.epoch, engine.state.epoch_length = epoch - 1, cases
    engine.run(range(cases))


def written(folder) -> dict[str, list[int]]:
    """TensorBoard's pictures: ``{tag: steps}``."""
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    return {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]}


def test_tensorboard_gets_the_first_cases_at_the_epoch(tmp_path):
    previews = Previews(tmp_path, cases=2)
    validate(previews, 3, 5)
    validate(previews, 3, 10)
    assert written(tmp_path) == {"val/case0": [5, 10], "val/case1": [5, 10]}


def test_fewer_cases_than_asked_for_are_all_drawn(tmp_path):
    validate(Previews(tmp_path, cases=5), 2, 1)
    assert written(tmp_path) == {"val/case0": [1], "val/case1": [1]}


def test_mlflow_gets_the_prediction_above_the_truth_if_it_is_tracking(tmp_path, mlflow_database):
    uri = mlflow_database(tmp_path)
    tracker = MLFlowHandler(uri, iteration_log=False, close_on_complete=True)
    validate(Previews(tmp_path, cases=1), 3, 7, tracker)
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs(tracker.experiment.experiment_id)
    file = client.download_artifacts(run.info.run_id, "previews/case0/epoch_00007.png", str(tmp_path))
    picture = np.asarray(Image.open(file))
    assert picture.shape[:2] == (8, 20)
    assert set(picture[:4, :12].ravel()) == {128} and set(picture[4:].ravel()) == {255}


def test_the_skeleton_is_seen_from_the_front_and_from_the_side():
    volume = torch.full((9, 9, 9), -0.2)  # soft tissue
    volume[8, 3, 7] = 1.0
    shown = skeleton(volume)
    assert [(r, c) for r, c in (shown > 0).nonzero().tolist()] == [(1, 0), (1, 9 + 5)]
    assert (shown == -1).sum() == 2 * 81 - 2


def test_radiographs_are_drawn_above_their_re_projection(tmp_path):
    class Half(torch.nn.Module):
        def forward(self, mu):
            return 0.5 * torch.ones(len(mu), 2, 6, 6)

    validate(Previews(tmp_path, cases=1, projector=Half()), 1, 1)
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    (event,) = events.Images("val/case0/radiographs")
    picture = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
    assert picture.shape[:2] == (12, 12) and set(picture[:6].ravel()) == {255} and set(picture[6:].ravel()) == {128}


def test_only_mlflow_handlers_of_the_same_engine_are_found(tmp_path, mlflow_database):
    tracker = MLFlowHandler(mlflow_database(tmp_path))
    engine, other = Engine(lambda *_: None), Engine(lambda *_: None)
    engine.add_event_handler(Events.STARTED, lambda: None)
    tracker.attach(engine)
    assert mlflow_handlers(engine) == [tracker] and mlflow_handlers(other) == []
