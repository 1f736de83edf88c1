"""From prepared cases to DICOM radiographs and, by way of our reader, back."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import pytest
from tests.refusal import refused

from scripts.cases.export_radiographs import export_case, find_cases, main
from scripts.dicom.write_radiograph import AIR_COUNTS, FORMS
from scripts.exam.acquisition import acquire_exam
from scripts.exam.rectify import rectify
from scripts.exam.views import find_exam
from scripts.io.case import read_case
from scripts.io.errors import SomeFailed

DEMO = Path(__file__).parents[2] / "bundle" / "docs" / "demo"


@pytest.fixture
def cases(tmp_path):
    for name in ("b", "a", ".hidden"):
        shutil.copytree(DEMO, tmp_path / "dataset" / "cases" / name)
    return tmp_path / "dataset" / "cases"


def read(folder):
    """Line integrals ``[2, N, N]`` of the exported films."""
    return np.stack([-np.log(film.pixels / AIR_COUNTS).T[::-1, ::-1] for film in find_exam(folder)[0].values()])


def rounding(image):
    """What half a count is as a line integral: an exported film counts photons, of which few pass much matter."""
    return 0.55 * np.exp(image) / AIR_COUNTS + 1e-4


def test_an_exported_case_is_read_as_the_two_views_it_was(tmp_path):
    export_case(DEMO, tmp_path / "out", FORMS["processing"])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["frontal.dcm", "lateral.dcm"]
    image = read_case(DEMO).line_integrals.numpy()
    assert (np.abs(read(tmp_path / "out") - image) <= rounding(image)).all()
    assert {pydicom.dcmread(p).PatientID for p in (tmp_path / "out").iterdir()} == {"demo"}


def test_an_exported_case_brought_into_its_own_geometry_is_the_case(tmp_path):
    case = read_case(DEMO)
    export_case(DEMO, tmp_path / "out", FORMS["processing"])
    for truth, (view, film) in zip(case.line_integrals.numpy(), find_exam(tmp_path / "out")[0].items(), strict=True):
        pixels = -np.log(film.pixels / AIR_COUNTS)
        image, covered = rectify(pixels, pixels < np.inf, acquire_exam({view: film}, {})[view], view, case.geometry)
        assert covered.all()
        assert (np.abs(image - truth) <= rounding(truth)).all()


def test_noise_is_that_of_the_seed_and_of_as_many_photons(tmp_path):
    truth = read_case(DEMO).line_integrals.numpy()
    for name, seed in (("a", 1), ("again", 1), ("other", 2)):
        export_case(DEMO, tmp_path / name, FORMS["processing"], photons=1e4, seed=seed)
    a, again, other = (read(tmp_path / name) for name in ("a", "again", "other"))
    assert np.array_equal(a, again) and not np.array_equal(a, other)
    z = (a - truth)[truth < 2] * np.sqrt(1e4 * np.exp(-truth[truth < 2]))
    assert 0.9 < z[truth[truth < 2] > 0.1].std() < 1.1


def test_cases_are_found_at_any_depth_and_hidden_ones_are_not(cases):
    assert find_cases(cases / "a") == [cases / "a"]
    assert [case.name for case in find_cases(cases)] == ["a", "b"]
    assert find_cases(cases.parent) == find_cases(cases)


@pytest.mark.parametrize(
    ("folder", "message"), [(None, "give --input"), ("absent", "give --input"), (".", "holds no prepared case")]
)
def test_no_case_is_refused(tmp_path, folder, message):
    with pytest.raises(ValueError, match=message):
        find_cases(folder and tmp_path / folder)


def test_two_cases_of_one_name_are_refused(cases):
    shutil.copytree(cases / "a", cases.parent / "more" / "a")
    with refused(ValueError, "cases/a", "more/a", "name"):
        find_cases(cases.parent)


def test_a_case_is_never_replaced_by_its_own_radiographs(cases):
    with refused(SomeFailed, "2 of 2 cases", "frontal.dcm", "replaced"):
        main(partial(find_cases, cases), cases)
    assert (cases / "a" / "frontal.nii.gz").is_file()


def test_one_bad_case_is_named_and_does_not_lose_the_others(cases, tmp_path):
    (cases / "a" / "lateral.nii.gz").unlink()
    with refused(SomeFailed, "1 of 2 cases", "lateral.nii.gz", "missing"):
        main(partial(find_cases, cases), tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b"]


@pytest.mark.parametrize(
    ("output", "form", "message"),
    [(None, "processing", "add --output_dir"), ("out", "png", "--form: .*processing, presentation")],
)
def test_mistakes_are_refused_before_the_first_case(cases, output, form, message):
    with pytest.raises(ValueError, match=message):
        main(partial(find_cases, cases), output, form)
