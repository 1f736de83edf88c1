"""Skeletons beside each other: what stands where, and at which scale."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from scripts.report.mip import BONE_WINDOW, PROJECTIONS
from scripts.report.planes import as_displayed
from scripts.report.skeletons import draw_skeletons, skeletons

VOLUMES = {name: np.random.default_rng(i).normal(0, 300, (6, 4, 5)) for i, name in enumerate(("ours", "truth"))}


def test_every_volume_has_both_projections_in_the_bone_window():
    figure = skeletons(VOLUMES, 5.0)
    assert len(figure.axes) == 4
    pictures = {axes.get_label(): axes.get_images()[0] for axes in figure.axes}
    for name, volume in VOLUMES.items():
        for projection in PROJECTIONS:
            picture = pictures[f"{projection.name}, {name}"]
            np.testing.assert_allclose(picture.get_array(), as_displayed(projection.of(volume)), rtol=1e-6)
            assert picture.get_clim() == BONE_WINDOW


def test_all_have_one_scale_in_mm_and_volumes_stand_from_left_to_right():
    spacing = (5.0, 2.0, 3.0)
    figure = skeletons(VOLUMES, spacing)
    boxes = {axes.get_label(): axes.get_position() for axes in figure.axes}
    size_mm = np.multiply((6, 4, 5), spacing)
    scales = [
        boxes[f"{projection.name}, {name}"].size
        * figure.get_size_inches()
        / size_mm[[projection.across, projection.up]]
        for name in VOLUMES
        for projection in PROJECTIONS
    ]
    np.testing.assert_allclose(scales, scales[0][0])
    assert boxes["frontal, ours"].x1 < boxes["frontal, truth"].x0
    assert boxes["frontal, ours"].y0 > boxes["lateral, ours"].y1


@pytest.mark.parametrize("names", [["one"], [f"the_{i}th_ablation_without_projection_loss" for i in range(6)]])
def test_no_words_are_cut_off_or_overlap(names):
    figure = skeletons(dict.fromkeys(names, np.zeros((4, 4, 4))), 5.0)
    renderer = FigureCanvasAgg(figure).get_renderer()
    page, boxes = figure.bbox, [text.get_window_extent(renderer) for text in figure.texts]
    for i, box in enumerate(boxes):
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_the_file_is_written_whole_and_alone(tmp_path):
    draw_skeletons(tmp_path / "s.png", VOLUMES, 5.0)
    assert [file.name for file in tmp_path.iterdir()] == ["s.png"]


@pytest.mark.parametrize(
    "name, volumes, message",
    [
        ("s.png", {}, "at least one volume, got none"),
        ("s.gif", VOLUMES, r"s\.gif .*'\.gif'.*\.svg; rename"),
    ],
)
def test_what_cannot_be_drawn_is_refused_and_nothing_is_written(tmp_path, name, volumes, message):
    with pytest.raises(ValueError, match=message):
        draw_skeletons(tmp_path / name, volumes, 5.0)
    assert not list(tmp_path.iterdir())
