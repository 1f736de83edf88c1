"""A shutter of any shape hides nothing but what lies behind it: stated by the header, or seen."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from tests.exam.test_film_values import as_display, as_measured, trunk

from scripts.dicom.write_radiograph import FORMS, simulated_header, write_dx
from scripts.exam.familiarity import read_reference
from scripts.exam.load import LoadExamd
from scripts.exam.surround import inside_surround
from scripts.geometry import VIEWS, read_geometry
from scripts.io.case import read_case

BUNDLE = Path(__file__).parents[2] / "bundle"
DEMO = BUNDLE / "docs" / "demo"
CASE, GEOMETRY = read_case(DEMO), read_geometry(DEMO / "geometry.json")
NETWORK = GEOMETRY.coarser()
REFERENCE = read_reference(BUNDLE / "models" / "radiographs.json", NETWORK)
SIDE = GEOMETRY.detector_pixels
ROWS, COLUMNS = np.indices((SIDE, SIDE)) + 1
CENTRE, RADIUS = (SIDE // 2, SIDE // 2 + 3), 0.46 * SIDE
CORNERS = [(0.04, 0.3), (0.04, 0.75), (0.4, 0.97), (0.9, 0.8), (0.97, 0.4), (0.5, 0.03)]


def disc(shape=(SIDE, SIDE), centre=CENTRE, radius=RADIUS):
    rows, columns = np.indices(shape) + 1
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2


def hexagon(shape=(SIDE, SIDE)):
    """Inside of every side of a convex polygon."""
    rows, columns = np.indices(shape) / np.array(shape)[:, None, None]
    sides = zip(CORNERS, CORNERS[1:] + CORNERS[:1], strict=True)
    return np.all([(columns - x) * (v - y) <= (rows - y) * (u - x) for (y, x), (v, u) in sides], axis=0)


STATED = {
    "round": (disc(), {
        "ShutterShape": "CIRCULAR", "CenterOfCircularShutter": list(CENTRE), "RadiusOfCircularShutter": int(RADIUS),
    }),
    "polygonal": (hexagon(), {
        "ShutterShape": "POLYGONAL",
        "VerticesOfThePolygonalShutter": [round(c * SIDE) for corner in CORNERS for c in corner],
    }),
}  # fmt: skip


def exam(folder, inside=None, value=0, **header):
    """The demo as post-processed DICOM behind a shutter of this stored value."""
    folder.mkdir()
    for view, pixels in zip(VIEWS, CASE.line_integrals.numpy(), strict=True):
        path = folder / f"{view}.dcm"
        write_dx(path, pixels, view, GEOMETRY, simulated_header("demo", "exam"), FORMS["presentation"])
        if inside is not None:
            dataset = pydicom.dcmread(path)
            stored = dataset.pixel_array.copy()
            stored[~inside] = value
            dataset.PixelData = stored.tobytes()
            for keyword, element in header.items():
                setattr(dataset, keyword, element)
            dataset.save_as(path)
    return folder


def network_input(folder):
    return LoadExamd("image", NETWORK, reference=REFERENCE, factor=2)({"image": str(folder)})["image"]


def correlations(a, b, inside):
    """Of each view ``[u, w]``, over what the film ``[w, u]`` shows but its blurred edge."""
    well_inside = (
        inside & np.roll(inside, 3, 0) & np.roll(inside, -3, 0) & np.roll(inside, 3, 1) & np.roll(inside, -3, 1)
    )
    turned = well_inside.T[::-1, ::-1]
    return [np.corrcoef(x[turned], y[turned])[0, 1] for x, y in zip(np.asarray(a), np.asarray(b), strict=True)]


@pytest.mark.parametrize("value", [0, 4095])
@pytest.mark.parametrize("shape", STATED)
def test_a_stated_shutter_leaves_the_networks_input_as_it_is_inside(tmp_path, shape, value):
    inside, header = STATED[shape]
    image = network_input(exam(tmp_path / "behind", inside, value, **header))
    assert min(correlations(image, network_input(exam(tmp_path / "free")), inside)) >= 0.99


@pytest.mark.parametrize("shape", STATED)
def test_a_bright_shutter_of_any_shape_is_seen_where_the_header_is_silent(tmp_path, shape):
    inside, _ = STATED[shape]
    dataset = pydicom.dcmread(exam(tmp_path / "free") / "frontal.dcm")
    value = 0 if dataset.PhotometricInterpretation == "MONOCHROME1" else 2**dataset.BitsStored - 1
    image = network_input(exam(tmp_path / "behind", inside, value))
    assert min(correlations(image, network_input(tmp_path / "free"), inside)) >= 0.99


@pytest.mark.parametrize("end", [-1.0, 7.0])
@pytest.mark.parametrize("radius", [90, 110])
def test_a_round_surround_at_either_end_is_found_within_a_few_pixels(end, radius):
    inside = disc((200, 200), (100, 104), radius)
    found = inside_surround(np.where(inside, 1 + trunk(200, 9.0) / 2, end))
    assert not found[~inside].any()
    assert found[disc((200, 200), (100, 104), radius - 6)].all()


@pytest.mark.parametrize("height", [0.3, 9.0])
@pytest.mark.parametrize("form", [lambda p: p, as_display, as_measured])
def test_air_around_a_patient_and_clipped_bone_are_no_surround(form, height):
    film = form(trunk(200, height))
    assert inside_surround(film).all()
    assert inside_surround(np.minimum(film, 0.6 * film.max())).all()
