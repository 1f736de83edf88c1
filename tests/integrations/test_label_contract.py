"""The bundle in MONAI Label, the server emulated: in its stock app without a change, and in the app of our own."""

import re
import shutil
import sys
import zipfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigWorkflow
from tests.integrations import label_server
from tests.integrations.label_server import HTTPException
from tests.integrations.samples import BUNDLE, DEMO, packed, trained, without_biases, zipped
from tests.refusal import refused

from scripts.cases.export_radiographs import export_case
from scripts.dicom.read_ct import read_series
from scripts.dicom.write_radiograph import FORMS
from scripts.geometry import VIEWS

APP = BUNDLE / "integrations" / "monailabel"
SPACING_MM = 2.5


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """The demo case as two DX files."""
    folder = tmp_path_factory.mktemp("upload") / "films"
    export_case(DEMO, folder, FORMS["processing"])
    return folder


@pytest.fixture(scope="module")
def expected(films, tmp_path_factory):
    """What the command line makes of them in one step."""
    output = tmp_path_factory.mktemp("cli")
    options = {"input": str(films), "output_dir": str(output), "outputs": "nifti", "steps": 1}
    workflow = ConfigWorkflow(str(BUNDLE / "configs" / "inference.json"), workflow_type="inference", **options)
    workflow.initialize()
    workflow.run()
    return nib.load(output / "films" / "ct.nii.gz")


@pytest.fixture(scope="module")
def stock():
    """The bundle as the stock app serves it, but in one step."""
    task = label_server.BundleInferTask(str(BUNDLE), {})
    task.bundle_config["steps"] = 1
    return task


@pytest.fixture(scope="module")
def served(stock, films):
    """What it answers."""
    return nib.load(stock({"image": str(films)})[0])


@pytest.fixture
def app(films, tmp_path, monkeypatch):
    """Our own app, in one step, and a session with the films."""
    for name, module in label_server.modules(tmp_path / "sessions").items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = spec_from_file_location("label_app", APP / "main.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    shutil.copytree(films, tmp_path / "sessions" / "one" / "upload")
    made = module.ReconstructionApp(str(APP), "", {})
    made.models["biplanar_ct"].bundle_config["steps"] = 1
    return made


@pytest.fixture
def session(app, tmp_path):
    """A request for the session's volume."""
    return {"image": str(tmp_path / "sessions" / "one" / "upload")}


EXAMS = {
    "folder of a session": lambda films, folder: str(films),
    "zip": lambda films, folder: str(zipped(films, folder)),
    "mapping": lambda films, folder: {view: str(films / f"{view}.dcm") for view in VIEWS},
    "packed file": lambda films, folder: str(packed(folder)),
}


def preprocessed(task, image):
    data = {"image": image}
    for transform in task.parsed("preprocessing").transforms:
        data = transform(data)
    return data["image"]


def test_the_stock_app_finds_the_keys_and_the_single_weights_it_needs(stock):
    assert (stock.key_image, stock.key_pred) == ("image", "pred")
    assert stock._config["model_filename"] == ["model.pt"]
    assert stock.displayable == {"result_extension": ".nii.gz", "result_dtype": "int16"}
    names = {type(t).__name__ for k in ("preprocessing", "postprocessing") for t in stock.parsed(k).transforms}
    assert not any(re.search("LoadImage|SaveImage", name) for name in names), "those are stripped or wrapped"


def test_a_request_to_the_stock_app_gives_the_command_line_s_volume_as_int16_hu(served, expected):
    assert served.get_data_dtype() == np.int16
    np.testing.assert_allclose(served.affine, expected.affine, atol=1e-5)
    np.testing.assert_allclose(np.diag(served.affine), [SPACING_MM] * 3 + [1])
    assert np.abs(served.get_fdata() - expected.get_fdata()).max() <= 1, "cast, not rounded"
    assert -1024 <= served.get_fdata().min() < -900


def test_the_next_request_gives_the_same_volume(stock, served, films):
    assert np.array_equal(nib.load(stock({"image": str(films)})[0]).get_fdata(), served.get_fdata())


@pytest.mark.parametrize("form", EXAMS)
def test_every_form_of_an_exam_is_the_same_image(stock, films, tmp_path, form):
    image = preprocessed(stock, EXAMS[form](films, tmp_path))
    ours = preprocessed(stock, str(films))
    tolerance = 0.02 if form == "packed file" else 0  # DICOM stores integers, NIfTI what the network was trained on
    assert (image - ours).abs().max() <= tolerance
    assert np.array_equal(image.meta["volume_affine"], ours.meta["volume_affine"])


def prefixed(state):
    return {f"module.{name}": value for name, value in state.items()}


def one_too_many(state):
    return state | {"extra": torch.zeros(1)}


def other_geometry(state):
    return state | {"geometry": state["geometry"] + 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_biases, "Missing key"),
        (prefixed, "Missing key"),
        (one_too_many, "Unexpected key"),
        (other_geometry, "weights trained for geometry"),
        (lambda state: {}, "Missing key"),
    ],
)
def test_a_server_that_loads_loosely_does_not_serve_wrong_weights(stock, films, tmp_path, monkeypatch, change, message):
    assert not stock.load_strict
    torch.save(change(trained()), tmp_path / "model.pt")
    monkeypatch.setattr(stock, "path", tmp_path / "model.pt")
    with pytest.raises(RuntimeError, match=message):
        stock({"image": str(films)})


@pytest.mark.parametrize(("value", "message"), [(torch.nan, "NaN .*weights"), (0.0, "every voxel is 238 HU")])
def test_a_volume_that_no_trained_network_makes_is_not_served(stock, films, value, message):
    (to_hu,) = stock.parsed("postprocessing").transforms
    volume = torch.zeros(1, 4, 4, 4)
    volume[0, 1, 2, 3] = value
    with pytest.raises(ValueError, match=message):
        to_hu({"image": preprocessed(stock, str(films)), "pred": volume})


def test_a_network_as_it_was_made_gives_such_a_volume(stock):
    assert not stock.network(torch.rand(1, 2, 128, 128)).any()


def test_our_app_answers_with_nifti_or_a_dicom_series_and_the_record_of_its_making(app, session, expected, tmp_path):
    others = {"result_extension": "%/nowhere.json", "device": "$1/0", "model_filename": "other.pt", "skip_writer": True}
    file, record = app.models["biplanar_ct"](session | others)  # which it does not heed
    assert np.array_equal(nib.load(file).get_fdata(), expected.get_fdata())
    assert len(record["weights_sha256"]) == 64 and "NOT FOR DIAGNOSTIC USE" in record["notice"]
    (tmp_path / "store").symlink_to(tmp_path / "sessions")
    app.sessions().store_path = str(tmp_path / "store")
    file, _ = app.models["biplanar_ct"]({"image": str(tmp_path / "store" / "one" / "upload"), "format": "dicom"})
    zipfile.ZipFile(file).extractall(tmp_path / "ct")
    slices = sorted((tmp_path / "ct").glob("*.dcm"))
    hu, affine = read_series(slices)
    oriented = nib.Nifti1Image(hu, affine).as_reoriented(nib.io_orientation(affine))
    np.testing.assert_array_equal(oriented.get_fdata(), expected.get_fdata())
    study = pydicom.dcmread(Path(session["image"], "frontal.dcm")).StudyInstanceUID
    assert {pydicom.dcmread(path).StudyInstanceUID for path in slices} == {study}


@pytest.mark.parametrize(
    "image",
    [
        str(DEMO),
        "{sessions}/../elsewhere",
        "{sessions}/one/../../elsewhere/upload",
        "{sessions}/link/upload",
        "{sessions}/another/upload",
        "{sessions}/another",
        "{sessions}",
        "",
        {view: str(DEMO / f"{view}.nii.gz") for view in VIEWS},
    ],
)
def test_our_app_reads_nothing_that_was_not_uploaded(app, films, tmp_path, image):
    shutil.copytree(films, tmp_path / "elsewhere" / "upload")
    (tmp_path / "sessions" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "sessions" / "another").mkdir()
    (tmp_path / "sessions" / "another" / "upload").symlink_to(tmp_path / "sessions" / "one" / "upload")
    if isinstance(image, str):
        image = image.format(sessions=tmp_path / "sessions")
    with refused(HTTPException, "422", "not uploaded", "PUT /session/"):
        app.models["biplanar_ct"]({"image": image})


def test_our_app_follows_no_link_among_uploads(app, session, films):
    frontal = Path(session["image"], "frontal.dcm")
    frontal.unlink()
    frontal.symlink_to(films / "frontal.dcm")
    with pytest.raises(HTTPException, match=r"422.*holds a link"):
        app.models["biplanar_ct"](session)


def test_our_app_keeps_an_upload_as_it_is_and_does_not_unpack_it(app, films, tmp_path):
    exam = zipped(films, tmp_path)
    with pytest.raises(HTTPException, match="422: uncompress: not offered"):
        app.sessions().add_session(str(exam), 0, True)
    assert not exam.exists()
    _, kept = app.sessions().add_session(str(zipped(films, tmp_path)), 0, False)
    assert zipfile.is_zipfile(kept.image)


def test_our_app_has_no_other_endpoints_than_it_needs(app):
    assert sys.modules["monailabel.app"].app.router.routes == ["/api/info", "/api/session", "/api/infer"]


def test_our_app_refuses_a_bad_request_with_the_bundle_s_own_words(app, session):
    with refused(HTTPException, "422", "format", "nifti or dicom", "'report'"):
        app.models["biplanar_ct"](session | {"format": "report"})
    Path(session["image"], "lateral.dcm").unlink()
    with refused(HTTPException, "422", "two radiographs"):
        app.models["biplanar_ct"](session)


@pytest.mark.parametrize("fault", [ValueError, RuntimeError, OSError])
def test_a_fault_of_our_server_is_not_the_client_s_and_is_logged(app, session, monkeypatch, caplog, fault):
    def fail():
        raise fault("out of order")

    monkeypatch.setattr(app.models["biplanar_ct"], "loaded", fail)
    with pytest.raises(HTTPException, match="^500: .*server error"):
        app.models["biplanar_ct"](session)
    assert "out of order" in caplog.text


def test_our_app_loads_strictly_and_from_the_bundle_s_own_file_alone(app):
    task = app.models["biplanar_ct"]
    assert task.load_strict and "model_filename" not in task._config


def test_our_app_does_not_start_without_its_weights(app, tmp_path):
    shutil.copytree(BUNDLE / "configs", tmp_path / "bundle" / "configs")
    weights = tmp_path / "bundle" / "models" / "model.pt"
    with pytest.raises(ValueError, match="needs .*models/model.pt"):
        type(app)(str(APP), "", {"bundle": str(tmp_path / "bundle")})
    weights.parent.mkdir()
    torch.save(without_biases(trained()), weights)
    with refused(ValueError, "not started", str(weights), "another network"):
        type(app)(str(APP), "", {"bundle": str(tmp_path / "bundle")})
