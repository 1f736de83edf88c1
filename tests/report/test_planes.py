"""Laws of the planes."""

import numpy as np
import pytest

from scripts.report.planes import PLANES, as_displayed


@pytest.mark.parametrize("plane", PLANES)
def test_a_plane_passes_through_the_central_voxel_and_has_its_axes_across_and_up(plane):
    volume = np.zeros((4, 6, 8))
    volume[2, 3, 4] = 1.0
    drawn = plane.of(volume)
    assert drawn.shape == (volume.shape[plane.across], volume.shape[plane.up])
    assert drawn.sum() == 1.0


def test_superior_is_up_and_the_patients_right_or_anterior_is_on_the_left():
    plane = np.zeros((3, 4))
    plane[2, 3] = 1.0  # the most right (or anterior) and most superior corner
    picture = as_displayed(plane)
    assert picture.shape == (4, 3)
    assert picture[0, 0] == 1.0
