"""The 3D rendering: orientation, scale, what hides what, and that the file is whole."""

import math

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from scripts.report import rendering as module
from scripts.report.rendering import BONE, METAL, VIEWS, draw_rendering, render, rendering

SPACING = np.array([5.0, 5.0, 5.0])


@pytest.fixture(autouse=True)
def few_pixels(monkeypatch):
    monkeypatch.setattr(module, "PIXELS", 64)


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
    pixel_mm = np.multiply(shape, spacing).max() / module.PIXELS
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


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("hu", [-1000.0, 40.0, 700.0, 3000.0])
def test_volumes_without_skin_bone_or_metal_are_drawn(tmp_path, hu):
    draw_rendering(tmp_path / "r.png", {"uniform": np.full((4, 4, 4), hu)}, 5.0)
    assert [file.name for file in tmp_path.iterdir()] == ["r.png"]


def test_air_is_white():
    assert (render(np.full((4, 4, 4), -1000.0, np.float32), SPACING, 0.0) == 1).all()


@pytest.mark.parametrize("count, bands", [(1, 1), (7, 1), (8, 2), (13, 2)])
def test_every_volume_has_every_view_and_more_than_seven_start_a_new_band(count, bands):
    figure = rendering({f"v{i}": block((2, 2, 2), shape=(4, 4, 4)) for i in range(count)}, 5.0)
    assert {axes.get_label() for axes in figure.axes} == {f"{view}, v{i}" for view in VIEWS for i in range(count)}
    assert len({round(axes.get_position().y0, 6) for axes in figure.axes}) == bands * len(VIEWS)


def test_all_pictures_have_one_scale():
    hu = block((3, 3, 6), shape=(6, 8, 12))
    figure = rendering({"a": hu, "b": -hu}, 5.0)
    scales = []
    for axes in figure.axes:
        rows, columns, _ = axes.get_images()[0].get_array().shape
        scales += list(axes.get_position().size * figure.get_size_inches() / (columns, rows))
    np.testing.assert_allclose(scales, scales[0])


def test_no_words_are_cut_off():
    figure = rendering({"the_ablation_without_$projection_loss$": block((2, 2, 2), shape=(4, 4, 4))}, 5.0)
    page, renderer = figure.bbox, FigureCanvasAgg(figure).get_renderer()
    for text in figure.texts:
        box = text.get_window_extent(renderer)
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1


@pytest.mark.parametrize(
    "name, volumes, spacing_mm, message",
    [
        ("r.jpg", {"a": np.zeros((4, 4, 4))}, 5.0, r"r\.jpg ends in '\.jpg'.*; rename it"),
        ("r.png", {}, 5.0, "at least one volume, got none; pass {name: volume}"),
        ("r.png", {"a": np.zeros((4, 4))}, 5.0, r"'a' must be a volume \[U, V, W\], got \[4, 4\]; drop its other axes"),
        ("r.png", {"a": np.zeros((4, 4, 4)), "b": np.zeros((4, 4, 5))}, 5.0, r"'b' has shape \(4, 4, 5\), the first"),
        ("r.png", {"a": np.full((4, 4, 4), np.nan)}, 5.0, "'a' holds 64 NaN or infinite values.*finite values only"),
        ("r.png", {"a": np.zeros((4, 4, 4))}, -1.0, r"spacing_mm must be .* got -1\.0; pass e\.g\. 2\.0"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name_and_nothing_is_written(tmp_path, name, volumes, spacing_mm, message):
    with pytest.raises(ValueError, match=message):
        draw_rendering(tmp_path / name, volumes, spacing_mm)
    assert not list(tmp_path.iterdir())
