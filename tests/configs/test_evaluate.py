"""``evaluate.json`` through the real command line, with a tiny network on phantoms."""

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from scripts.geometry import preset
from scripts.intensity import hu_to_mu
from scripts.io.case import Volume, write_case
from scripts.io.errors import stated_cause
from scripts.io.nifti import read_volume
from scripts.phantom.torso import torso
from scripts.physics.separable import SeparableProjector

BUNDLE = Path(__file__).parents[2] / "bundle"
CONFIGS = [str(BUNDLE / "configs" / name) for name in ("inference.json", "evaluate.json")]
GEOMETRY = preset("carm", (16, 16, 16), 25.0, 32)
SPLITS = {"train": ["t0", "t1"], "val": ["v0"], "test": ["x0", "x1"]}
TINY = {
    "geometry": {"_target_": "scripts.geometry.BiplanarGeometry", **json.loads(GEOMETRY.to_json())},
    "stage1_def#channels": [8, 16],
    "stage1_def#plane_channels": [8, 8, 16],
    "stage1_def#condition_channels": [8, 8],
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder, projector = tmp_path_factory.mktemp("data"), SeparableProjector(GEOMETRY)
    for seed, name in enumerate(sum(SPLITS.values(), [])):
        hu = torso(seed, GEOMETRY.volume_shape, GEOMETRY.volume_spacing_mm).hu
        ct = Volume(hu.round().numpy().astype(np.int16), GEOMETRY.volume_affine())
        image = projector(hu_to_mu(hu)[None, None])[0].numpy()
        write_case(folder / "cases" / name, GEOMETRY, image, ct, ct, None, {})
    (folder / "splits.json").write_text(json.dumps(SPLITS))
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> dict[str, str]:
    """Overrides for a tiny network: its configuration and its random weights."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.json").write_text(json.dumps(TINY))
    parser = ConfigParser(ConfigParser.load_config_files([*CONFIGS, folder / "tiny.json"]))
    torch.save(parser.get_parsed_content("network_def").state_dict(), folder / "model.pt")
    return {"config": str(folder / "tiny.json"), "weights": str(folder / "model.pt")}


def workflow(tiny, **overrides) -> ConfigWorkflow:
    options = {"weights": tiny["weights"], "device": "$torch.device('cpu')"} | overrides
    return ConfigWorkflow([*CONFIGS, tiny["config"]], workflow_type="inference", logging_file=False, **options)


@pytest.fixture(autouse=True)
def excepthook(monkeypatch):
    """The run replaces it."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


def read_cases(folder):
    return list(csv.DictReader((folder / "cases.csv").open()))


def test_the_workflow_has_all_properties(dataset, tiny):
    evaluation = workflow(tiny, dataset_dir=str(dataset), split="val")
    evaluation.initialize()
    assert evaluation.check_properties() == []
    assert [case["name"] for case in evaluation.dataset] == ["v0"]


def test_the_command_evaluates_a_split_beside_the_mean_volume(tmp_path, dataset, tiny, monai_bundle):
    options = {"weights": tiny["weights"], "steps": 2, "device": "$torch.device('cpu')", "samples": 2}
    options |= {"dataset_dir": dataset, "output_dir": tmp_path / "out"}
    done = monai_bundle("run", tmp_path, config_file=[*CONFIGS, tiny["config"]], **options)
    assert done.wait() == 0, done.output
    assert "| metric | diffux2ct_correcting | diffux2ct_correcting, mean of 2 samples | mean_volume |" in done.output
    assert "evaluate: [2/2] 100%" in done.output
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "cases.csv", "mean_volume.json", "mean_volume.nii.gz", "summary.csv", "summary.json", "summary.md", "volumes",
    ]  # fmt: skip
    for name in SPLITS["test"]:
        volume, affine = read_volume(tmp_path / "out" / "volumes" / f"{name}.nii.gz")
        assert -1024 <= volume.min() <= volume.max() <= 1500
        np.testing.assert_allclose(affine, GEOMETRY.volume_affine(), atol=1e-4)
    rows = read_cases(tmp_path / "out")
    assert [(row["case"], row["method"]) for row in rows] == [
        (name, method)
        for name in SPLITS["test"]
        for method in ("diffux2ct_correcting", "diffux2ct_correcting", "mean_volume")
    ]
    single, baseline = float(rows[0]["psnr3d_db"]), float(rows[2]["psnr3d_db"])
    assert 0 < single < baseline < 40  # an untrained network is worse than a body in the right place
    assert rows[0]["lpips_u"] == "" and "| fid_u | – | – | – |" in done.output  # no backbone: not measured
    record = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert record["parameters"] > 1000 and "fid_backbone_sha256" not in record
    assert record["split"] == "test" and record["seed"] == 0 and len(record["weights_sha256"]) == 64


def test_one_view_is_evaluated_as_such_and_the_tables_say_so(tmp_path, dataset, tiny):
    for name, views in (("both", "frontal,lateral"), ("frontal", "frontal")):
        folders = {"dataset_dir": str(dataset), "output_dir": str(tmp_path / name)}
        evaluation = workflow(tiny, **folders, views=views, one_view=True, steps=2)
        evaluation.initialize()
        evaluation.run()
        assert json.loads((tmp_path / name / "summary.json").read_text())["views"] == views.split(",")
    for both, one in zip(read_cases(tmp_path / "both"), read_cases(tmp_path / "frontal"), strict=True):
        assert one["reprojection_lateral"] == "" and one["reprojection"] == one["reprojection_frontal"]
        if both["method"] == "mean_volume":
            assert one["reprojection_frontal"] == both["reprojection_frontal"] != both["reprojection"]


def test_a_bad_case_fails_the_run_and_costs_no_other(tmp_path, dataset, tiny):
    (tmp_path / "cases").symlink_to(dataset / "cases")
    (tmp_path / "splits.json").write_text(json.dumps(SPLITS | {"test": ["x0", "gone", "x1"]}))
    output_dir = tmp_path / "out"
    evaluation = workflow(tiny, dataset_dir=str(tmp_path), output_dir=str(output_dir), steps=2, baselines={})
    evaluation.initialize()
    with pytest.raises(RuntimeError) as caught:
        evaluation.run()
    assert re.match("1 of 3 cases failed:\n.*gone: no such case folder", str(stated_cause(caught.value)))
    assert [row["case"] for row in read_cases(output_dir)] == ["x0", "x1"]


@pytest.mark.parametrize("overrides, message", [
    ({"split": "vla"}, "choose one of train, val, test with --split, got 'vla'"),
    ({"weights": "/nowhere/model.pt"}, "/nowhere/model.pt: no weights"),
    ({"dataset_dir": "/nowhere"}, "/nowhere/splits.json: not found; /nowhere must be the output folder"),
    ({"views": "frontal"}, "--views: this network was trained with both views"),
    ({"geometry#source_to_isocentre_mm": 700.0}, "differs from the network's"),
])  # fmt: skip
def test_bad_input_is_refused_before_anything_is_written(tmp_path, dataset, tiny, overrides, message):
    evaluation = workflow(tiny, **{"dataset_dir": str(dataset), "output_dir": str(tmp_path / "out")} | overrides)
    evaluation.initialize()
    with pytest.raises(Exception) as caught:
        evaluation.run()
    cause = caught.value
    while cause.__cause__ is not None:
        cause = cause.__cause__
    assert isinstance(cause, ValueError) and message in str(cause)
    assert not (tmp_path / "out").exists()
