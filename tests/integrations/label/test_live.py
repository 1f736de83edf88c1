"""A real MONAI Label server on the loopback interface, asked over HTTP; ``make test-label`` runs it.

``LABEL_PYTHON`` is the interpreter of the server's environment; ``LABEL_EXAM``, if set, the folder of two DICOM
radiographs to send besides the demo case.
"""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests
import torch
from monai.bundle import ConfigParser

from scripts.data.export import export_case
from scripts.geometry import VIEWS, read_geometry
from scripts.io.case import read_case
from scripts.io.dicom_series import read_series
from scripts.io.dx_image import FORMS

BUNDLE = Path(__file__).parents[3] / "bundle"
DEMO = BUNDLE / "docs" / "demo"
SERVER = os.environ.get("LABEL_PYTHON")
DICOM_EXAMS = ["demo"] + (["given"] if os.environ.get("LABEL_EXAM") else [])
EXAMS = [*DICOM_EXAMS, "packed"]
STOCK = {"models": "biplanar_ct", "zoo_source": "local", "sam2": "false", "skip_trainers": "true"}
SECONDS_TO_START = 300

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SERVER, reason="LABEL_PYTHON is not set; `make test-label` sets it"),
]


class Client:
    """Requests to a running server."""

    def __init__(self, url):
        self.url, self.http = url, requests.Session()
        self.http.trust_env = False  # no proxy

    def models(self):
        return self.http.get(f"{self.url}/info/").json()["models"]

    def session(self, *files):
        """Uploads files, each ``(name, bytes)``; returns the session's number."""
        answer = self.http.put(f"{self.url}/session/", files=[("files", file) for file in files])
        answer.raise_for_status()
        return answer.json()["session_id"]

    def infer(self, session="", output="image", file=None, **params):
        return self.http.post(
            f"{self.url}/infer/biplanar_ct",
            params={"session_id": session, "output": output, "image": "" if session or file else "none"},
            data={"params": json.dumps(params)},
            files=file and {"file": file},
        )


@contextmanager
def running(app, folder, conf):
    """A server, which is ended in any case."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {"TMPDIR": folder / "tmp", "MONAI_LABEL_SESSION_PATH": folder / "sessions"}
    for place in places.values():
        place.mkdir()
    command = [os.path.abspath(SERVER), "-m", "monailabel.main", "start_server", "--app", app, "--port", port]
    command += ["--host", "127.0.0.1", "--studies", folder / "studies"]
    command += [word for name, value in conf.items() for word in ("--conf", name, value)]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **{name: str(place) for name, place in places.items()}},
        )
    try:
        client, deadline = Client(f"http://127.0.0.1:{port}"), time.monotonic() + SECONDS_TO_START
        while not answers(client):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log.txt").read_text()[-3000:]
            time.sleep(0.5)
        yield client
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(client):
    try:
        return bool(client.models())
    except requests.ConnectionError:
        return False


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """The stock app with the bundle in its folder of models: a client, and that folder."""
    folder = tmp_path_factory.mktemp("stock")
    prefix = subprocess.check_output([SERVER, "-c", "import sys; print(sys.prefix)"], text=True).strip()
    shutil.copytree(Path(prefix, "monailabel", "sample-apps", "monaibundle"), folder / "app")
    shutil.copytree(BUNDLE, folder / "app" / "model" / "biplanar_ct")
    with running(folder / "app", folder, STOCK) as client:
        yield client, folder / "app" / "model" / "biplanar_ct"


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Our own app in a copy of the bundle: a client, and the bundle."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copytree(BUNDLE, folder / "bundle")
    with running(folder / "bundle" / "integrations" / "monailabel", folder, {}) as client:
        yield client, folder / "bundle"


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """By the name of an exam, its folder: the demo case as DICOM and as one NIfTI file, and what was given."""
    folder = tmp_path_factory.mktemp("films")
    export_case(DEMO, folder / "demo", FORMS["processing"])
    pack(folder / "packed")
    return {"demo": folder / "demo", "packed": folder / "packed", "given": Path(os.environ.get("LABEL_EXAM", ""))}


@pytest.fixture(scope="module")
def expected(films, tmp_path_factory):
    """By the name of an exam, what the command line makes of it."""
    output, volumes = tmp_path_factory.mktemp("cli"), {}
    for name in EXAMS:
        command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", BUNDLE / "configs" / "inference.json"]
        options = [f"--input={films[name]}", f"--output_dir={output / name}", "--outputs=nifti", "--seed=0"]
        subprocess.run([*command, *options], check=True)
        (file,) = (output / name).glob("*/ct.nii.gz")
        volumes[name] = nib.load(file)
    return volumes


def contents(folder):
    return [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]


def zipped(folder):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in contents(folder):
            archive.writestr(name, content)
    return "exam.zip", file.getvalue()


def pack(folder):
    """The demo case as one file of both views, and how they were taken."""
    image, geometry = read_case(DEMO).image.numpy(), read_geometry(DEMO / "geometry.json")
    both = nib.Nifti1Image(np.moveaxis(image, 0, -1), np.diag([geometry.detector_spacing_mm] * 2 + [1, 1]))
    told = {name: getattr(geometry, name) for name in ("source_to_isocentre_mm", "source_to_detector_mm")}
    told["source_side"] = {view: getattr(geometry, f"{view}_source") for view in VIEWS}
    folder.mkdir()
    nib.save(both, folder / "both.nii.gz")
    (folder / "acquisition.json").write_text(json.dumps(told))


def volume(answer, tmp_path):
    """The NIfTI image of an answer, which must be a success, in int16."""
    assert answer.status_code == 200, answer.text[-1000:]
    (tmp_path / "answer.nii.gz").write_bytes(answer.content)
    image = nib.load(tmp_path / "answer.nii.gz")
    assert image.get_data_dtype() == np.int16
    return image


def assert_same(found, reference):
    np.testing.assert_allclose(found.affine, reference.affine, atol=1e-3)
    difference = np.abs(found.get_fdata() - reference.get_fdata())
    print(f"served against command line: {difference.max():.0f} HU at most, {difference.mean():.3f} on average")
    assert difference.max() <= 1


def test_each_server_offers_the_one_model(stock, own):
    for client, _ in (stock, own):
        assert list(client.models()) == ["biplanar_ct"]


@pytest.mark.parametrize("exam", EXAMS)
@pytest.mark.parametrize("server", ["stock", "own"])
def test_two_radiographs_of_a_session_become_the_command_line_s_ct(server, exam, films, expected, tmp_path, request):
    client, _ = request.getfixturevalue(server)
    assert_same(volume(client.infer(client.session(*contents(films[exam]))), tmp_path), expected[exam])


@pytest.mark.parametrize("server", ["stock", "own"])
def test_a_zip_in_a_session_is_an_exam(server, films, expected, tmp_path, request):
    client, _ = request.getfixturevalue(server)
    assert_same(volume(client.infer(client.session(zipped(films["demo"]))), tmp_path), expected["demo"])


def test_the_stock_app_takes_a_zip_with_the_request_and_files_by_view(stock, films, expected, tmp_path):
    client, _ = stock
    assert_same(volume(client.infer(file=zipped(films["demo"])), tmp_path), expected["demo"])
    by_view = {view: str(films["demo"] / f"{view}.dcm") for view in VIEWS}
    assert_same(volume(client.infer(image=by_view), tmp_path), expected["demo"])


@pytest.mark.parametrize("exam", DICOM_EXAMS)
def test_our_app_answers_with_a_dicom_series_of_the_radiographs_study(own, exam, films, expected, tmp_path):
    client, _ = own
    answer = client.infer(client.session(*contents(films[exam])), format="dicom")
    assert answer.status_code == 200, answer.text
    zipfile.ZipFile(io.BytesIO(answer.content)).extractall(tmp_path)
    slices = sorted(tmp_path.glob("*.dcm"))
    hu, affine = read_series(slices)
    assert_same(nib.Nifti1Image(hu, affine).as_reoriented(nib.io_orientation(affine)), expected[exam])
    sources = {pydicom.dcmread(path).StudyInstanceUID for path in films[exam].iterdir()}
    assert {pydicom.dcmread(path).StudyInstanceUID for path in slices} == sources


def test_our_app_tells_how_the_volume_was_made(own, films):
    client, bundle = own
    answer = client.infer(client.session(*contents(films["demo"])), output="json")
    record = answer.json()
    assert record["seed"] == 0 and "NOT FOR DIAGNOSTIC USE" in record["notice"]
    assert record["bundle"]["version"] == json.loads((bundle / "configs" / "metadata.json").read_text())["version"]


def test_our_app_reads_nothing_but_uploads(own, films):
    client, _ = own
    for image in (str(films["demo"]), {view: str(films["demo"] / f"{view}.dcm") for view in VIEWS}):
        answer = client.infer(image=image)
        assert answer.status_code == 422 and "was not uploaded" in answer.json()["detail"]
    answer = client.infer(file=zipped(films["demo"]))
    assert answer.status_code == 422 and "PUT /session/" in answer.json()["detail"]


def test_a_file_s_name_does_not_lead_out_of_its_session(own, films, expected, tmp_path):
    client, _ = own
    (_, frontal), (_, lateral) = contents(films["demo"])
    session = client.session((f"../../../../..{tmp_path}/frontal.dcm", frontal), ("../../lateral.dcm", lateral))
    assert not list(tmp_path.iterdir())
    assert_same(volume(client.infer(session), tmp_path), expected["demo"])


@pytest.mark.parametrize(("server", "status"), [("stock", 500), ("own", 422)])
def test_half_an_exam_is_an_error(server, status, films, request):
    client, _ = request.getfixturevalue(server)
    answer = client.infer(client.session(contents(films["demo"])[0]))
    assert answer.status_code == status
    assert server == "stock" or "an exam is two radiographs" in answer.json()["detail"]


@pytest.mark.parametrize("server", ["stock", "own"])
def test_wrong_weights_are_an_error_and_not_a_volume(server, films, tmp_path, request):
    client, bundle = request.getfixturevalue(server)
    weights, session = bundle / "models" / "model.pt", client.session(*contents(films["demo"]))
    right = weights.read_bytes()
    state = torch.load(weights, weights_only=True)
    config = ConfigParser.load_config_file(bundle / "configs" / "inference.json")
    untrained = ConfigParser(config).get_parsed_content("network_def").state_dict()
    wrong = {
        "of another network": ({f"other.{name}": value for name, value in state.items()}, 500),
        "of another geometry": (state | {"geometry": state["geometry"] + 1}, 500),
        "untrained": (untrained, 500 if server == "stock" else 422),
    }
    try:
        for name, (other, status) in wrong.items():
            torch.save(other, weights)
            assert client.infer(session).status_code == status, name
    finally:
        weights.write_bytes(right)
    volume(client.infer(session), tmp_path)
