"""The ray caster: orientation, scale, and what hides what."""

import math

import numpy as np
import pytest

from scripts.report import raycasting
from scripts.report.raycasting import BONE, METAL
from scripts.report.rendering import VIEWS

SPACING = np.array([5.0, 5.0, 5.0])
PIXELS = 64


def render(hu, spacing, degrees):
    return raycasting.render(hu, spacing, degrees, PIXELS)


def block(centre, hu=700.0, half=2, shape=(16, 16, 16)):
    """Air with a cube of ``hu`` about a voxel."""
    volume = np.full(shape, -1000.0, np.float32)
    volume[tuple(slice(max(c - half, 0), c + half + 1) for c in centre)] = hu
    return volume


def middle_of(picture):
    """Row and column of the mean drawn pixel, in parts of the picture."""
    return np.argwhere((picture < 1).any(axis=2)).mean(axis=0) / picture.shape[:2]


def redness(picture):
    return float((picture[..., 0] - picture[..., 1]).max())


@pytest.mark.parametrize("view", VIEWS)
def test_superior_is_up_and_the_patients_right_is_on_the_left(view):
    row, column = middle_of(render(block((12, 8, 12)), SPACING, VIEWS[view]))
    assert row < 0.4 and column < 0.4
    row, column = middle_of(render(block((3, 8, 3)), SPACING, VIEWS[view]))
    assert row > 0.6 and column > 0.6


def test_the_eye_moves_to_the_patients_left_so_that_anterior_moves_to_the_left_of_the_picture():
    anterior, posterior = block((8, 13, 8)), block((8, 3, 8))
    assert middle_of(render(anterior, SPACING, 0.0)) == pytest.approx(middle_of(render(posterior, SPACING, 0.0)))
    assert middle_of(render(anterior, SPACING, 40.0))[1] < 0.45 < 0.55 < middle_of(render(posterior, SPACING, 40.0))[1]


@pytest.mark.parametrize("degrees", [0.0, 40.0])
@pytest.mark.parametrize("spacing", [(5.0, 5.0, 5.0), (6.0, 4.0, 3.0)])
def test_a_ball_casts_its_own_disc_whatever_the_spacing_and_view(spacing, degrees):
    radius_mm, shape = 30.0, tuple(int(90 / s) for s in spacing)
    places = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij"
    )
    hu = (-300 + 60 * (radius_mm - np.linalg.norm(places, axis=0))).clip(-1000, 150).astype(np.float32)
    picture = render(hu, np.array(spacing), degrees)
    pixel_mm = np.multiply(shape, spacing).max() / PIXELS
    rows, columns = np.nonzero((picture < 1).any(axis=2))
    assert len(rows) * pixel_mm**2 == pytest.approx(math.pi * radius_mm**2, rel=0.05)
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=3)
    assert middle_of(picture) == pytest.approx([0.5, 0.5], abs=0.03)


def test_metal_is_red_from_its_threshold_on_and_as_red_through_bone_as_through_soft_tissue():
    def with_metal(hu, around):
        volume = block((8, 8, 8), around, half=4)
        volume[7:10, 7:10, 7:10] = hu
        return redness(render(volume, SPACING, 0.0))

    through_tissue, through_bone = with_metal(3000.0, 40.0), with_metal(3000.0, 700.0)
    assert through_bone == pytest.approx(through_tissue, rel=0.05)
    assert through_bone > 3 * with_metal(METAL.threshold_hu - 100, 700.0)


def test_bone_hides_what_is_behind_it_and_skin_does_not():
    def seen(hu):
        """How much a bone behind a wall of ``hu`` changes the picture."""
        wall = block((8, 8, 8), hu, half=7)
        hidden = wall.copy()
        hidden[6:11, 6:11, 6:11] = 1500.0
        return np.abs(render(hidden, SPACING, 0.0) - render(wall, SPACING, 0.0)).max()

    assert seen(40.0) > 0.2
    assert seen(BONE.threshold_hu + 300) < 0.01


def test_air_is_white():
    assert (render(np.full((4, 4, 4), -1000.0, np.float32), SPACING, 0.0) == 1).all()
