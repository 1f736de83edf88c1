"""The picture of a reconstruction."""

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from scripts.report.figure import TITLE_INCHES, VIEW_INCHES, VOLUME_INCHES, draw_reconstruction
from scripts.report.mip import BONE_WINDOW, PROJECTIONS
from scripts.report.planes import HU_WINDOW, as_displayed


@pytest.fixture
def saved(monkeypatch) -> list[Figure]:
    """The figures that would have been saved."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: figures.append(self))
    return figures


def test_the_picture_is_a_file_of_the_figures_size(tmp_path):
    hu, images = np.random.default_rng(0).normal(0, 300, (8, 8, 8)), np.ones((2, 8, 8))
    images[1] = 0
    draw_reconstruction(tmp_path / "f.png", hu, images, images, 5.0, "case")
    height = matplotlib.image.imread(tmp_path / "f.png").shape[0] / 110
    assert height == pytest.approx(VIEW_INCHES + VOLUME_INCHES + TITLE_INCHES, abs=0.02)


@pytest.mark.parametrize("value", [-0.3, 1e-9])
def test_films_of_nothing_but_air_have_a_picture(tmp_path, value):
    hu, images = np.full((8, 8, 8), -1000.0), np.full((2, 8, 8), value)
    draw_reconstruction(tmp_path / "f.png", hu, images, images, 5.0, "case")
    assert (tmp_path / "f.png").is_file()


def test_the_picture_grows_by_a_row_for_the_truth(saved, tmp_path):
    hu, images = np.random.default_rng(0).normal(0, 300, (8, 8, 8)), np.ones((2, 8, 8))
    for name, truth in (("without", None), ("with", hu)):
        draw_reconstruction(tmp_path / f"{name}.png", hu, images, images, 5.0, "case", truth)
    without, grown = (figure.get_figheight() for figure in saved)
    assert grown - without == pytest.approx(VOLUME_INCHES)


def test_reconstruction_and_truth_have_slices_and_projections_in_the_same_windows(saved, tmp_path):
    hu, images = np.random.default_rng(0).normal(0, 300, (8, 8, 8)), np.ones((2, 8, 8))
    draw_reconstruction(tmp_path / "f.png", hu, images, images, 5.0, "case", hu + 100)
    drawn = [axes.get_images()[0] for axes in saved[0].axes if axes.get_title()]
    assert len(drawn) == 2 * 3 + 2 * 5
    for start, volume in ((6, hu), (11, hu + 100)):
        pictures = drawn[start : start + 5]
        assert [picture.get_clim() for picture in pictures] == [HU_WINDOW] * 3 + [BONE_WINDOW] * 2
        for picture, projection in zip(pictures[3:], PROJECTIONS, strict=True):
            np.testing.assert_array_equal(picture.get_array(), as_displayed(projection.of(volume)))


def test_a_view_that_was_not_given_has_no_row(saved, tmp_path):
    hu = np.random.default_rng(0).normal(0, 300, (8, 8, 8))
    one, two = np.ones((2, 8, 8)), np.ones((2, 8, 8))
    one[1] = 0
    for name, measured in (("one", one), ("two", two)):
        draw_reconstruction(tmp_path / f"{name}.png", hu, measured, two, 5.0, "case")
    shown, grown = (figure.get_figheight() for figure in saved)
    assert grown - shown == pytest.approx(VIEW_INCHES)
