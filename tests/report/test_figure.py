"""The picture of a reconstruction."""

import matplotlib.image
import numpy as np
import pytest

from scripts.report.figure import as_displayed, draw_reconstruction


@pytest.mark.parametrize("with_truth", [False, True])
def test_the_picture_is_written_and_grows_by_a_row_for_the_truth(tmp_path, with_truth):
    hu = np.random.default_rng(0).normal(0, 300, (8, 8, 8))
    images = np.ones((2, 8, 8))
    draw_reconstruction(tmp_path / "f.png", hu, images, images, 5.0, "case", hu if with_truth else None)
    height, width, _ = matplotlib.image.imread(tmp_path / "f.png").shape
    assert (height > 1.2 * width) == with_truth


def test_a_view_that_was_not_given_has_no_row(tmp_path):
    hu = np.random.default_rng(0).normal(0, 300, (8, 8, 8))
    one, two = np.ones((2, 8, 8)), np.ones((2, 8, 8))
    one[1] = 0
    for name, measured in (("one", one), ("two", two)):
        draw_reconstruction(tmp_path / f"{name}.png", hu, measured, two, 5.0, "case")
    heights = {name: matplotlib.image.imread(tmp_path / f"{name}.png").shape[0] for name in ("one", "two")}
    assert heights["two"] - heights["one"] == pytest.approx(3.3 * 110, abs=2)


def test_superior_is_up_and_the_patients_right_or_anterior_is_on_the_left():
    plane = np.zeros((3, 4))
    plane[2, 3] = 1.0  # the most right (or anterior) and most superior corner
    picture = as_displayed(plane)
    assert picture.shape == (4, 3)
    assert picture[0, 0] == 1.0
