import numpy as np
import pytest
from tests.refusal import refused

from scripts.geometry import VIEWS, preset
from scripts.io.case import Volume, read_case, read_exam, read_record, write_case
from scripts.io.nifti import write_image, write_volume

GEOMETRY = preset("carm", (8, 8, 8), 10.0, 6)


def image(seed=0):
    return np.random.default_rng(seed).uniform(0, 8, (2, 6, 6)).astype(np.float32)


def volume():
    affine = GEOMETRY.volume_affine()
    affine[:3, 3] += [10, 20, 30]
    return Volume(np.arange(512, dtype=np.int16).reshape(8, 8, 8), affine)


@pytest.fixture
def folder(tmp_path):
    write_case(tmp_path / "case", GEOMETRY, image(), volume(), volume(), None, {"source": "test"})
    return tmp_path / "case"


def test_a_case_survives_writing_and_reading(folder):
    case = read_case(folder)
    assert case.name == "case" and case.geometry == GEOMETRY
    np.testing.assert_array_equal(case.line_integrals, image())
    np.testing.assert_array_equal(case.ct[0], volume().voxels)
    np.testing.assert_allclose(case.affine, volume().affine)
    assert read_record(folder) == {"source": "test"}


def test_an_exam_without_ct_lies_around_its_isocentre(folder):
    (folder / "ct.nii.gz").unlink()
    case = read_case(folder)
    assert case.ct is None
    np.testing.assert_array_equal(case.affine, GEOMETRY.volume_affine())


def test_an_exam_is_the_same_wherever_its_files_are(folder, tmp_path):
    moved = [(folder / name).rename(tmp_path / f"moved_{name}") for name in ("frontal.nii.gz", "lateral.nii.gz")]
    exam = read_exam(dict(zip(VIEWS, moved, strict=True)), folder / "geometry.json")
    np.testing.assert_array_equal(exam.line_integrals, image())
    assert exam.geometry == GEOMETRY and exam.ct is None


@pytest.mark.parametrize("view", ["frontal", "lateral"])
def test_a_missing_view_is_named(folder, view):
    (folder / f"{view}.nii.gz").unlink()
    with refused(ValueError, f"{view} view", "missing"):
        read_case(folder)


def test_a_missing_geometry_is_never_guessed(folder):
    (folder / "geometry.json").unlink()
    with pytest.raises(ValueError, match="geometry.json.*never guessed"):
        read_case(folder)


def test_two_identical_views_are_refused(folder):
    write_image(folder / "lateral.nii.gz", image()[0], GEOMETRY.detector_spacing_mm)
    with refused(ValueError, "lateral.nii.gz", "frontal.nii.gz", "identical", "orthogonal"):
        read_case(folder)


@pytest.mark.parametrize(
    ("pixels", "pitch_mm", "message"),
    [
        (image()[1, :5, :5], GEOMETRY.detector_spacing_mm, "5 x 5 .*geometry.json .*detector_pixels = 6"),
        (image()[1], 1.0, "1 mm, .*geometry.json .*detector_spacing_mm"),
        (np.ones((6, 6)), GEOMETRY.detector_spacing_mm, "every pixel is 1.0"),
        (image()[1] * np.nan, GEOMETRY.detector_spacing_mm, "36 pixels are NaN"),
    ],
)
def test_an_image_that_contradicts_the_case_is_refused_by_name(folder, pixels, pitch_mm, message):
    write_image(folder / "lateral.nii.gz", pixels, pitch_mm)
    with pytest.raises(ValueError, match=message) as refusal:
        read_case(folder)
    assert "lateral.nii.gz" in str(refusal.value)


def test_an_unreadable_image_or_record_is_refused_by_name(folder):
    (folder / "frontal.nii.gz").write_bytes(b"damaged")
    (folder / "record.json").write_text("{")
    with refused(ValueError, "frontal.nii.gz", "NIfTI"):
        read_case(folder)
    with refused(ValueError, "record.json", "unreadable", "prepare"):
        read_record(folder)


@pytest.mark.parametrize(
    ("voxels", "flip", "message"),
    [
        (volume().voxels[:7], 1, r"\(7, 8, 8\), .*geometry.json .*volume_shape = \(8, 8, 8\)"),
        (volume().voxels, -1, "RAS\\+ .*volume_spacing_mm = 10.0"),
    ],
)
def test_a_ct_on_another_grid_than_the_geometry_is_refused(folder, voxels, flip, message):
    write_volume(folder / "ct.nii.gz", voxels, volume().affine @ np.diag([flip, 1, 1, 1]))
    with pytest.raises(ValueError, match=message):
        read_case(folder)


def test_a_case_that_cannot_be_written_whole_does_not_appear(tmp_path):
    with pytest.raises(TypeError):
        write_case(tmp_path / "case", GEOMETRY, image(), volume(), volume(), None, {"source": object()})
    assert list(tmp_path.iterdir()) == []
