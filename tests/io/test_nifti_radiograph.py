"""Radiographs in NIfTI files, whatever axes of length 1 their writers add."""

import nibabel as nib
import numpy as np
import pytest
from tests.refusal import refused

from scripts.io.nifti import write_image
from scripts.io.nifti_radiograph import read_image, read_nifti


def save(path, pixels):
    nib.save(nib.Nifti1Image(pixels, np.eye(4)), path)
    return path


@pytest.mark.parametrize("ones", [(), (1,), (1, 1), (1, 1, 1)])
def test_axes_of_length_one_at_the_end_do_not_change_a_film(tmp_path, ones):
    pixels = np.random.default_rng(0).random((70, 80), np.float32)
    (film,) = read_nifti(save(tmp_path / "x.nii", pixels.reshape(70, 80, *ones)))
    np.testing.assert_array_equal(film.pixels, pixels[::-1, ::-1].T)
    assert film.view is None


IN_PLANE = {
    "plain": [(1, 0, 0), (0, 1, 0)],
    "plain, by ITK": [(-1, 0, 0), (0, -1, 0)],
    "frontal": [(1, 0, 0), (0, 0, 1)],
    "lateral": [(0, 1, 0), (0, 0, 1)],
}
"""Directions in RAS+ of the first two axes of upright films."""


def with_affine(path, first, second, form):
    """A film whose first two axes have these directions by one of its affines."""
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([first, second, np.cross(first, second)])
    image = nib.Nifti1Image(np.random.default_rng(0).random((70, 80), np.float32), None)
    getattr(image, f"set_{form}")(affine, code="scanner")
    nib.save(image, path)
    return path


@pytest.mark.parametrize("form", ["sform", "qform"])
@pytest.mark.parametrize("axes", IN_PLANE.values(), ids=IN_PLANE)
def test_an_affine_with_the_axes_of_a_film_changes_nothing(tmp_path, axes, form):
    (expected,) = read_nifti(save(tmp_path / "x.nii", np.random.default_rng(0).random((70, 80), np.float32)))
    (film,) = read_nifti(with_affine(tmp_path / "y.nii", *axes, form))
    np.testing.assert_array_equal(film.pixels, expected.pixels)


@pytest.mark.parametrize("form", ["sform", "qform"])
@pytest.mark.parametrize("damage", [(-1, 1), (1, -1), "swapped"])
@pytest.mark.parametrize("axes", IN_PLANE.values(), ids=IN_PLANE)
def test_an_affine_by_which_a_film_is_mirrored_or_turned_is_refused(tmp_path, axes, damage, form):
    first, second = (np.array(axis) for axis in axes)
    first, second = (second, first) if damage == "swapped" else (damage[0] * first, damage[1] * second)
    with refused(ValueError, "x.nii", "by its affine", "flip or swap", "sform_code and qform_code to 0"):
        read_nifti(with_affine(tmp_path / "x.nii", first, second, form))


def test_an_affine_that_is_not_stated_contradicts_nothing(tmp_path):
    image = nib.Nifti1Image(np.random.default_rng(0).random((70, 80), np.float32), np.diag([-1.0, -1, 1, 1]))
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nib.save(image, tmp_path / "x.nii")
    assert len(read_nifti(tmp_path / "x.nii")) == 1


def test_an_image_that_this_project_writes_is_read(tmp_path):
    write_image(tmp_path / "x.nii.gz", np.random.default_rng(0).random((70, 70)), 2.4)
    assert read_image(tmp_path / "x.nii.gz")[1] == pytest.approx(2.4)


@pytest.mark.parametrize(
    ("shape", "meant"),
    [((70, 80, 9), "this is a volume"), ((70, 80, 9, 1), "this is a volume"), ((70, 1, 80), "axis of length 1 last")],
)
def test_a_volume_is_refused_with_its_shape_and_what_it_is(tmp_path, shape, meant):
    with pytest.raises(ValueError, match=rf"x.nii: .*\[X, Y\].*got shape.*two files.*{meant}"):
        read_nifti(save(tmp_path / "x.nii", np.ones(shape, np.float32)))
