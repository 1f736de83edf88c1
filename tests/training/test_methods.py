"""Every method through the same configurations: trained, then evaluated with the weights it left."""

import csv
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
METHODS = CONFIGS / "methods"
ICM = {"channels": [8, 16], "plane_channels": [8, 8, 16], "condition_channels": [8, 8], "stem_stride": 1}
X2CT = {"channels": 8, "dense_layers": [1, 1], "growth": 4, "bottleneck": 8, "decoder_channels": [8, 8, 8]}
SIZES = {
    "icm_reg": ICM,
    "diff2ct": {"channels": [8, 16], "condition_channels": 8},
    "x2ct_cnn": X2CT,
    "psr": {"width": 1 / 64},
    "cnn3d": {"channels": [4, 8, 8, 8, 8, 4]},
    "x_ctrsnet": {"channels": [8, 8, 16]},
    "ablation_expanded_conditioning": ICM,
}
DIRECT = ["icm_reg", "x2ct_cnn", "psr", "cnn3d", "x_ctrsnet"]
OVERLAYS = {name: ["direct", name] for name in DIRECT} | {"x2ct_gan": ["direct", "x2ct_cnn", "x2ct_gan"]}
SMALL_DISCRIMINATOR = {"discriminator#channels": 4}


def files(name: str) -> list[Path]:
    return [METHODS / f"{part}.json" for part in OVERLAYS.get(name, [name])]


def sizes(name: str) -> dict:
    of = "network_def" if name in OVERLAYS else "stage1_def"
    small = {f"{of}#{key}": value for key, value in SIZES["x2ct_cnn" if name == "x2ct_gan" else name].items()}
    return small | (SMALL_DISCRIMINATOR if name == "x2ct_gan" else {})


@pytest.fixture
def train(overlay, workflow, tmp_path):
    """Trains a method on the tiny data set; gives the run's folder."""

    def run(name: str, folder: str = "out", **overrides) -> Path:
        # The tiny sizes of DiffuX2CT come before the overlay that replaces the network, the method's own after it.
        made = workflow(*files(name), overlay(sizes(name)), output_dir=str(tmp_path / folder), **overrides)
        made.run()
        return tmp_path / folder

    return run


@pytest.fixture
def tiny_geometry(tiny, overlay) -> Path:
    """The geometry of the tiny data set, for the configurations that evaluate."""
    return overlay({"geometry": json.loads(tiny.read_text())["geometry"]})


@pytest.mark.parametrize("name", [*SIZES, "x2ct_gan"])
def test_a_method_is_trained_and_its_weights_are_evaluated(name, train, tiny_geometry, dataset_dir, overlay, tmp_path):
    weights = train(name, max_epochs=1) / "model.pt"
    bases = [CONFIGS / "inference.json", CONFIGS / "evaluate.json"]
    network = [file for file in files(name) if file.stem != "x2ct_gan"]
    own = {key: value for key, value in sizes(name).items() if key.startswith(("network_def", "stage1_def"))}
    made = ConfigWorkflow(
        [str(f) for f in [*bases, tiny_geometry, *network, overlay(own)]],
        workflow_type="inference",
        logging_file=False,
        dataset_dir=str(dataset_dir),
        split="val",
        weights=str(weights),
        output_dir=str(tmp_path / "evaluation"),
        method=name,
        device="$torch.device('cpu')",
    )
    made.initialize()
    made.run()
    rows = [row for row in csv.DictReader((tmp_path / "evaluation" / "cases.csv").open()) if row["method"] == name]
    assert len(rows) == 2 and all(math.isfinite(float(row["psnr3d_db"])) for row in rows)
    assert len(list((tmp_path / "evaluation" / "volumes").glob("*.nii.gz"))) == 2
    assert json.loads((tmp_path / "evaluation" / "summary.json").read_text())["parameters"] > 100


def test_an_adversarial_training_goes_on_where_it_stopped(train, tmp_path):
    unbroken = train("x2ct_gan", "unbroken", max_epochs=2, amp=False) / "checkpoints"
    stopped = tmp_path / "resumed" / "checkpoints"
    stopped.mkdir(parents=True)
    shutil.copy(unbroken / "checkpoint_epoch=1.pt", stopped)
    train("x2ct_gan", "resumed", max_epochs=2, amp=False)
    start, end, resumed = (
        torch.load(file, weights_only=True)
        for file in (unbroken / "checkpoint_epoch=1.pt", *(f / "checkpoint_epoch=2.pt" for f in (unbroken, stopped)))
    )
    for part in ("network", "ema", "discriminator"):
        assert all(torch.equal(value, resumed[part][name]) for name, value in end[part].items())
        assert any(not torch.equal(value, start[part][name]) for name, value in end[part].items())
