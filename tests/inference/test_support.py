"""Support of a reconstruction: the volume it is compared with, and its units."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.refusal import refused

from scripts.geometry import preset
from scripts.inference.support import load_support
from scripts.intensity import hu_to_mu
from scripts.io.nifti import write_volume
from scripts.physics.row_space import support
from scripts.physics.separable import SeparableProjector

GEOMETRY = preset("carm", (8, 8, 8), 40.0, 12)
PROJECTOR = SeparableProjector(GEOMETRY, torch.float64)
IMAGE = torch.ones(2, 12, 12)


def load(path, geometry=GEOMETRY):
    return load_support(path, geometry, partial(support, projector=PROJECTOR), torch.device("cpu"))


def random(seed):
    return torch.randint(-1000, 1000, (8, 8, 8), generator=torch.Generator().manual_seed(seed)).float()


@pytest.fixture
def mean(tmp_path):
    """A file of the mean training volume."""
    path = tmp_path / "mean.nii.gz"
    write_volume(path, random(0).numpy(), GEOMETRY.volume_affine())
    return path


def test_the_deviation_is_taken_in_attenuation_and_smoothed_over_10_mm(mean):
    found = load(mean)(IMAGE, random(1))
    deviation = hu_to_mu(random(1).double()) - hu_to_mu(random(0).double())
    expected = support(deviation[None, None], IMAGE[None].double(), PROJECTOR, 20, 0.25)
    np.testing.assert_allclose(found, expected[0, 0].numpy(), rtol=1e-5)
    assert 0 < found.min() < found.max() == 1


def test_a_missing_view_supports_nothing(mean):
    one_view = IMAGE * torch.tensor([1.0, 0.0])[:, None, None]
    both, one = (load(mean)(image, random(1)) for image in (IMAGE, one_view))
    assert one.mean() < 0.9 * both.mean()


def test_on_a_finer_grid_the_share_is_that_of_means_interpolated(mean):
    hu, image = random(1), IMAGE * torch.rand(12, generator=torch.Generator().manual_seed(2))
    finer_image = image.repeat_interleave(2, 1).repeat_interleave(2, 2)
    finer_hu = hu.repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2)
    fine = load(mean)(finer_image, finer_hu)
    coarse = torch.from_numpy(load(mean)(image, hu))[None, None]
    expected = F.interpolate(coarse, scale_factor=2.0, mode="trilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(fine, expected.numpy(), rtol=1e-5)


def test_a_mean_volume_on_another_grid_or_with_nan_is_refused(mean):
    finer = preset("carm", (16, 16, 16), 20.0, 12)
    with refused(ValueError, str(mean), "grid of the weights", "[16, 16, 16]", "[8, 8, 8] of 40 mm", "--mean_volume"):
        load(mean, finer)
    moved = GEOMETRY.volume_affine()
    moved[2, 3] += 1
    write_volume(mean, random(0).numpy(), moved)
    with refused(ValueError, str(mean), "around the isocentre"):
        load(mean)
    write_volume(mean, np.full((8, 8, 8), np.nan, np.float32), GEOMETRY.volume_affine())
    with refused(ValueError, str(mean), "NaN", "evaluate.json"):
        load(mean)
