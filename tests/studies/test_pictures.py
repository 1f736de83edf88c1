"""Pictures of a comparison: of every case that all methods have reconstructed, and of no other."""

import numpy as np
import pytest

from scripts.geometry import preset
from scripts.io.case import Volume, write_case
from scripts.io.nifti import write_volume
from scripts.studies.pictures import DrawComparison

GEOMETRY = preset("carm", (8, 8, 8), 10.0, 8)
TRUTH = np.arange(512, dtype=np.int16).reshape(8, 8, 8)


@pytest.fixture
def sweep(tmp_path):
    """Two cases; method a has reconstructed both, b only the first."""
    ct = Volume(TRUTH, GEOMETRY.volume_affine())
    for name in ("one", "two"):
        image = np.linspace(0, 5, 128, dtype=np.float32).reshape(2, 8, 8)
        write_case(tmp_path / "data" / "cases" / name, GEOMETRY, image, ct, ct, labels=None, record={})
    for method, cases in {"a": ["one", "two"], "b": ["one"]}.items():
        folder = tmp_path / "run" / method / "evaluation" / "volumes"
        folder.mkdir(parents=True)
        for case in cases:
            write_volume(folder / f"{case}.nii.gz", TRUTH + (1 if method == "b" else 0), GEOMETRY.volume_affine())
    return tmp_path


def test_cases_of_all_methods_are_drawn_with_their_own_volumes(sweep):
    panels, others = [], []
    draw = DrawComparison(sweep / "data", lambda *a: panels.append(a), *[lambda *a: others.append(a)] * 2)
    draw(sweep / "run", ["a", "b"])
    ((path, image, truth, volumes, spacing_mm, title),) = panels
    assert path == sweep / "run" / "pictures" / "one_panel.png" and title == "one" and spacing_mm == 10.0
    assert image.shape == (2, 8, 8) and np.array_equal(truth, TRUTH)
    assert np.array_equal(volumes["a"], TRUTH) and np.array_equal(volumes["b"], TRUTH + 1)
    assert [path.name for path, *_ in others] == ["one_rendering.png", "one_skeletons.png"]
    for path, volumes, spacing_mm in others:
        assert path.parent == sweep / "run" / "pictures" and spacing_mm == 10.0
        assert list(volumes) == ["a", "b", "truth"] and np.array_equal(volumes["truth"], TRUTH)


def test_one_method_alone_is_drawn_for_all_its_cases(sweep):
    panels = []
    DrawComparison(sweep / "data", lambda *a: panels.append(a[0].name), *[lambda *a: None] * 2)(sweep / "run", ["a"])
    assert panels == ["one_panel.png", "two_panel.png"]


def test_the_page_has_the_cases_that_are_drawn_and_their_measurements(sweep):
    columns = "case,method,estimate,psnr3d_db\n"
    (sweep / "run" / "cases.csv").write_text(columns + "one,a,single,20\none,a,mean of 4,22\none,b,single,\n")
    written = []

    def page(path, *rest):
        path.touch()
        written.append(rest)

    DrawComparison(sweep / "data", *[lambda *a: None] * 3, page)(sweep / "run", ["a", "b"])
    ((cases, affine, rows, columns),) = written
    assert (sweep / "run" / "comparison.html").is_file()
    assert list(cases) == ["one"] and list(cases["one"]) == ["a", "b", "truth"]
    assert np.array_equal(cases["one"]["b"], TRUTH + 1) and np.array_equal(cases["one"]["truth"], TRUTH)
    assert np.array_equal(affine, GEOMETRY.volume_affine())
    assert [(row["method"], row["psnr3d_db"]) for row in rows] == [
        ("a", 20.0),
        ("b", pytest.approx(np.nan, nan_ok=True)),
    ]
    assert columns["psnr3d_db"] == ("PSNR3D (dB)", 2)
