"""Renderings beside each other: what stands where, at which scale, and that the file is whole."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from scripts.report import rendering as module
from scripts.report.rendering import VIEWS, draw_rendering, rendering

BLOCK = np.full((4, 4, 4), 700.0)


@pytest.fixture(autouse=True)
def few_pixels(monkeypatch):
    monkeypatch.setattr(module, "PIXELS", 64)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("hu", [-1000.0, 40.0, 700.0, 3000.0])
def test_volumes_without_skin_bone_or_metal_are_drawn(tmp_path, hu):
    draw_rendering(tmp_path / "r.png", {"uniform": np.full((4, 4, 4), hu)}, 5.0)
    assert [file.name for file in tmp_path.iterdir()] == ["r.png"]


@pytest.mark.parametrize("count, bands", [(7, 1), (8, 2)])
def test_every_volume_has_every_view_and_more_than_seven_start_a_new_band(count, bands):
    figure = rendering({f"v{i}": BLOCK for i in range(count)}, 5.0)
    assert {axes.get_label() for axes in figure.axes} == {f"{view}, v{i}" for view in VIEWS for i in range(count)}
    assert len({round(axes.get_position().y0, 6) for axes in figure.axes}) == bands * len(VIEWS)


def test_all_pictures_have_one_scale():
    hu = np.full((6, 8, 12), -1000.0)
    hu[1:6, 1:6, 4:9] = 700.0
    figure = rendering({"a": hu, "b": -hu}, 5.0)
    scales = []
    for axes in figure.axes:
        rows, columns, _ = axes.get_images()[0].get_array().shape
        scales += list(axes.get_position().size * figure.get_size_inches() / (columns, rows))
    np.testing.assert_allclose(scales, scales[0])


def test_no_words_are_cut_off():
    figure = rendering({"the_ablation_without_$projection_loss$": BLOCK}, 5.0)
    page, renderer = figure.bbox, FigureCanvasAgg(figure).get_renderer()
    for text in figure.texts:
        box = text.get_window_extent(renderer)
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1


@pytest.mark.parametrize(
    "name, volumes, spacing_mm, message",
    [
        ("r.jpg", {"a": np.zeros((4, 4, 4))}, 5.0, r"r\.jpg .*'\.jpg'.*rename"),
        ("r.png", {}, 5.0, "at least one volume, got none"),
        ("r.png", {"a": np.zeros((4, 4))}, 5.0, r"'a' .*\[U, V, W\], got \[4, 4\]"),
        ("r.png", {"a": np.zeros((4, 4, 4)), "b": np.zeros((4, 4, 5))}, 5.0, r"'b' has shape \(4, 4, 5\), the first"),
        ("r.png", {"a": np.full((4, 4, 4), np.nan)}, 5.0, "'a' .*64 NaN .*finite"),
        ("r.png", {"a": np.zeros((4, 4, 4))}, -1.0, r"spacing_mm .*got -1\.0; .*2\.0"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name_and_nothing_is_written(tmp_path, name, volumes, spacing_mm, message):
    with pytest.raises(ValueError, match=message):
        draw_rendering(tmp_path / name, volumes, spacing_mm)
    assert not list(tmp_path.iterdir())
