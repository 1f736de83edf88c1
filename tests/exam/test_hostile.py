"""Whatever an exam is, it becomes one finite image or one line that says what is wrong with it, and leaves no trace."""

import os
import re
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.exam.bad_exams import (
    BAD_EXAMS,
    GEOMETRY,
    LINE_INTEGRALS,
    TOLD,
    write_films,
    write_nifti,
    write_pictures,
    zipped,
)
from tests.refusal import refused

from scripts.exam.exam import exam_of
from scripts.exam.familiarity import read_reference
from scripts.exam.find import find_exams
from scripts.exam.load import FilmOptions, LoadExamd
from scripts.exam.views import BOTH
from scripts.geometry import VIEWS
from scripts.io import archive, nifti_radiograph

MAX_CPU_S, MAX_WALL_S = 10, 120
MAX_MESSAGE = 1000
pytestmark = pytest.mark.filterwarnings("ignore")


REFERENCE = read_reference(Path(__file__).parents[2] / "bundle" / "models" / "radiographs.json", GEOMETRY)


def load(source, options=FilmOptions(), choice=BOTH):  # noqa: B008
    """The images of a source's exams."""
    transform = LoadExamd("image", GEOMETRY, options, REFERENCE, choice)
    return [transform(item)["image"] for item in find_exams(source, choice=choice)]


def listing(folder):
    """Everything in a folder with its kind and size, however deep."""
    found, todo = {}, [os.fspath(folder)]
    while todo:
        for entry in os.scandir(todo.pop()):
            status = entry.stat(follow_symlinks=False)
            found[entry.path] = status.st_mode, entry.is_dir(follow_symlinks=False) or status.st_size
            if entry.is_dir(follow_symlinks=False):
                todo.append(entry.path)
    return found


def cpu_s():
    return sum(os.times()[:4])


@pytest.fixture
def box(tmp_path, monkeypatch):
    """An empty folder beside which all else is made, be it for a moment; with bounds small enough to be tested."""
    (tmp_path / "in" / "exam").mkdir(parents=True)
    (tmp_path / "temp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    monkeypatch.chdir(tmp_path / "in")
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 2**24)
    monkeypatch.setattr(nifti_radiograph, "MAX_FILE_BYTES", 2**24)

    def stop(*_):
        raise AssertionError(f"not done after {MAX_WALL_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(MAX_WALL_S)
    yield tmp_path / "in" / "exam"
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("exam", BAD_EXAMS, ids=lambda exam: exam.name[:60])
def test_a_bad_exam_is_refused_in_one_line_that_names_it_and_leaves_nothing_behind(box, exam):
    made = exam.make(box)
    source = str(box) if made is None else made
    top = box.parents[1]
    before, start = listing(top), cpu_s()
    with pytest.raises(ValueError) as refusal:
        load(source, choice=exam.choice)
    assert cpu_s() - start < MAX_CPU_S
    assert listing(top) == before
    message = str(refusal.value)
    assert len(message) < MAX_MESSAGE, message
    assert message.isprintable(), repr(message)
    assert re.search(exam.message, message), message


@pytest.mark.parametrize("name", ["exam", "exam/frontal.dcm"])
def test_what_may_not_be_read_is_refused_with_its_name(box, name):
    write_films(box)
    path = box.parent / name
    path.chmod(0)
    try:
        if os.access(path, os.R_OK):
            pytest.skip("this user may read everything")
        with refused(ValueError, str(path), "Permission denied", "permissions"):
            load(str(box))
    finally:
        path.chmod(0o700)


def test_what_fails_to_open_in_a_folder_is_refused_with_its_name(box, monkeypatch):
    """As the last test, for users that may read everything."""
    write_films(box)

    def denied(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.open", denied)
    with refused(ValueError, "frontal.dcm", "Permission denied", "permissions"):
        load(str(box))


def test_identities_like_paths_are_text_and_touch_no_file(box):
    keywords = ["PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
    identity = dict.fromkeys(keywords, "../../../etc/passwd")
    write_films(box, frontal=identity, lateral=identity)
    before = listing(box.parents[1])
    (image,) = load(str(box))
    assert listing(box.parents[1]) == before
    exam = exam_of(image)
    assert exam.name == "exam" and exam.headers["frontal"].PatientID == "../../../etc/passwd"


def test_a_swapped_name_is_overruled_by_the_header_and_said(box):
    write_films(box)
    (box / "frontal.dcm").rename(box / "x.dcm")
    (box / "lateral.dcm").rename(box / "frontal.dcm")
    (box / "x.dcm").rename(box / "lateral.dcm")
    (image,) = load(str(box))
    warning = next(w for w in exam_of(image).warnings if "lateral.dcm" in w and "frontal" in w)
    assert "name" in warning


def dicom_exam(folder):
    write_films(folder)
    return folder / "frontal.dcm", {view: str(folder / f"{view}.dcm") for view in VIEWS}


def picture_exam(folder):
    write_pictures(folder)
    return folder / "frontal.png", {view: str(folder / f"{view}.png") for view in VIEWS}


def nifti_exam(folder):
    write_nifti(folder / "packed.nii", np.stack(list(LINE_INTEGRALS.values()), -1))
    return folder / "packed.nii", str(folder / "packed.nii")


def zip_exam(folder):
    (folder / "packed.zip").write_bytes(zipped(folder))
    return folder / "packed.zip", str(folder / "packed.zip")


PLACES = st.integers(0, 600) | st.integers(-600, -1) | st.floats(0, 1)
CHANGES = st.lists(
    st.tuples(st.sampled_from(["overwrite", "insert", "remove", "end"]), PLACES, st.binary(min_size=1, max_size=8)),
    min_size=1,
    max_size=4,
)


def mutated(data, changes):
    """``data`` after each change: what, where (share of the length, or bytes from either end), with what."""
    for what, place, new in changes:
        at = int(place * len(data)) if isinstance(place, float) else max(0, place + len(data) * (place < 0))
        skipped = {"overwrite": len(new), "insert": 0, "remove": len(new), "end": len(data)}[what]
        data = data[:at] + (b"" if what in ("remove", "end") else new) + data[at + skipped :]
    return data


@pytest.mark.parametrize("make", [dicom_exam, picture_exam, nifti_exam, zip_exam])
def test_a_mutated_file_is_a_finite_image_or_a_refusal_by_its_name(box, make):
    path, source = make(box)
    good = path.read_bytes()
    top = box.parents[1]
    names = set(listing(top))

    @settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=HealthCheck)
    @given(CHANGES)
    def check(changes):
        signal.alarm(MAX_WALL_S)
        path.write_bytes(mutated(good, changes))
        try:
            (image,) = load(source, FilmOptions(acquisition=TOLD))
        except ValueError as error:
            assert path.name in str(error)
            assert len(str(error)) < MAX_MESSAGE
            assert str(error).isprintable()
        else:
            assert image.shape == (2, GEOMETRY.detector_pixels, GEOMETRY.detector_pixels)
            assert np.isfinite(image.numpy()).all()
        assert set(listing(top)) == names

    check()
