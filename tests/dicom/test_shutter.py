"""Shutters, collimators and padding, as a header states them."""

import numpy as np
import pytest
from pydicom.dataset import Dataset
from tests.dicom.dicom_files import film, write_radiograph

from scripts.dicom.read_radiograph import read_dicom_radiograph
from scripts.dicom.shutter import shown_area

ROWS, COLUMNS = np.indices((96, 80)) + 1
"""Counted from 1, as DICOM does."""
DISC = (ROWS - 40) ** 2 + (COLUMNS - 50) ** 2 < 30**2
BOX = (ROWS > 10) & (ROWS < 90) & (COLUMNS > 5) & (COLUMNS < 70)


def stated(**elements):
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def sides(kind):
    edges = {"LeftVerticalEdge": 5, "RightVerticalEdge": 70, "UpperHorizontalEdge": 10, "LowerHorizontalEdge": 90}
    return {f"{kind}{edge}": value for edge, value in edges.items()}


def circle(kind):
    return {f"CenterOfCircular{kind}": [40, 50], f"RadiusOfCircular{kind}": 30}


@pytest.mark.parametrize("kind", ["Shutter", "Collimator"])
def test_shapes_are_what_the_standard_says_and_hide_together(kind):
    shape, pixels = f"{kind}Shape", np.zeros((96, 80), dtype=bool)
    np.testing.assert_array_equal(shown_area(stated(**{shape: "CIRCULAR"}, **circle(kind)), pixels), DISC)
    np.testing.assert_array_equal(shown_area(stated(**{shape: "RECTANGULAR"}, **sides(kind)), pixels), BOX)
    both = stated(**{shape: ["RECTANGULAR", "CIRCULAR"]}, **sides(kind), **circle(kind))
    np.testing.assert_array_equal(shown_area(both, pixels), BOX & DISC)


def test_a_polygon_shows_what_lies_between_its_corners():
    corners = [10, 5, 10, 70, 90, 70, 90, 5]
    area = shown_area(
        stated(ShutterShape="POLYGONAL", VerticesOfThePolygonalShutter=corners), np.zeros((96, 80), dtype=bool)
    )
    np.testing.assert_array_equal(area, BOX)
    triangle = [1, 1, 1, 80, 96, 1]
    area = shown_area(
        stated(ShutterShape="POLYGONAL", VerticesOfThePolygonalShutter=triangle), np.zeros((96, 80), dtype=bool)
    )
    below = (ROWS - 1) / 95 + (COLUMNS - 1) / 79
    assert not area[below > 1.02].any() and area[(below < 0.98) & (ROWS > 2) & (COLUMNS > 2)].all()


def test_padding_hides_too():
    padding = np.arange(20).reshape(4, 5) > 12
    np.testing.assert_array_equal(shown_area(Dataset(), padding), ~padding)


@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"ShutterShape": "CIRCULAR"},
        {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [1, 2, 3], "RadiusOfCircularShutter": 4},
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [1, 2, 3]},
        {"ShutterShape": "RECTANGULAR"},
        circle("Shutter"),
    ],
)
def test_what_the_header_does_not_describe_hides_nothing(elements):
    assert shown_area(stated(**elements), np.zeros((96, 80), dtype=bool)) is None


def test_a_radiograph_carries_what_its_header_says(tmp_path):
    assert read_dicom_radiograph(write_radiograph(tmp_path / "plain")).shown is None
    path = write_radiograph(tmp_path / "round", pixels=film(), ShutterShape="CIRCULAR", **circle("Shutter"))
    np.testing.assert_array_equal(read_dicom_radiograph(path).shown, DISC)
