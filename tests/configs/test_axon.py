"""AXON by its overlays, tiny and on phantoms: stages trained upon each other, evaluated, from one view too."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from scripts.geometry import preset
from scripts.intensity import hu_to_mu
from scripts.io.case import Volume, write_case
from scripts.io.nifti import read_volume
from scripts.phantom.torso import torso
from scripts.physics.separable import SeparableProjector

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
COARSE = preset("carm", (16, 16, 16), 25.0, 32)
FINE = COARSE.with_volume((32, 32, 32), 12.5)
SPLITS = {"train": ["t0", "t1"], "val": ["v0"], "test": ["x0"]}
STAGES = ("axon_bridge", "axon_control", "axon_super_resolution")
TINY = {
    "stage1_def#channels": [8, 16],
    "stage1_def#condition_channels": [8, 8],
    "max_epochs": 1,
    "iterations_per_epoch": 2,
    "val_interval": 1,
    "device": "$torch.device('cpu')",
}


def prepare(folder: Path, geometry) -> Path:
    projector = SeparableProjector(geometry)
    for seed, name in enumerate(sum(SPLITS.values(), [])):
        hu = torso(seed, geometry.volume_shape, geometry.volume_spacing_mm).hu
        ct = Volume(hu.round().numpy().astype(np.int16), geometry.volume_affine())
        write_case(folder / "cases" / name, geometry, projector(hu_to_mu(hu)[None, None])[0].numpy(), ct, ct, None, {})
    (folder / "splits.json").write_text(json.dumps(SPLITS))
    return folder


class Axon:
    """Runs a workflow with the overlays of some stages, on the grid that the last of them draws."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = {grid: prepare(folder / f"{grid.volume_shape[0]}", grid) for grid in (COARSE, FINE)}
        for grid in (COARSE, FINE):
            geometry = {"_target_": "scripts.geometry.BiplanarGeometry", **json.loads(grid.to_json())}
            self.overlay(grid).write_text(json.dumps({"geometry": geometry, **TINY}))

    def overlay(self, grid) -> Path:
        return self.folder / f"{grid.volume_shape[0]}.json"

    def files(self, bases: tuple[str, ...], stages: int, *last: str) -> list[str]:
        grid = FINE if stages == 3 else COARSE
        named = [*bases, *(f"methods/{name}" for name in (*STAGES[:stages], *last))]
        return [*(str(CONFIGS / f"{name}.json") for name in named), str(self.overlay(grid))]

    def dataset(self, stages: int) -> str:
        return str(self.data[FINE if stages == 3 else COARSE])

    def weights(self, stages: int) -> str:
        return str(self.folder / f"stage{stages}" / "model.pt")

    def train(self, stages: int, **options) -> ConfigWorkflow:
        folders = {"dataset_dir": self.dataset(stages), "output_dir": str(self.folder / f"stage{stages}")}
        training = ConfigWorkflow(self.files(("train",), stages), workflow_type="train", **(folders | options))
        training.initialize()
        assert training.check_properties() == []
        training.run()
        return training


@pytest.fixture(scope="module")
def axon(tmp_path_factory) -> Axon:
    """All three stages, trained for two iterations each."""
    hook, state = sys.excepthook, torch.random.get_rng_state()
    trained = Axon(tmp_path_factory.mktemp("axon"))
    trained.train(1)
    for stages in (2, 3):
        trained.train(stages, **{f"stage{stages - 1}_weights": trained.weights(stages - 1)})
    sys.excepthook = hook
    torch.random.set_rng_state(state)
    return trained


@pytest.fixture(autouse=True)
def excepthook(monkeypatch):
    """A run replaces it."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


def test_each_stage_holds_the_weights_of_the_one_before_unchanged(axon):
    first, second, third = (torch.load(axon.weights(stages), weights_only=True) for stages in (1, 2, 3))
    for inner, outer, prefix in ((first, second, "conditioner.base."), (second, third, "base.")):
        held = {name.removeprefix(prefix): value for name, value in outer.items() if name.startswith(prefix)}
        assert held.keys() == inner.keys() and all(torch.equal(held[name], inner[name]) for name in held)
        assert any(value.any() for name, value in outer.items() if "outputs" in name or "upsampler.head" in name)


def test_a_stage_is_not_trained_without_the_one_before(axon, tmp_path):
    for stages in (2, 3):
        with pytest.raises(RuntimeError) as error:
            axon.train(stages, output_dir=str(tmp_path))
        assert isinstance(error.value.__cause__, ValueError)
        assert f"stage{stages - 1}_weights" in str(error.value.__cause__)


def test_the_cascade_is_evaluated_stage_by_stage(axon, tmp_path):
    files = axon.files(("inference", "evaluate"), 3, "axon_stages")
    options = {"dataset_dir": axon.dataset(3), "weights": axon.weights(3), "output_dir": str(tmp_path), "tile": 9}
    evaluation = ConfigWorkflow(files, workflow_type="inference", **options)
    evaluation.initialize()
    evaluation.run()
    rows = list(csv.DictReader((tmp_path / "cases.csv").open()))
    assert [row["method"] for row in rows] == ["axon", "mean_volume", "stage_1_trilinear", "stages_1_and_2_trilinear"]
    assert read_volume(tmp_path / "volumes" / "x0.nii.gz")[0].shape == FINE.volume_shape


@pytest.mark.parametrize("view", ["frontal", "lateral"])
def test_one_view_is_reconstructed_with_the_same_weights_and_a_warning(axon, view, tmp_path):
    files = axon.files(("inference",), 3)
    options = {"input": f"{axon.dataset(3)}/cases/x0", "weights": axon.weights(3), "output_dir": str(tmp_path)}
    reconstruction = ConfigWorkflow(
        files, workflow_type="inference", **options, views=view, reference="", outputs="nifti"
    )
    reconstruction.initialize()
    assert reconstruction.check_properties() == []
    reconstruction.run()
    record = json.loads((tmp_path / "x0" / "result.json").read_text())
    assert list(record["reprojection_error"]) == [view]
    assert any(view in warning and "alone" in warning for warning in record["warnings"])
    assert read_volume(tmp_path / "x0" / "ct.nii.gz")[0].shape == FINE.volume_shape
