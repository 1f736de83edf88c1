import nibabel as nib
import numpy as np
import pytest
from tests.refusal import refused

from scripts.io.nifti import read_volume, write_image, write_volume
from scripts.io.nifti_radiograph import read_image


def radiograph():
    return np.linspace(0, 8, 36, dtype=np.float32).reshape(6, 6)


def test_a_radiograph_survives_writing_and_reading(tmp_path):
    write_image(tmp_path / "x.nii.gz", radiograph(), 4.8)
    pixels, pitch_mm = read_image(tmp_path / "x.nii.gz")
    np.testing.assert_array_equal(pixels, radiograph())
    assert pitch_mm == pytest.approx(4.8)


def test_a_volume_survives_writing_and_reading(tmp_path):
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    affine = np.diag([2, 2, 2, 1.0]) + np.eye(4, k=3) * 5
    write_volume(tmp_path / "x.nii.gz", voxels, affine)
    read, read_affine = read_volume(tmp_path / "x.nii.gz")
    np.testing.assert_array_equal(read, voxels)
    np.testing.assert_allclose(read_affine, affine)
    assert nib.load(tmp_path / "x.nii.gz").get_data_dtype() == np.int16


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    write_image(tmp_path / "x.nii.gz", radiograph(), 1.0)
    before = (tmp_path / "x.nii.gz").read_bytes()

    def fail(image, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(nib, "save", fail)
    with refused(ValueError, "x.nii.gz", "cannot be written", "disk full", "make room"):
        write_image(tmp_path / "x.nii.gz", radiograph() + 1, 1.0)
    assert [p.name for p in tmp_path.iterdir()] == ["x.nii.gz"]
    assert (tmp_path / "x.nii.gz").read_bytes() == before


def test_a_trailing_axis_of_one_is_no_third_dimension(tmp_path):
    nib.save(nib.Nifti1Image(radiograph()[..., None], np.eye(4)), tmp_path / "x.nii")
    assert read_image(tmp_path / "x.nii")[0].shape == (6, 6)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (radiograph()[:4], r"square 2D image, got shape \(4, 6\)"),
        (np.stack([radiograph()] * 2, -1), r"square 2D image, got shape \(6, 6, 2\)"),
        (np.full((6, 6), 3.0), "every pixel is 3.0"),
        (radiograph() * np.where(np.eye(6), np.nan, 1), "6 pixels are NaN"),
        (radiograph() - 4, r"line integrals within \[-0.5, 100.0\], got \[-4, 4\]; convert"),
        (radiograph() * 500, r"got \[0, 4000\]; convert detector counts"),
    ],
)
def test_what_is_no_image_of_line_integrals_is_refused_by_rule_and_value(tmp_path, pixels, message):
    nib.save(nib.Nifti1Image(pixels, np.eye(4)), tmp_path / "x.nii")
    with pytest.raises(ValueError, match=message) as refusal:
        read_image(tmp_path / "x.nii")
    assert "x.nii" in str(refusal.value)


def test_oblong_pixels_are_refused(tmp_path):
    nib.save(nib.Nifti1Image(radiograph(), np.diag([1, 2, 1, 1.0])), tmp_path / "x.nii")
    with pytest.raises(ValueError, match="pixels must be square"):
        read_image(tmp_path / "x.nii")
