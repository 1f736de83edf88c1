import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from scripts.cases.resample import block_mean, cut, grid_affine, isotropic_grid, resample_hu, resample_labels


def ramp(shape, affine, slope_mm=(3.0, -2.0, 5.0)):
    """HU that are linear in RAS mm: linear interpolation must reproduce them exactly."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    return (nib.affines.apply_affine(affine, index) @ slope_mm).astype(np.float32)


def oblique(seed):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=seed).as_matrix() @ np.diag([2.0, 3.0, 4.0])
    affine[:3, 3] = [10, -20, 30]
    return affine


@pytest.mark.parametrize("seed", range(4))
def test_a_linear_field_is_reproduced_from_any_orientation(seed):
    affine, shape = oblique(seed), (30, 25, 20)
    inner = grid_affine(nib.affines.apply_affine(affine, (np.array(shape) - 1) / 2), (9, 9, 9), 2.0)
    resampled = resample_hu(ramp(shape, affine), affine, (9, 9, 9), inner)
    np.testing.assert_allclose(resampled, ramp((9, 9, 9), inner), atol=0.05)


def test_the_isotropic_grid_covers_every_voxel_and_starts_at_the_voxel_edge():
    affine = nib.affines.from_matvec(np.diag([-1.0, 2.0, 5.0]), [7, 0, 0])
    shape, grid = isotropic_grid((10, 10, 4), affine, 2.5)
    assert shape == (4, 8, 8)
    np.testing.assert_allclose(nib.affines.apply_affine(grid, [-0.5] * 3), [-2.5, -1, -2.5])


def test_outside_the_data_there_is_air_and_no_label():
    shape, affine = (6, 6, 6), np.eye(4)
    wide = grid_affine([2.5, 2.5, 2.5], (12, 12, 12), 1.0)
    hu = resample_hu(np.full(shape, 40, np.float32), affine, (12, 12, 12), wide)
    labels = resample_labels(np.full(shape, 3, np.uint8), affine, (12, 12, 12), wide)
    inside = np.zeros((12, 12, 12), dtype=bool)
    inside[3:9, 3:9, 3:9] = True
    np.testing.assert_allclose(hu, np.where(inside, 40, -1000), atol=1e-4)
    np.testing.assert_array_equal(labels, np.where(inside, 3, 0))


@pytest.mark.parametrize("spacing_mm", [2.0, 3.0, 4.5])
def test_a_coarser_grid_does_not_alias(spacing_mm):
    stripes = np.zeros((48, 48, 48), dtype=np.float32)
    stripes[::2] = 1000
    shape, grid = isotropic_grid(stripes.shape, np.eye(4), spacing_mm)
    inner = resample_hu(stripes, np.eye(4), shape, grid)[2:-2]
    assert np.abs(inner - 500).max() < 150


def test_block_mean_keeps_the_total():
    hu = np.random.default_rng(0).normal(size=(8, 6, 4)).astype(np.float32)
    assert block_mean(hu, 2).shape == (4, 3, 2)
    np.testing.assert_allclose(block_mean(hu, 2).sum() * 8, hu.sum(), rtol=1e-4)


def test_cutting_keeps_every_voxel_in_place_and_fills_with_air():
    hu = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    part = cut(hu, np.array([-1, 1, 2]), (5, 2, 9))
    assert part.shape == (5, 2, 9)
    np.testing.assert_array_equal(part[1:4, :, :3], hu[:, 1:3, 2:])
    assert (part[0] == -1000).all() and (part[:, :, 3:] == -1000).all()
