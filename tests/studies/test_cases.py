"""Data for an evaluation: no case is skipped in silence, and the mean volume is the mean."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.refusal import refused

from scripts.geometry import BiplanarGeometry, preset
from scripts.intensity import hu_to_mu, hu_to_network
from scripts.io.case import CT_FILE, Volume, write_case
from scripts.io.nifti import read_volume, write_volume
from scripts.physics.separable import SeparableProjector
from scripts.studies.cases import mean_training_volume, readable_cases

GEOMETRY = preset("carm", (8, 8, 8), 40.0, 12)
AFFINE = GEOMETRY.volume_affine()


def random_hu(seed: int, low: int = -1000, high: int = 2500) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, GEOMETRY.volume_shape).astype(np.int16)


def write(folder: Path, hu: np.ndarray, geometry: BiplanarGeometry = GEOMETRY) -> None:
    ct = Volume(hu, AFFINE)
    image = SeparableProjector(geometry)(hu_to_mu(torch.from_numpy(hu).float())[None, None])[0].numpy()
    write_case(folder, geometry, image, ct, ct, None, {})


@pytest.fixture
def dataset(tmp_path) -> Path:
    """Three training cases and two for validation."""
    splits = {"train": ["t0", "t1", "t2"], "val": ["v0", "v1"], "test": []}
    for seed, name in enumerate(splits["train"] + splits["val"]):
        write(tmp_path / "cases" / name, random_hu(seed))
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    return tmp_path


def test_the_mean_volume_is_the_mean_of_the_clipped_training_cases(dataset):
    mean = mean_training_volume(dataset, GEOMETRY, dataset / "out" / "mean_volume.nii.gz")
    clipped = np.stack([np.clip(random_hu(seed).astype(float), -1024, 1500) for seed in range(3)]).mean(0)
    torch.testing.assert_close(mean, hu_to_network(torch.from_numpy(clipped)).float()[None], rtol=0, atol=1e-6)
    hu, affine = read_volume(dataset / "out" / "mean_volume.nii.gz")
    np.testing.assert_allclose(hu, clipped, atol=1e-3)
    np.testing.assert_array_equal(affine, AFFINE)


def test_the_mean_volume_is_read_again_when_the_cases_are_the_same(dataset):
    path = dataset / "mean_volume.nii.gz"
    first = mean_training_volume(dataset, GEOMETRY, path)
    written = path.stat().st_mtime_ns
    torch.testing.assert_close(mean_training_volume(dataset, GEOMETRY, path), first, rtol=0, atol=1e-6)
    assert path.stat().st_mtime_ns == written


def test_the_mean_volume_is_made_anew_when_a_case_changes(dataset):
    path = dataset / "mean_volume.nii.gz"
    first = mean_training_volume(dataset, GEOMETRY, path)
    write_volume(dataset / "cases" / "t1" / CT_FILE, random_hu(99), AFFINE)
    second = mean_training_volume(dataset, GEOMETRY, path)
    assert (first - second).abs().max() > 0.1
    (dataset / "splits.json").write_text(json.dumps({"train": ["t0"], "val": []}))
    alone = mean_training_volume(dataset, GEOMETRY, path)
    torch.testing.assert_close(alone[0], hu_to_network(torch.from_numpy(random_hu(0)).float()))


def test_a_mean_volume_without_training_data_says_what_to_give(dataset):
    (dataset / "splits.json").write_text(json.dumps({"train": [], "val": ["v0"]}))
    with refused(ValueError, "mean training volume", "splits.json", "'train'", "--training_dir"):
        mean_training_volume(dataset, GEOMETRY, dataset / "mean_volume.nii.gz")
    assert not list(dataset.glob("mean_volume*"))


def test_all_cases_of_a_split_come_in_its_order(dataset):
    cases = readable_cases(dataset, "val", GEOMETRY)
    assert [case["name"] for case in cases] == ["v0", "v1"] and cases.failures == {}


def test_a_bad_case_is_named_and_costs_no_other(dataset):
    (dataset / "cases" / "v0" / CT_FILE).write_bytes(b"not a NIfTI file")
    cases = readable_cases(dataset, "val", GEOMETRY)
    assert [case["name"] for case in cases] == ["v1"]
    assert list(cases.failures) == ["v0"] and "ct.nii.gz: not a readable NIfTI file" in cases.failures["v0"]


def test_a_case_that_is_listed_and_absent_is_a_failure(dataset):
    (dataset / "splits.json").write_text(json.dumps({"val": ["v0", "gone"]}))
    assert "gone: no such case folder" in readable_cases(dataset, "val", GEOMETRY).failures["gone"]


def test_cases_of_another_geometry_are_refused(dataset):
    with refused(ValueError, "2 cases", "'val'", "differs"):
        readable_cases(dataset, "val", preset("x2ct", (8, 8, 8), 40.0, 12))
