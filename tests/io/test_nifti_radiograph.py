"""Radiographs in NIfTI files, whatever axes of length 1 their writers add."""

import nibabel as nib
import numpy as np
import pytest

from scripts.io.nifti_radiograph import read_nifti


def save(path, pixels):
    nib.save(nib.Nifti1Image(pixels, np.eye(4)), path)
    return path


@pytest.mark.parametrize("ones", [(), (1,), (1, 1), (1, 1, 1)])
def test_axes_of_length_one_at_the_end_do_not_change_a_film(tmp_path, ones):
    pixels = np.random.default_rng(0).random((70, 80), np.float32)
    (film,) = read_nifti(save(tmp_path / "x.nii", pixels.reshape(70, 80, *ones)))
    np.testing.assert_array_equal(film.pixels, pixels[::-1, ::-1].T)
    assert film.view is None


@pytest.mark.parametrize(
    ("shape", "meant"),
    [((70, 80, 9), "this is a volume"), ((70, 80, 9, 1), "this is a volume"), ((70, 1, 80), "axis of length 1 last")],
)
def test_a_volume_is_refused_with_its_shape_and_what_it_is(tmp_path, shape, meant):
    with pytest.raises(ValueError, match=rf"x.nii: .*\[X, Y\].*got shape.*two files.*{meant}"):
        read_nifti(save(tmp_path / "x.nii", np.ones(shape, np.float32)))
