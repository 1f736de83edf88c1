"""The comparison panel: what stands where, at which scale, and that the file is whole."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from scripts.report.mip import BONE_WINDOW, PROJECTIONS
from scripts.report.panel import ROWS, draw_panel, panel
from scripts.report.planes import ERROR_HU, HU_WINDOW, PLANES
from scripts.report.sheet import wrapped

TRUTH = np.random.default_rng(0).normal(0, 300, (5, 5, 5)).astype(np.float32)
IMAGE = np.ones((2, 5, 5))


def picture_of(figure, label):
    (axes,) = (axes for axes in figure.axes if axes.get_label() == label)
    return axes.get_images()[0]


def text_boxes(figure):
    renderer = FigureCanvasAgg(figure).get_renderer()
    return [text.get_window_extent(renderer) for text in figure.texts]


def test_a_method_has_planes_with_errors_and_projections_and_the_truth_has_no_errors():
    methods = 2
    figure = panel(IMAGE, TRUTH, {f"m{i}": TRUTH for i in range(methods)}, 5.0, "case")
    names = [*(f"m{i}" for i in range(methods)), "truth"]
    labels = [axes.get_label() for axes in figure.axes]
    scales = {"CT number (HU)", "reconstruction − truth (HU)", "ruler"}
    radiographs = {"frontal radiograph", "lateral radiograph"}
    planes = {f"{plane.name}, {name}" for plane in PLANES for name in names}
    skeletons = {f"{projection.name} MIP, {name}" for projection in PROJECTIONS for name in names}
    errors = {f"{plane.name} error, m{i}" for plane in PLANES for i in range(methods)}
    assert set(labels) == scales | radiographs | planes | errors | skeletons
    assert len(labels) == 2 + 8 * methods + 5 + 3


def test_columns_run_from_the_radiographs_over_the_methods_as_given_to_the_truth():
    figure = panel(IMAGE, TRUTH, {"b": TRUTH, "a": TRUTH}, 5.0, "case")
    labels = ["frontal radiograph", "axial, b", "axial, a", "axial, truth"]
    places = {axes.get_label(): axes.get_position().x0 for axes in figure.axes}
    assert sorted(labels, key=places.get) == labels


def test_the_error_of_the_truth_is_zero_and_of_a_bias_that_bias():
    figure = panel(IMAGE, TRUTH, {"truth itself": TRUTH, "biased": TRUTH - 100}, 5.0, "case")
    for plane in PLANES:
        assert not picture_of(figure, f"{plane.name} error, truth itself").get_array().any()
        np.testing.assert_allclose(picture_of(figure, f"{plane.name} error, biased").get_array(), -100, atol=1e-3)


def test_window_and_error_range_are_the_same_for_all_methods():
    figure = panel(IMAGE, TRUTH, {"a": TRUTH * 9, "b": TRUTH / 9}, 5.0, "case")
    for plane in PLANES:
        for name in ("a", "b", "truth"):
            assert picture_of(figure, f"{plane.name}, {name}").get_clim() == HU_WINDOW
        for name in ("a", "b"):
            assert picture_of(figure, f"{plane.name} error, {name}").get_clim() == (-ERROR_HU, ERROR_HU)
    for projection in PROJECTIONS:
        for name in ("a", "b", "truth"):
            assert picture_of(figure, f"{projection.name} MIP, {name}").get_clim() == BONE_WINDOW


def marked(*index):
    """Air but for one voxel."""
    hu = np.full((5, 5, 5), -1000.0)
    hu[index] = 500.0
    return hu


def test_a_marker_at_the_right_anterior_superior_end_of_a_central_plane_is_at_its_top_left():
    markers = dict(zip((plane.name for plane in PLANES), [(4, 4, 2), (2, 4, 4), (4, 2, 4)], strict=True))
    figure = panel(IMAGE, TRUTH, {name: marked(*marker) for name, marker in markers.items()}, 5.0, "case")
    for name in markers:
        assert np.argwhere(picture_of(figure, f"{name}, {name}").get_array() > 0).tolist() == [[0, 0]]


def test_a_marker_at_the_right_or_anterior_superior_end_is_at_the_top_left_of_a_projection():
    shown = {}
    for projection in PROJECTIONS:
        for depth in (0, 3):
            marker = [4, 4, 4]
            marker[projection.along] = depth
            shown[f"{projection.name} {depth}"] = projection, marked(*marker)
    figure = panel(IMAGE, TRUTH, {name: hu for name, (_, hu) in shown.items()}, 5.0, "case")
    for name, (projection, _) in shown.items():
        picture = picture_of(figure, f"{projection.name} MIP, {name}").get_array()
        assert np.argwhere(picture > 0).tolist() == [[0, 0]]


def test_a_marker_at_the_right_or_anterior_superior_corner_of_a_radiograph_is_at_its_top_left():
    image = np.zeros((2, 5, 5))
    image[:, 4, 4] = 1.0
    figure = panel(image, TRUTH, {"a": TRUTH}, 5.0, "case")
    for view in ("frontal", "lateral"):
        assert np.argwhere(picture_of(figure, f"{view} radiograph").get_array()).tolist() == [[0, 0]]


def test_all_planes_and_projections_have_one_scale_in_mm():
    shape, spacing = (4, 6, 10), (5.0, 2.0, 1.5)
    hu = np.zeros(shape)
    figure = panel(IMAGE, hu, {"a": hu}, spacing, "case")
    size_mm = np.multiply(shape, spacing)
    scales = []
    for axes in figure.axes:
        for shown in ROWS:
            if axes.get_label().startswith(shown.name) and not axes.get_label().endswith("radiograph"):
                inches = axes.get_position().size * figure.get_size_inches()
                scales += list(inches / size_mm[[shown.across, shown.up]])
    assert len(scales) == 2 * (9 + 4)
    np.testing.assert_allclose(scales, scales[0])


@pytest.mark.parametrize(
    "names, shape",
    [
        ([f"the_{i}th_ablation_without_projection_loss" for i in range(7)], (4, 4, 4)),
        (["DiffuX2CT", r"a $\frac$ (no formula, and super-resolution)"], (4, 4, 1)),
        (["one"], (2, 40, 2)),
    ],
)
def test_no_words_are_cut_off_or_overlap(names, shape):
    hu = np.zeros(shape)
    figure = panel(IMAGE, hu, dict.fromkeys(names, hu), 5.0, "case")
    page, boxes = figure.bbox, text_boxes(figure)
    for i, box in enumerate(boxes):
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_a_wrapped_name_loses_no_letter():
    name = "diffux2ct_paper_objective_without_modulators and more"
    assert wrapped(name).replace("\n", "").replace(" ", "") == name.replace(" ", "")
    assert max(map(len, wrapped(name).split("\n"))) <= 18


@pytest.mark.parametrize("suffix, start", [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_the_suffix_chooses_the_format_and_nothing_else_is_left(tmp_path, suffix, start):
    draw_panel(tmp_path / f"p{suffix}", IMAGE, TRUTH, {"a": TRUTH}, 5.0, "case")
    assert [file.name for file in tmp_path.iterdir()] == [f"p{suffix}"]
    assert (tmp_path / f"p{suffix}").read_bytes().startswith(start)


def test_a_failure_leaves_the_older_file_and_no_part_of_the_new_one(tmp_path, monkeypatch):
    def fail(self, path, **_):
        path.write_text("half")
        raise OSError("disk full")

    (tmp_path / "p.png").write_text("older")
    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        draw_panel(tmp_path / "p.png", IMAGE, TRUTH, {"a": TRUTH}, 5.0, "case")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["older"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"path": "p.gif"}, r"p\.gif .*'\.gif'.*\.png, \.pdf, \.svg"),
        ({"reconstructions": {}}, r"at least one method.*got \[\]"),
        ({"reconstructions": {"truth": TRUTH}}, r"none 'truth', got \['truth'\]"),
        ({"reconstructions": {"a": TRUTH[:4]}}, r"'a' .*\(4, 5, 5\), .*\(5, 5, 5\); resample"),
        ({"reconstructions": {"a": TRUTH * np.nan}}, "'a' .*125 NaN .*finite"),
        ({"truth_hu": TRUTH[None]}, r"'truth' .*\[U, V, W\], got \[1, 5, 5, 5\]"),
        ({"image": IMAGE[:1]}, r"'image' .*\[2, N, N\], got \[1, 5, 5\]"),
        ({"image": IMAGE[:, 1:]}, r"'image' must be \[2, N, N\], got \[2, 4, 5\]"),
        ({"image": IMAGE * np.inf}, "'image' .*50 NaN"),
        ({"spacing_mm": 0.0}, r"spacing_mm .*positive .*got 0\.0; .*2\.0"),
        ({"spacing_mm": (1.0, 2.0)}, r"spacing_mm .*three .*got \(1\.0, 2\.0\)"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name_and_nothing_is_written(tmp_path, change, message):
    arguments = {"path": "p.png", "image": IMAGE, "truth_hu": TRUTH, "reconstructions": {"a": TRUTH}, "title": "case"}
    arguments = arguments | {"spacing_mm": 5.0} | change
    with pytest.raises(ValueError, match=message):
        draw_panel(**arguments | {"path": tmp_path / arguments["path"]})
    assert not list(tmp_path.iterdir())
