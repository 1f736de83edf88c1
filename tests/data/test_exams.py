"""Finding, checking and reading exams to reconstruct."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.data.exams import LoadExamd, ToHounsfieldd, find_exams, readable_exams
from scripts.geometry import read_geometry
from scripts.intensity import RADIOGRAPH_SCALE, hu_to_network
from scripts.io.case import read_case

DEMO = Path(__file__).parents[2] / "bundle" / "docs" / "demo"
GEOMETRY = read_geometry(DEMO / "geometry.json")


@pytest.fixture
def cases(tmp_path):
    for name in ("b", "a", ".hidden"):
        shutil.copytree(DEMO, tmp_path / "cases" / name)
    return tmp_path / "cases"


def test_a_case_folder_is_one_exam_and_a_folder_of_cases_is_many_in_order(cases):
    assert find_exams(cases / "a") == [{"image": str(cases / "a")}]
    assert [Path(item["image"]).name for item in find_exams(cases)] == ["a", "b"]


def test_a_folder_with_one_view_is_a_case_with_a_missing_view_not_a_folder_of_cases(cases):
    (cases / "a" / "lateral.nii.gz").unlink()
    with pytest.raises(ValueError, match="lateral view is missing"):
        readable_exams(find_exams(cases / "a"), LoadExamd("image", GEOMETRY))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing to reconstruct"),
        ({"input": "x", "frontal": "y"}, "not both"),
        ({"lateral": "y"}, "missing --frontal and --geometry_file"),
        ({"input": "absent"}, "no such folder"),
    ],
)
def test_half_an_exam_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        find_exams(**arguments)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no case"):
        find_exams(tmp_path)


def test_loading_scales_by_the_fixed_constant_and_carries_name_affine_and_digests():
    image = LoadExamd("image", GEOMETRY)({"image": str(DEMO)})["image"]
    torch.testing.assert_close(image.as_tensor(), read_case(DEMO).image * RADIOGRAPH_SCALE)
    assert image.meta["name"] == "demo"
    np.testing.assert_array_equal(image.meta["volume_affine"], GEOMETRY.volume_affine())
    assert {Path(p).name for p in image.meta["files"]} == {"frontal.nii.gz", "lateral.nii.gz", "geometry.json"}


def test_another_geometry_is_refused(cases):
    values = json.loads((cases / "a" / "geometry.json").read_text())
    (cases / "a" / "geometry.json").write_text(json.dumps({**values, "frontal_source": "posterior"}))
    with pytest.raises(ValueError, match="a: taken with .*posterior.* trained for .*anterior"):
        LoadExamd("image", GEOMETRY)({"image": str(cases / "a")})


def test_broken_exams_are_set_aside_and_reported_at_the_end(cases):
    (cases / "b" / "geometry.json").unlink()
    exams = readable_exams(find_exams(cases), LoadExamd("image", GEOMETRY))
    assert [Path(item["image"]).name for item in exams] == ["a"]
    with pytest.raises(SystemExit, match="1 of 2 exams were skipped"):
        exams.finish()


def test_all_broken_is_an_error_at_once(cases):
    for name in "ab":
        (cases / name / "geometry.json").unlink()
    with pytest.raises(ValueError, match="no exam can be reconstructed"):
        readable_exams(find_exams(cases), LoadExamd("image", GEOMETRY))


def test_predictions_become_hu_on_the_exams_grid():
    image = LoadExamd("image", GEOMETRY)({"image": str(DEMO)})["image"]
    hu = torch.tensor([[[[-1000.0, 0.0, 1200.0]]]])
    pred = ToHounsfieldd()({"image": image, "pred": hu_to_network(hu)})["pred"]
    assert isinstance(pred, MetaTensor)
    torch.testing.assert_close(pred.as_tensor(), hu, atol=1e-3, rtol=0)
    np.testing.assert_array_equal(pred.affine.numpy(), GEOMETRY.volume_affine())
