"""The picture of a reconstruction."""

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from scripts.report.figure import VIEW_INCHES, VOLUME_INCHES, draw_reconstruction
from scripts.report.mip import BONE_WINDOW, PROJECTIONS
from scripts.report.planes import HU_WINDOW, as_displayed


def height_of(path) -> float:
    """Height of a picture in inches."""
    return matplotlib.image.imread(path).shape[0] / 110


def test_the_picture_grows_by_a_row_for_the_truth(tmp_path):
    hu, images = np.random.default_rng(0).normal(0, 300, (8, 8, 8)), np.ones((2, 8, 8))
    for name, truth in (("without", None), ("with", hu)):
        draw_reconstruction(tmp_path / f"{name}.png", hu, images, images, 5.0, "case", truth)
    grown = height_of(tmp_path / "with.png") - height_of(tmp_path / "without.png")
    assert grown == pytest.approx(VOLUME_INCHES, abs=0.02)


def test_reconstruction_and_truth_have_slices_and_projections_in_the_same_windows(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: saved.append(self))
    hu, images = np.random.default_rng(0).normal(0, 300, (8, 8, 8)), np.ones((2, 8, 8))
    draw_reconstruction(tmp_path / "f.png", hu, images, images, 5.0, "case", hu + 100)
    drawn = [axes.get_images()[0] for axes in saved[0].axes if axes.get_title()]
    assert len(drawn) == 2 * 3 + 2 * 5
    for start, volume in ((6, hu), (11, hu + 100)):
        pictures = drawn[start : start + 5]
        assert [picture.get_clim() for picture in pictures] == [HU_WINDOW] * 3 + [BONE_WINDOW] * 2
        for picture, projection in zip(pictures[3:], PROJECTIONS, strict=True):
            np.testing.assert_array_equal(picture.get_array(), as_displayed(projection.of(volume)))


def test_a_view_that_was_not_given_has_no_row(tmp_path):
    hu = np.random.default_rng(0).normal(0, 300, (8, 8, 8))
    one, two = np.ones((2, 8, 8)), np.ones((2, 8, 8))
    one[1] = 0
    for name, measured in (("one", one), ("two", two)):
        draw_reconstruction(tmp_path / f"{name}.png", hu, measured, two, 5.0, "case")
    grown = height_of(tmp_path / "two.png") - height_of(tmp_path / "one.png")
    assert grown == pytest.approx(VIEW_INCHES, abs=0.02)
