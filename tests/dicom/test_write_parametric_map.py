"""A parametric map has the standard deviation at its place, unrounded, and says which CT it belongs to."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from tests.dicom.test_write_ct import (
    AFFINES,
    DESCRIPTION,
    LPS_TO_RAS,
    assert_same_volume,
    complaints,
    headers,
    hounsfield,
)
from tests.refusal import refused

import scripts.dicom.write_parametric_map
from scripts.dicom.write_ct import write_ct_series
from scripts.dicom.write_parametric_map import write_parametric_map

hd = pytest.importorskip("highdicom", reason="highdicom is not installed")
PAIRS = {"DICOM": headers(), "pictures": {"frontal": Dataset(), "lateral": Dataset()}}


def deviation():
    return np.random.default_rng(1).uniform(0, 300, hounsfield().shape).astype(np.float32)


def write(folder, affine, sources=None, std=None):
    (folder / "ct").mkdir(parents=True)
    std = deviation() if std is None else std
    files = write_ct_series(folder / "ct", hounsfield(), affine, sources or headers(), DESCRIPTION)
    description = replace(DESCRIPTION, uncertainty="predicted error")
    return write_parametric_map(folder, std, affine, [pydicom.dcmread(path) for path in files], description)


@pytest.mark.parametrize("name", ["axes exchanged", "oblique"])
def test_every_value_is_at_its_place(tmp_path, name):
    volume = hd.imread(write(tmp_path / "map", AFFINES[name])).get_volume()
    assert_same_volume(volume.array, LPS_TO_RAS @ volume.affine, deviation(), AFFINES[name], tolerance=1e-4)


def test_it_refers_to_its_ct_in_one_frame_of_reference(tmp_path):
    (tmp_path / "ct").mkdir()
    files = write_ct_series(tmp_path / "ct", hounsfield(), AFFINES["RAS"], headers(), DESCRIPTION)
    ct, stated = [pydicom.dcmread(path) for path in files], pydicom.dcmread(write(tmp_path / "map", AFFINES["RAS"]))
    referenced = {item.ReferencedSOPInstanceUID for item in stated.SourceImageSequence}
    assert referenced == {image.SOPInstanceUID for image in ct}
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "BodyPartExamined"):
        assert stated[keyword].value == ct[0][keyword].value
    assert stated.SyntheticData == "YES" and "NOT FOR DIAGNOSTIC USE" in stated.SeriesDescription
    mapping = stated.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "[hnsf'U]"
    assert stated.DerivationDescription == f"Not a CT: predicted error, in HU, of: {ct[0].DerivationDescription}"


def test_other_values_are_another_instance_and_equal_ones_the_same(tmp_path):
    made = {"a": deviation(), "again": deviation(), "b": deviation() + 1}
    uids = [pydicom.dcmread(write(tmp_path / n, np.eye(4), std=std)).SOPInstanceUID for n, std in made.items()]
    assert uids[0] == uids[1] != uids[2]


@pytest.mark.parametrize("sources", PAIRS)
def test_the_validators_have_nothing_to_say_about_a_map(tmp_path, sources):
    path = write(tmp_path / "map", AFFINES["oblique"], PAIRS[sources])
    assert [line for line in complaints("dciodvfy", path) if line != "ParametricMap"] == []


def test_without_highdicom_the_option_is_named(monkeypatch):
    monkeypatch.setattr(scripts.dicom.write_parametric_map, "has_highdicom", False)
    with refused(ValueError, "--outputs: parametric_map", "pip install highdicom"):
        scripts.dicom.write_parametric_map.require_highdicom()
