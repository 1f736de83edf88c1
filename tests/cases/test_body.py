import numpy as np
import pytest
from tests.refusal import refused

from scripts.cases.body import body_mask, bounding_box
from scripts.phantom.canvas import Label
from scripts.phantom.torso import torso

SPACING_MM = 5.0
SHAPE = (90, 70, 40)


@pytest.fixture(scope="module")
def chest():
    phantom = torso(3, SHAPE, SPACING_MM, centre_mm=160.0)
    return phantom.hu.numpy(), phantom.labels.numpy()


def trunk(labels):
    """The patient, lungs and airways included."""
    return labels != Label.AIR


def overlap(mask, truth):
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


def with_table(hu):
    """A hollow table 15 mm below the back, with a 5 mm shell, as wide as the field of view."""
    back = bounding_box(hu > -400)[0][1]
    hu = hu.copy()
    hu[:, [back - 9, back - 4], :] = 300
    return hu


def test_the_mask_is_the_patient_with_lungs(chest):
    hu, labels = chest
    mask = body_mask(hu, SPACING_MM)
    assert overlap(mask, trunk(labels)) > 0.98
    lungs = (hu < -700) & trunk(labels)
    assert lungs.sum() * SPACING_MM**3 > 1e6 and mask[lungs].mean() > 0.99


def test_a_table_changes_nothing(chest):
    hu, _ = chest
    np.testing.assert_array_equal(body_mask(with_table(hu), SPACING_MM), body_mask(hu, SPACING_MM))


def test_a_gown_and_a_tube_are_removed(chest):
    hu, _ = chest
    front = bounding_box(hu > -400)[1][1]
    dressed = hu.copy()
    dressed[20:70, front + 2, :] = 50
    dressed[5, 60, :] = 500
    np.testing.assert_array_equal(body_mask(dressed, SPACING_MM), body_mask(hu, SPACING_MM))


def test_noise_hardly_moves_the_mask(chest):
    hu, _ = chest
    noisy = hu + np.random.default_rng(0).normal(0, 60, hu.shape)
    assert overlap(body_mask(noisy, SPACING_MM), body_mask(hu, SPACING_MM)) > 0.99


def test_a_body_cut_by_the_field_of_view_is_kept_up_to_the_border(chest):
    hu, labels = chest
    low, high = bounding_box(trunk(labels))
    cut = (slice(low[0] + 8, high[0] - 8), slice(low[1] + 4, high[1] - 4), slice(None))  # skin gone on all sides
    inside = body_mask(hu, SPACING_MM)[cut]
    assert overlap(body_mask(hu[cut], SPACING_MM), inside) > 0.99


def test_lungs_stay_when_the_circular_field_of_view_opens_them(chest):
    hu, labels = chest
    low, high = bounding_box(trunk(labels))
    u, v = np.meshgrid(np.arange(SHAPE[0]), np.arange(SHAPE[1]), indexing="ij")
    centre, radius = (low + high) / 2, 0.42 * (high - low)[0]
    circle = ((u - centre[0]) ** 2 + (v - centre[1]) ** 2 < radius**2)[..., None] & np.ones(SHAPE, dtype=bool)
    lungs = (hu < -700) & trunk(labels) & circle
    mask = body_mask(np.where(circle, hu, -1000), SPACING_MM)
    assert mask[lungs].mean() > 0.97


def test_a_volume_without_a_body_is_refused_by_volume_and_remedy():
    hu = np.full((40, 40, 40), -1000.0)
    hu[15:25, 15:25, 15:25] = 0
    with refused(ValueError, "scan 7", "body", "litres", "0.5", "spacing"):
        body_mask(hu, SPACING_MM, "scan 7")


def test_the_bounding_box_is_tight():
    mask = np.zeros((5, 6, 7), dtype=bool)
    mask[1, 2:5, 3] = True
    mask[3, 2, 6] = True
    low, high = bounding_box(mask)
    assert low.tolist() == [1, 2, 3] and high.tolist() == [4, 5, 7]
