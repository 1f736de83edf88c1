"""What of a folder belongs to an exam, and what only lies there."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom.fileset import FileSet
from tests.dicom.dicom_files import film, write_radiograph
from tests.refusal import refused

from scripts.exam.contents import acquisition_files, exams_in, is_one_exam, passed_over, radiographs
from scripts.exam.views import find_exam

VIEWS = (("IM0", "PA"), ("IM1", "LL"))


def write_exam(folder):
    folder.mkdir(parents=True)
    return [write_radiograph(folder / n, pixels=film(seed=i), ViewPosition=view) for i, (n, view) in enumerate(VIEWS)]


@pytest.fixture
def disc(tmp_path):
    """A patient's disc: its directory, the images far below, and a viewer with icons."""
    root = tmp_path / "cd"
    write_exam(root / "DICOM" / "PAT0" / "STU0" / "SER0")
    FileSet().write(root)
    (root / "VIEWER" / "icons").mkdir(parents=True)
    Image.fromarray(film(bits=8)).save(root / "VIEWER" / "icons" / "open.png")
    (root / "VIEWER" / "viewer.exe").write_bytes(b"MZ")
    (root / "AUTORUN.INF").write_text("[autorun]")
    return root


def test_a_disc_is_one_exam_of_the_dicom_files_on_it(disc):
    assert is_one_exam(disc)
    assert [path.name for path in radiographs(disc)] == ["IM0", "IM1"]
    assert set(find_exam(disc)[0]) == {"frontal", "lateral"}


def test_discs_may_be_a_batch(disc):
    other = disc.parent / "cd2"
    write_exam(other / "DICOM" / "A")
    assert not is_one_exam(disc.parent)
    assert exams_in(disc.parent) == [disc, other]


def test_a_disc_without_its_directory_is_read_below_its_folder_of_images(disc):
    (disc / "DICOMDIR").unlink()
    assert [path.name for path in radiographs(disc / "DICOM")] == ["IM0", "IM1"]


def test_results_in_the_folder_of_an_exam_do_not_belong_to_it(tmp_path):
    films = write_exam(tmp_path / "p1")
    for place in ("p1/p1", "p1/out/p1"):
        write_exam(tmp_path / place / "dicom")
        (tmp_path / place / "result.json").touch()
        (tmp_path / place / "acquisition.json").touch()
    (tmp_path / "p1" / "summary.csv").touch()
    assert radiographs(tmp_path / "p1") == films
    assert acquisition_files(tmp_path / "p1") == []
    assert is_one_exam(tmp_path / "p1")
    assert exams_in(tmp_path) == [tmp_path / "p1"]


def test_two_sub_folders_with_a_film_each_are_one_exam_beside_its_own_results(tmp_path):
    for name, view in VIEWS:
        (tmp_path / name).mkdir()
        write_radiograph(tmp_path / name / "IM", ViewPosition=view)
    write_exam(tmp_path / "out" / "exam")
    (tmp_path / "out" / "exam" / "result.json").touch()
    (tmp_path / "out" / "summary.csv").touch()
    assert is_one_exam(tmp_path)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_folders_of_packed_films_are_exams_however_many(tmp_path, count):
    folders = [tmp_path / f"p{number}" for number in range(count)]
    for folder in folders:
        folder.mkdir()
        nib.save(nib.Nifti1Image(np.ones((70, 70, 2), np.float32), np.eye(4)), folder / "packed.nii.gz")
    assert not is_one_exam(tmp_path) and exams_in(tmp_path) == folders


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *itertools.product(["frontal.png", "frontal.dcm", "frontal.nii.gz"], [b"", b"damaged"]),
        ("IM0000", b""),  # once damaged, nothing tells that it was a film
    ],
)
def test_no_other_film_is_read_in_the_place_of_a_damaged_one(tmp_path, name, content):
    write_exam(tmp_path / "exam")
    (tmp_path / "exam" / name).write_bytes(content)
    with refused(ValueError, "got 3", name):
        find_exam(tmp_path / "exam")
    (tmp_path / "exam" / "IM0").unlink()
    with refused(ValueError, f"{name}: "):
        find_exam(tmp_path / "exam")


def test_empty_and_damaged_pictures_of_a_discs_viewer_are_no_films(disc):
    for name in ("close.png", "zoom.jpg"):
        (disc / "VIEWER" / "icons" / name).write_bytes(b"damaged" if name == "close.png" else b"")
    assert [path.name for path in radiographs(disc)] == ["IM0", "IM1"]


def test_an_empty_file_makes_no_exam_of_a_batch_and_none_of_an_output(tmp_path):
    write_exam(tmp_path / "p1")
    (tmp_path / "out").mkdir()
    for name in ("1", "out/log.1", "out/summary.csv"):
        (tmp_path / name).touch()
    assert not is_one_exam(tmp_path) and exams_in(tmp_path) == [tmp_path / "p1"]


def test_files_that_are_passed_over_are_named_where_a_film_is_missing(tmp_path):
    exam = tmp_path / "exam"
    films = write_exam(exam)
    (exam / "acquisition.json").write_text("{}")
    Image.fromarray(film(bits=8)).save(exam / "lateral.bmp")
    assert passed_over(exam) == [exam / "lateral.bmp"]
    assert len(find_exam(exam)[0]) == 2
    films[1].unlink()
    with refused(ValueError, "got 1", "IM0", "besides", "lateral.bmp, not taken for radiographs"):
        find_exam(exam)


def test_links_in_a_circle_are_followed_once(tmp_path):
    films = write_exam(tmp_path / "a" / "b")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
    assert radiographs(tmp_path / "a") == films
