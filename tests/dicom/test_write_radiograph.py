"""Simulated radiographs are read back as what they were made of, and say that they are simulated."""

import shutil
import subprocess
from dataclasses import replace
from math import inf

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset

from scripts.dicom.read_radiograph import read_dicom_radiograph
from scripts.dicom.write_radiograph import AIR_COUNTS, FORMS, counts_of, simulated_header, write_dx
from scripts.geometry import VIEWS, BiplanarGeometry

GEOMETRY = BiplanarGeometry(785.0, 1200.0, 64, 4.8125, (8, 8, 8), 5.0)
SIDES = [("frontal", "anterior"), ("frontal", "posterior"), ("lateral", "right"), ("lateral", "left")]


def line_integrals(seed=0, n=64):
    """No symmetry, from 0 to 8."""
    ramp = np.add.outer(np.arange(n), 2 * np.arange(n)) / (3 * n - 3)
    return (7.5 * ramp + np.random.default_rng(seed).uniform(0, 0.5, (n, n))).astype(np.float32)


def write(path, view="frontal", geometry=GEOMETRY, form="processing", pixels=None, header=None):
    header = simulated_header("case 1", "exam") if header is None else header
    write_dx(path, line_integrals() if pixels is None else pixels, view, geometry, header, FORMS[form])
    return path


@pytest.mark.parametrize(("view", "side"), SIDES)
def test_line_integrals_come_back_within_half_a_count_and_the_geometry_exactly(tmp_path, view, side):
    film = read_dicom_radiograph(write(tmp_path / "a.dcm", view, replace(GEOMETRY, **{f"{view}_source": side})))
    assert (film.scale, film.view, film.source_side) == ("counts", view, side)
    assert film.orientation == {"frontal": "LF", "lateral": "PF"}[view]
    assert film.pixel_spacing_mm == (4.8125, 4.8125) and film.object_spacing_mm is None
    assert (film.source_to_patient_mm, film.source_to_detector_mm) == (785.0, 1200.0)
    assert film.warnings == ()
    p = line_integrals()
    read = -np.log(film.pixels / AIR_COUNTS).T[::-1, ::-1]  # columns against u or v, rows against w
    assert (np.abs(read - p) <= -np.log(1 - np.exp(p) / (2 * AIR_COUNTS)) + 1e-6).all()


def test_rounding_costs_at_most_a_fortieth_at_a_line_integral_of_8():
    p = np.linspace(0, 8, 100001)
    error = np.abs(-np.log(counts_of(p) / AIR_COUNTS) - p)
    assert error.max() <= 0.0252
    assert error[p <= 4].max() <= 0.00046


def test_starved_and_overexposed_pixels_are_clipped_to_what_16_bits_count():
    read = -np.log(counts_of(np.array([-0.5, 12.0, 100.0])) / AIR_COUNTS)
    np.testing.assert_allclose(read, [-0.0882, 11.0021, 11.0021], atol=1e-4)


def test_a_parallel_beam_states_no_distance(tmp_path):
    parallel = BiplanarGeometry(inf, inf, 64, 4.0, (8, 8, 8), 5.0)
    film = read_dicom_radiograph(write(tmp_path / "a.dcm", geometry=parallel))
    assert film.source_to_patient_mm is film.source_to_detector_mm is None


@pytest.mark.parametrize("view", VIEWS)
def test_for_presentation_only_the_order_of_line_integrals_is_left_and_bone_is_bright(tmp_path, view):
    film = read_dicom_radiograph(write(tmp_path / "a.dcm", view, form="presentation"))
    assert film.scale == "display"
    assert film.pixels.min() >= 0 and film.pixels.max() == 4095
    shown = film.pixels.T[::-1, ::-1].ravel()[np.argsort(line_integrals().ravel())]
    assert (np.diff(shown) >= 0).all()


def test_simpleitk_shows_bone_bright_and_the_head_up(tmp_path):
    """ITK turns MONOCHROME1 into values that grow with attenuation."""
    shown = sitk.GetArrayFromImage(sitk.ReadImage(write(tmp_path / "a.dcm")))[0]
    assert np.unravel_index(shown.argmax(), shown.shape)[0] < 10 < 54 < np.unravel_index(shown.argmin(), shown.shape)[0]


def test_both_views_are_of_one_patient_and_study_but_two_series(tmp_path):
    header = simulated_header("Pacjent ż", "exam")
    one, two = (pydicom.dcmread(write(tmp_path / view, view, header=header)) for view in VIEWS)
    assert one.PatientID == two.PatientID == "Pacjent ż"
    assert (one.StudyInstanceUID, one.StudyDate, one.StudyTime) == (two.StudyInstanceUID, two.StudyDate, two.StudyTime)
    assert one.SeriesInstanceUID != two.SeriesInstanceUID and one.SOPInstanceUID != two.SOPInstanceUID


def test_the_same_film_has_the_same_identifiers_and_another_has_new_ones(tmp_path):
    same, again = (pydicom.dcmread(write(tmp_path / name)) for name in "ab")
    assert same.SOPInstanceUID == again.SOPInstanceUID and same.StudyInstanceUID == again.StudyInstanceUID
    others = [{"pixels": line_integrals(1)}, {"geometry": replace(GEOMETRY, source_to_isocentre_mm=700)}]
    others += [{"form": "presentation"}, {"header": simulated_header("case 2", "exam")}]
    uids = [pydicom.dcmread(write(tmp_path / str(i), **other)).SOPInstanceUID for i, other in enumerate(others)]
    assert len({same.SOPInstanceUID, *uids}) == 5


def test_a_film_says_in_every_place_that_it_is_simulated(tmp_path):
    ds = pydicom.dcmread(write(tmp_path / "a.dcm"))
    assert (ds.SyntheticData, ds.ContentQualification) == ("YES", "RESEARCH")
    assert "NOT FOR DIAGNOSTIC USE" in ds.SeriesDescription and "NOT FOR DIAGNOSTIC USE" in ds.ImageComments
    assert ds.DerivationDescription == "Simulated by projecting a CT; I = 60000 exp(-line integral)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixels": line_integrals(n=20)}, r"\(20, 20\) .*detector_pixels = 64"),
        ({"pixels": line_integrals() * np.nan}, "NaN"),
        ({"pixels": line_integrals() * 100}, "must be line integrals"),
    ],
)
def test_what_is_no_radiograph_of_the_geometry_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=f"a.dcm: .*{message}"):
        write(tmp_path / "a.dcm", **change)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "n" * 65, "a\\b"])
def test_a_name_that_is_no_patient_id_is_refused(name):
    with pytest.raises(ValueError, match="rename the case"):
        simulated_header(name, "exam")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("view", "side"), SIDES)
@pytest.mark.parametrize("header", [None, Dataset()])
def test_the_validators_know_nothing_against_it(tmp_path, form, view, side, header):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian package dicom3tools)")
    path = write(tmp_path / "a.dcm", view, replace(GEOMETRY, **{f"{view}_source": side}), form, header=header)
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True)
    # the validator's standard is of 2022 and had no Synthetic Data, (0008,001C)
    lines = [line for line in done.stderr.splitlines() if "0008,0x001c" not in line]
    assert [
        line for line in lines if "Standard Extended SOP Class" not in line and not line.startswith("DXImage")
    ] == []
