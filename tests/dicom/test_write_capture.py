"""Secondary captures of the skeleton say whose they are, which side is which, and that they are synthetic."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from tests.dicom.test_write_ct import DESCRIPTION, complaints, headers

from scripts.dicom.write_capture import write_captures
from scripts.dicom.write_ct import write_ct_series
from scripts.report.mip import BONE_WINDOW, skeleton_pictures

SHAPE = (9, 7, 11)
PAIRS = {"DICOM": headers(), "pictures": {"frontal": Dataset(), "lateral": Dataset()}}


def with_bone_at(*index):
    hu = np.full(SHAPE, -1000.0)
    hu[index] = 2000
    return hu


def write(folder, hu, sources=None, spacing_mm=2.5):
    folder.mkdir()
    return write_captures(folder, skeleton_pictures(hu), spacing_mm, sources or headers(), DESCRIPTION)


def test_bone_at_the_right_front_top_of_the_patient_is_where_each_orientation_says(tmp_path):
    hu = with_bone_at(SHAPE[0] - 1, SHAPE[1] - 1, SHAPE[2] - 1)  # u to the right, v to anterior, w to superior
    frontal, lateral = map(pydicom.dcmread, write(tmp_path / "sc", hu))
    for image, orientation, shape in ((frontal, ["L", "F"], (11, 9)), (lateral, ["P", "F"], (11, 7))):
        assert image.PatientOrientation == orientation and image.pixel_array.shape == shape
        assert np.argwhere(image.pixel_array == 255).tolist() == [[0, 0]], "the patient's right or front, and the head"
        assert np.count_nonzero(image.pixel_array) == 1
        assert image.PixelSpacing == [2.5, 2.5]


def test_grey_grows_with_hounsfield_units_within_the_window():
    for hu, grey in ((BONE_WINDOW[0] - 5, 0), (sum(BONE_WINDOW) / 2, 128), (BONE_WINDOW[1] + 5, 255)):
        pictures = skeleton_pictures(np.full(SHAPE, hu))
        assert {view: set(np.unique(pixels)) for view, pixels in pictures.items()} == {
            "frontal": {grey},
            "lateral": {grey},
        }


def test_they_are_marked_and_belong_to_the_study_of_their_ct(tmp_path):
    (tmp_path / "ct").mkdir()
    ct = pydicom.dcmread(write_ct_series(tmp_path / "ct", with_bone_at(0), np.eye(4), headers(), DESCRIPTION)[0])
    images = [pydicom.dcmread(path) for path in write(tmp_path / "sc", with_bone_at(0))]
    for image in images:
        assert image.SyntheticData == "YES" and "NOT FOR DIAGNOSTIC USE" in image.SeriesDescription
        assert "NOT FOR DIAGNOSTIC USE" in image.ImageComments
        assert (image.StudyInstanceUID, image.PatientID) == (ct.StudyInstanceUID, ct.PatientID)
        assert image.SourceImageSequence == ct.SourceImageSequence
    assert images[0].SeriesInstanceUID == images[1].SeriesInstanceUID != ct.SeriesInstanceUID
    assert len({image.SOPInstanceUID for image in images}) == 2


def test_other_pictures_are_another_series_and_equal_ones_the_same(tmp_path):
    """A series must not hold two images of one number, so one other picture or another scale is another series."""

    def identifiers(name, hu, spacing_mm=2.5):
        images = [pydicom.dcmread(path) for path in write(tmp_path / name, hu, spacing_mm=spacing_mm)]
        return {image.SeriesInstanceUID for image in images}, [image.SOPInstanceUID for image in images]

    series, instances = identifiers("a", with_bone_at(0, 0, 0))
    assert identifiers("again", with_bone_at(0, 0, 0)) == (series, instances)
    others = {"same frontal view": with_bone_at(0, 1, 0), "same lateral view": with_bone_at(1, 0, 0)}
    for found in (*(identifiers(*item) for item in others.items()), identifiers("scale", with_bone_at(0, 0, 0), 5.0)):
        assert len(found[0]) == 1 and found[0].isdisjoint(series) and set(found[1]).isdisjoint(instances)


@pytest.mark.parametrize("sources", PAIRS)
def test_the_validators_have_nothing_to_say_about_captures(tmp_path, sources):
    for path in write(tmp_path / "sc", with_bone_at(0), PAIRS[sources]):
        assert [line for line in complaints("dciodvfy", path) if line != "SCImage"] == []
