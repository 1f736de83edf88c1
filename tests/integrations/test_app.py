"""The page for people who do not type, without a browser: what it accepts, shows, asks for and removes."""

import base64
import gzip
import io
import shutil
import threading
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from monai.bundle import ConfigWorkflow
from PIL import Image
from scipy.stats import spearmanr
from tests.integrations import films_app
from tests.integrations.films_app import finished
from tests.integrations.samples import DEMO

import scripts.inference.weights
from scripts.io.case import read_case
from scripts.report.planes import as_displayed

app, config_files, desk = films_app.app, films_app.config_files, films_app.desk
films, workflow = films_app.films, films_app.workflow
KEY = "the key of this server"
ORIGIN = "http://localhost"
GEOMETRY = {"source_to_detector_mm": "1200", "source_to_isocentre_mm": "785", "pixel_spacing_mm": "3,75"}
SIDES = {"source_side.frontal": "anterior", "source_side.lateral": "right"}
ANSWERS = {f"{name}.{view}": value for name, value in GEOMETRY.items() for view in ("frontal", "lateral")} | SIDES


class Page:
    """What a browser on the page can ask of the server."""

    def __init__(self, server):
        self.client = server.test_client()

    def get(self, address):
        return self.client.get(address)

    def post(self, address, origin=ORIGIN, **data):
        return self.client.post(address, data=data, headers={"Origin": origin} if origin else {})

    def drop(self, *files):
        """Drop files, each a path or ``(name, content)``; returns what the page shows then."""
        named = [(file.name, file.read_bytes()) if isinstance(file, Path) else file for file in files]
        answer = self.post("/films", films=[(io.BytesIO(content), name) for name, content in named])
        assert answer.status_code == 200, answer.text
        return answer.text


@pytest.fixture
def server(app, desk):
    return app["server"].create_app(desk, KEY)


@pytest.fixture
def page(server):
    page = Page(server)
    assert page.get(f"/enter/{KEY}").location == "/"
    return page


@pytest.fixture
def home(desk):
    """The folder of all that the page keeps."""
    return Path(desk._home.name)


def kept(home):
    return sorted(path.name for path in home.rglob("*") if path.is_file())


def test_two_films_become_the_series_of_the_command_line_with_the_network_loaded_before(
    page, desk, films, config_files, tmp_path, monkeypatch
):
    (tmp_path / "exam").mkdir()
    for film in films:
        shutil.copy(film, tmp_path / "exam")
    options = {"input": str(tmp_path / "exam"), "output_dir": str(tmp_path / "out"), "outputs": "nifti,dicom"}
    expected = ConfigWorkflow(config_files, workflow_type="inference", **options)
    expected.initialize()
    expected.run()

    monkeypatch.setattr(scripts.inference.weights, "load_weights", None)
    shown = page.drop(*films)
    assert 'data-phase="ready"' in shown and shown.count("<img") == 2
    assert "frontal.dcm" in shown and "in front (AP)" in shown
    assert 'data-phase="running"' in page.post("/start").text
    assert finished(desk).message == ""
    assert 'data-phase="done"' in page.get("/stage").text

    report = page.get("/result/report.html")
    assert report.mimetype == "text/html" and b"<canvas" in report.data
    assert report.headers["Content-Security-Policy"].startswith("sandbox allow-scripts;"), "without the page's rights"
    assert page.get("/").headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")

    volume = nib.Nifti1Image.from_bytes(gzip.decompress(page.get("/result/ct.nii.gz").data))
    assert np.array_equal(volume.get_fdata(), nib.load(tmp_path / "out" / "exam" / "ct.nii.gz").get_fdata())
    with zipfile.ZipFile(io.BytesIO(page.get("/result/ct-dicom.zip?save").data)) as archive:
        slices = {name: pydicom.dcmread(io.BytesIO(archive.read(name))) for name in archive.namelist() if "dcm" in name}
    assert len(slices) == volume.shape[2]
    for name, image in slices.items():
        same = pydicom.dcmread(tmp_path / "out" / "exam" / "dicom" / name)
        assert image.SOPInstanceUID == same.SOPInstanceUID and image.PixelData == same.PixelData


def test_nobody_without_the_key_is_answered(server, desk, films):
    desk.take([(films[0].name, films[0].open("rb"))])
    stranger = Page(server)
    for address in ("/", "/stage", "/page.js", "/result/ct.nii.gz", "/enter/another"):
        assert stranger.get(address).status_code == 403
        stranger.client.set_cookie("key-80", "another")
        assert stranger.get(address).status_code == 403


def test_other_origins_and_names_of_the_machine_are_refused_even_with_the_key(page, desk, films):
    page.drop(*films)
    for origin in (None, "http://evil.example", "http://localhost:8080", "null"):
        answer = page.post("/clear", origin=origin)
        assert answer.status_code == 403 and "page itself" in answer.text
    page.client.set_cookie("key-80", KEY, domain="evil.example")
    answer = page.client.get("/stage", base_url="http://evil.example")
    assert answer.status_code == 400 and "frontal.dcm" not in answer.text
    assert desk.stage.exam is not None


def test_the_server_listens_on_the_loopback_interface_alone(app, server):
    running = app["server"].server(server)
    assert running.socket.getsockname()[0] == "127.0.0.1"
    running.server_close()


def test_names_from_outside_name_nothing_outside(page, home, films):
    content = films[0].read_bytes()
    names = ["../../../etc/passwd", "..\\..\\x.dcm", "/tmp/y.dcm", "$import os.dcm", "@input", ".hidden", "", "x.dcm"]
    page.drop(*((name, content) for name in names))
    found = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    wanted = {"passwd", "x.dcm", "y.dcm", "import_os.dcm", "input", "hidden", "x-2.dcm", "unnamed"}
    assert found == {f"films/exam/{name}" for name in wanted}


def test_a_zip_is_one_of_the_forms_of_an_exam(page, films):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, film in enumerate(films):
            archive.write(film, f"disc/{number}/IM0001")
    shown = page.drop(("patient.zip", packed.getvalue()))
    assert 'data-phase="ready"' in shown and "IM0001-2" in shown


def test_what_the_films_do_not_say_is_asked_for(page, desk):
    shown = page.drop(DEMO / "frontal.nii.gz", DEMO / "lateral.nii.gz")
    assert "geometry is missing, and it is never guessed" in shown
    assert shown.count(">needed<") == 3, "two distances and the side; NIfTI has the rest"
    shown = page.post("/answers", **ANSWERS).text
    assert 'data-phase="ready"' in shown
    taken = desk.stage.exam.inputs["lateral"].acquisition
    assert (taken.source_to_detector_mm, taken.pixel_spacing_mm, taken.source_side) == (1200, (3.75, 3.75), "right")


def test_films_are_shown_upright_with_bright_bone(desk, films):
    upright = as_displayed(read_case(DEMO).line_integrals[0].numpy())
    for film in (DEMO / "frontal.nii.gz", films[0]):
        with film.open("rb") as content:
            desk.take([(film.name, content)])
        encoded = desk.stage.films[0].picture.source.partition(",")[2]
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("L"))
        assert spearmanr(shown, upright, axis=None).statistic > 0.99


def test_the_view_is_asked_for_and_the_other_film_has_the_other_one(page, desk):
    a, b = (DEMO / f"{view}.nii.gz" for view in ("lateral", "frontal"))
    shown = page.drop(("a.nii.gz", a.read_bytes()), ("b.nii.gz", b.read_bytes()))
    assert "neither the file nor its name tells" in shown and shown.count(">needed<") == 1
    page.post("/answers", frontal="b.nii.gz", **ANSWERS)
    files = {view: Path(given.film.file).name for view, given in desk.stage.exam.inputs.items()}
    assert files == {"frontal": "b.nii.gz", "lateral": "a.nii.gz"}


def test_an_answer_that_is_none_is_refused(page, desk, films):
    page.drop(*films)
    for answer, words in (
        ({"source_to_detector_mm.frontal": "$__import__('os').getpid()"}, "give a number like 1800"),
        ({"orientation.frontal": "@seed"}, "choose one of the list"),
        ({"source_side.lateral": "anterior"}, "choose one of the list"),
        ({"frontal": "../../etc/passwd"}, "choose one of the films on the page"),
        ({"source_to_detector_mm.frontal": "nan"}, "a positive distance in mm"),
        ({"source_to_isocentre_mm.frontal": "78"}, "nearer than any tube"),
    ):
        page.post("/answers", **answer)
        assert words in desk.stage.message and desk.stage.exam is None


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (lambda films: [films[0], ("notes.dcm", b"no film " * 100)], "notes.dcm: starts with"),
        (lambda films: films[:1], "an exam is two radiographs"),
        (lambda films: [films[0], films[0]], "both are frontal views"),
        (lambda films: [("notes.txt", b"no film")], "holds no radiographs"),
        (lambda films: [("films.zip", b"PK no zip")], "films.zip: not a readable zip"),
    ],
)
def test_what_is_no_exam_is_refused_in_the_words_of_the_command_line(page, desk, home, films, files, words):
    shown = page.drop(*files(films))
    assert words in desk.stage.message and 'data-phase="refused"' in shown
    assert "Traceback" not in shown and str(home / "films" / "exam") + "/" not in shown
    page.post("/start")
    assert not desk.stage.running, "there is nothing to start"


def test_an_error_that_is_not_the_user_s_goes_to_the_terminal(page, desk, films, workflow, monkeypatch, caplog):
    def fail(*args):
        raise RuntimeError("its reason")

    page.drop(*films)
    monkeypatch.setattr(workflow, "run", fail)
    page.post("/start")
    assert finished(desk).message == "unexpected RuntimeError; the terminal says more"
    assert "its reason" in caplog.text and "its reason" not in page.get("/stage").text


def test_an_exam_goes_with_the_next_one_with_the_button_and_with_the_program(app, workflow, page, desk, home, films):
    page.drop(*films)
    page.drop(("other.dcm", films[1].read_bytes()))
    assert kept(home) == ["other.dcm"]
    page.post("/clear")
    assert kept(home) == [] and 'data-phase="empty"' in page.get("/stage").text
    page.drop(*films)
    desk.close()
    assert not home.exists()


def test_nothing_interferes_with_a_run_and_the_end_of_the_program_stops_it(
    page, desk, home, films, workflow, monkeypatch
):
    started, go_on = threading.Event(), threading.Event()

    def run(options, output_dir, callback):
        callback(0, 4)
        started.set()
        go_on.wait(30)
        callback(1, 4)

    monkeypatch.setattr(workflow, "run", run)
    page.drop(*films)
    page.post("/start")
    assert started.wait(30)
    for address in ("/films", "/answers", "/start", "/clear"):
        assert page.post(address).status_code == 409
    assert "1 of 4 steps done" in page.get("/stage").text and 'value="0.25"' in page.get("/stage").text
    threading.Timer(0.05, go_on.set).start()
    desk.close()
    assert desk.stage.share == 0.25 and not home.exists()


def test_an_upload_beyond_the_limit_is_refused(app, desk, films):
    page = Page(app["server"].create_app(desk, KEY, max_bytes=10_000))
    page.get(f"/enter/{KEY}")
    assert page.post("/films", films=[(io.BytesIO(films[0].read_bytes()), "a.dcm")]).status_code == 413
    assert desk.stage.films == []
