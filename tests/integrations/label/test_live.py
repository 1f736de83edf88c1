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
import tarfile
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
from tests.integrations.samples import BUNDLE, DEMO, SERVED, packed, trained, without_biases, zipped

from scripts.cases.export_radiographs import export_case
from scripts.dicom.read_ct import read_series
from scripts.dicom.write_radiograph import FORMS
from scripts.geometry import VIEWS

SERVER = os.environ.get("LABEL_PYTHON")
DICOM_EXAMS = ["demo"] + (["given"] if os.environ.get("LABEL_EXAM") else [])
EXAMS = [*DICOM_EXAMS, "packed"]
STOCK = {"models": "biplanar_ct", "zoo_source": "local", "sam2": "false", "skip_trainers": "true"}
OWN = Path("integrations", "monailabel")
SECONDS_TO_START = 300

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SERVER, reason="LABEL_PYTHON is not set; `make test-label` sets it"),
]


class Client:
    """Requests to a server that runs in a folder."""

    def __init__(self, url, folder):
        self.url, self.folder, self.http = url, folder, requests.Session()
        self.http.trust_env = False  # no proxy

    def models(self):
        return self.http.get(f"{self.url}/info/").json()["models"]

    def put(self, address, *files, **params):
        """Uploads files, each ``(name of the form's field, (name, bytes))``."""
        return self.http.put(f"{self.url}/{address}", files=files, params=params)

    def session(self, *files):
        """Uploads files, each ``(name, bytes)``; returns the session's number."""
        answer = self.put("session/", *[("files", file) for file in files])
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
def started(app, folder, conf):
    """A server's process and its address; it is ended in any case. What it says is in ``folder/log.txt``."""
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
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def running(app, folder, conf):
    """A client of a server that has come up."""
    with started(app, folder, conf) as (process, url):
        client, deadline = Client(url, folder), time.monotonic() + SECONDS_TO_START
        while not answers(client):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log.txt").read_text()[-3000:]
            time.sleep(0.5)
        yield client


def answers(client):
    try:
        return bool(client.models())
    except requests.ConnectionError:
        return False


def copied(folder, *parts):
    """The bundle, with as much of it as is to be served."""
    for part in (*SERVED, *parts):
        shutil.copytree(BUNDLE / part, folder / part)
    return folder


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """The stock app with the bundle in its folder of models: a client, and that folder."""
    folder = tmp_path_factory.mktemp("stock")
    prefix = subprocess.check_output([SERVER, "-c", "import sys; print(sys.prefix)"], text=True).strip()
    shutil.copytree(Path(prefix, "monailabel", "sample-apps", "monaibundle"), folder / "app")
    bundle = copied(folder / "app" / "model" / "biplanar_ct")
    with running(folder / "app", folder, STOCK) as client:
        yield client, bundle


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Our own app in a copy of the bundle: a client, and the bundle."""
    folder = tmp_path_factory.mktemp("own")
    bundle = copied(folder / "bundle", OWN)
    with running(bundle / OWN, folder, {}) as client:
        yield client, bundle


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """By the name of an exam, its folder: the demo case as DICOM and as one NIfTI file, and what was given."""
    folder = tmp_path_factory.mktemp("films")
    export_case(DEMO, folder / "demo", FORMS["processing"])
    packed(folder / "packed")
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


def exam(films, folder):
    """The demo case as a zip: its name and bytes."""
    return "exam.zip", zipped(films["demo"], folder).read_bytes()


def hostile():
    """A tar with a link to a file of the server, and with a file for the folder above."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        link, outside = tarfile.TarInfo("frontal.dcm"), tarfile.TarInfo("../escaped.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
        archive.addfile(outside, io.BytesIO())
    return file.getvalue()


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
    assert_same(volume(client.infer(client.session(exam(films, tmp_path))), tmp_path), expected["demo"])


def test_the_stock_app_takes_a_zip_with_the_request_and_files_by_view(stock, films, expected, tmp_path):
    client, _ = stock
    assert_same(volume(client.infer(file=exam(films, tmp_path)), tmp_path), expected["demo"])
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


def test_our_app_reads_nothing_but_uploads(own, films, tmp_path):
    client, _ = own
    for image in (str(films["demo"]), {view: str(films["demo"] / f"{view}.dcm") for view in VIEWS}):
        answer = client.infer(image=image)
        assert answer.status_code == 422 and "was not uploaded" in answer.json()["detail"]
    answer = client.infer(file=exam(films, tmp_path))
    assert answer.status_code == 422 and "PUT /session/" in answer.json()["detail"]


@pytest.mark.parametrize(("server", "status"), [("stock", 200), ("own", 422)])
def test_an_archive_with_links_and_names_that_lead_out_is_unpacked_by_the_stock_app_alone(server, status, request):
    client, _ = request.getfixturevalue(server)
    answer = client.put("session/", ("files", ("exam.tar", hostile())), uncompress="true")
    assert answer.status_code == status, answer.text
    assert server == "stock" or "without uncompress" in answer.json()["detail"]
    assert (client.folder / "tmp" / "escaped.txt").exists() == (server == "stock")
    assert any(path.is_symlink() for path in (client.folder / "sessions").rglob("*")) == (server == "stock")


@pytest.mark.parametrize(("server", "status"), [("stock", 200), ("own", 404)])
def test_a_file_is_written_beside_the_studies_by_the_stock_app_alone(server, status, request):
    client, _ = request.getfixturevalue(server)
    answer = client.put("datastore/image", ("file", ("x.py", b"")), image="../escaped")
    assert answer.status_code == status and (client.folder / "escaped.py").exists() == (server == "stock")


@pytest.mark.parametrize(("server", "status"), [("stock", 200), ("own", 404)])
def test_weights_are_replaced_by_a_request_to_the_stock_app_alone(server, status, request):
    client, bundle = request.getfixturevalue(server)
    weights = bundle / "models" / "model.pt"
    right = weights.read_bytes()
    answer = client.put("model/biplanar_ct", ("file", ("model.pt", b"others")))
    replaced = weights.read_bytes() != right
    weights.write_bytes(right)
    assert answer.status_code == status and replaced == (server == "stock")


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
    weights, session, state = bundle / "models" / "model.pt", client.session(*contents(films["demo"])), trained()
    right = weights.read_bytes()
    config = ConfigParser.load_config_file(bundle / "configs" / "inference.json")
    wrong = {
        "of another network": {f"other.{name}": value for name, value in state.items()},
        "of another geometry": state | {"geometry": state["geometry"] + 1},
        "untrained": ConfigParser(config).get_parsed_content("network_def").state_dict(),
    }
    try:
        for name, other in wrong.items():
            torch.save(other, weights)
            answer = client.infer(session)
            assert answer.status_code == 500, name
            assert server == "stock" or "a server error" in answer.json()["detail"]
    finally:
        weights.write_bytes(right)
    volume(client.infer(session), tmp_path)
    if server == "own":
        log = (client.folder / "log.txt").read_text()
        causes = ("weights of another network", "weights were trained for geometry", "every voxel is 238 HU")
        assert all(cause in log for cause in causes)


def test_our_app_does_not_start_with_wrong_weights(tmp_path):
    bundle = copied(tmp_path / "bundle", OWN)
    torch.save(without_biases(trained()), bundle / "models" / "model.pt")
    with started(bundle / OWN, tmp_path, {}) as (process, _):
        assert process.wait(SECONDS_TO_START) != 0
    log = (tmp_path / "log.txt").read_text()
    assert f"ValueError: not started: {bundle / 'models' / 'model.pt'}: weights of another network" in log
