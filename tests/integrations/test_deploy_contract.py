"""The MONAI Deploy application with the SDK emulated: a study in, a CT series or a refusal out."""

import json
import re
import shutil
import sys
from importlib import import_module
from pathlib import Path

import pydicom
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from pydicom.uid import CTImageStorage, EncapsulatedPDFStorage
from tests.integrations import app_sdk
from tests.integrations.samples import BUNDLE, trained, without_biases

from scripts.cases.export_radiographs import export_case
from scripts.dicom.write_radiograph import FORMS
from scripts.io.errors import stated_cause

DEPLOY = BUNDLE / "integrations" / "deploy"
VARIES = {"ContentTime", "InstanceCreationTime", "SeriesTime", "ContentDate", "InstanceCreationDate", "SeriesDate"}


@pytest.fixture(scope="session")
def films(tmp_path_factory):
    """A study of two DX files, made from the demo case."""
    folder = tmp_path_factory.mktemp("study") / "films"
    export_case(BUNDLE / "docs" / "demo", folder, FORMS["processing"])
    return folder


@pytest.fixture
def study(films, tmp_path):
    """A copy of it to change."""
    return Path(shutil.copytree(films, tmp_path / "study"))


@pytest.fixture
def application(monkeypatch):
    """The module ``app``, imported with the emulated SDK and gone again after the test."""
    for name, module in app_sdk.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("app", "operators"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(DEPLOY)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield import_module("app")
    for name in ("app", "operators"):
        del sys.modules[name]


@pytest.fixture
def deploy(application, tmp_path, monkeypatch):
    """Runs the application on a folder; returns its output folder."""

    def run(folder, **settings):
        config = ConfigParser.load_config_file(DEPLOY / "app.yaml")
        config["inference"] |= settings
        (tmp_path / "app.json").write_text(json.dumps(config))
        monkeypatch.setenv("HOLOSCAN_CONFIG_PATH", str(tmp_path / "app.json"))
        arguments = ["app", f"--input={folder}", f"--output={tmp_path / 'out'}"]
        monkeypatch.setattr(sys, "argv", arguments)
        application.XraysToCT().run()
        return tmp_path / "out"

    return run


@pytest.fixture
def refused(deploy, tmp_path):
    """The message of the ValueError that the application ends with, having written nothing."""

    def run(folder, **settings):
        with pytest.raises(Exception) as caught:
            deploy(folder, **settings)
        assert not (tmp_path / "out").exists()
        return str(stated_cause(caught.value))

    return run


def changed(path, copy=None, **attributes):
    """Rewrites a DICOM file, or a copy of it, with other attributes."""
    file = pydicom.dcmread(path)
    for keyword, value in attributes.items():
        setattr(file, keyword, value)
    if copy is not None:
        file.SOPInstanceUID = pydicom.uid.generate_uid()
        file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID
    file.save_as(path if copy is None else copy)


def series(output):
    """What the files of a series hold, but for the time at which they were written."""
    files = sorted(output.rglob("ct/*.dcm"))
    assert len(files) == 128
    contents = []
    for path in files:
        file = pydicom.dcmread(path)
        contents.append({e.keyword: e.value for e in file if e.keyword not in VARIES})
        del contents[-1]["ContributingEquipmentSequence"][0].ContributionDateTime
    return contents


def test_a_study_becomes_the_series_that_the_command_line_makes_of_it(deploy, films, tmp_path):
    output = deploy(films, seed=3, steps=1)
    options = {"input": str(films), "output_dir": str(tmp_path / "cli"), "outputs": "dicom", "seed": 3, "steps": 1}
    workflow = ConfigWorkflow(str(BUNDLE / "configs" / "inference.json"), workflow_type="inference", **options)
    workflow.initialize()
    workflow.run()
    assert series(output) == series(tmp_path / "cli")
    assert [path.name for path in output.iterdir()] == [pydicom.dcmread(films / "frontal.dcm").StudyInstanceUID]


def test_both_views_in_one_series_and_other_files_beside_them_are_told_apart(application, refused, study, monkeypatch):
    changed(study / "lateral.dcm", SeriesInstanceUID=pydicom.dcmread(study / "frontal.dcm").SeriesInstanceUID)
    for sop_class, modality in ((CTImageStorage, "CT"), (EncapsulatedPDFStorage, "DOC")):
        uid = pydicom.uid.generate_uid()
        other = {"SOPClassUID": sop_class, "Modality": modality, "SeriesInstanceUID": uid}
        changed(study / "frontal.dcm", study / f"{modality}.dcm", **other)
    (study / "notes.txt").write_text("no image")

    def tell(self, op_input, op_output, context):
        raise ValueError([Path(path).name for path in op_input.receive("exam")["files"]])

    monkeypatch.setattr(application.ReconstructionOperator, "compute", tell)
    assert refused(study) == "['frontal.dcm', 'lateral.dcm']"


def empty(study):
    shutil.rmtree(study)
    study.mkdir()


def third(study):
    changed(study / "frontal.dcm", study / "repeat.dcm")


def second_study(study):
    changed(study / "lateral.dcm", StudyInstanceUID="1.2.3.4")


def second_patient(study):
    changed(study / "lateral.dcm", PatientID="another")


def same_view(study):
    changed(study / "frontal.dcm", study / "lateral.dcm")


def no_distance(study):
    changed(study / "lateral.dcm", DistanceSourceToDetector=None)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (empty, "input folder: 0 studies with radiographs"),
        (third, r"study: 3 radiographs selected \(.*repeat.dcm\).*narrow the selections"),
        (second_study, "input folder: 2 studies with radiographs"),
        (second_patient, "two patients, by PatientID"),
        (same_view, "frontal.dcm.*same image twice|both are frontal"),
        (no_distance, "source_to_detector_mm"),
        (lambda study: (study / "lateral.dcm").unlink(), "an exam is two radiographs"),
    ],
)
def test_a_study_that_is_no_exam_is_refused_with_nothing_written(refused, study, damage, message):
    damage(study)
    assert re.search(message, refused(study))


def test_other_weights_are_refused_before_a_study_is_looked_at(refused, tmp_path):
    torch.save(without_biases(trained()), tmp_path / "other.pt")
    message = refused(tmp_path / "no such study", weights=str(tmp_path / "other.pt"))
    assert re.search(r"other.pt: weights of another network: \d+ tensors missing", message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("selections: []", "inference must be a dict"),
        ("inference: {seed: 1}", "selections must be a list"),
        ("selections: []\ninference:", "inference must be a dict"),
        ("just words", "selections must be a list"),
        ("a: [", "no settings in YAML or JSON"),
        ("selections: []\ninference: {sead: 1}", "no option 'sead' in the bundle's configs/inference.json"),
        *(
            (f"selections: []\ninference: {{{name}: x}}", f"inference sets {name}, but --input and --output do")
            for name in ("input", "frontal", "lateral", "geometry_file", "dataset_dir", "output_dir", "overwrite")
        ),
    ],
)
def test_wrong_settings_are_refused_by_the_name_of_their_file(application, tmp_path, text, message):
    path = tmp_path / "site.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: {message}"):
        application.read_settings(path, application.open_bundle(BUNDLE))


def test_settings_that_a_study_is_run_with_are_checked(refused, films, tmp_path):
    assert refused(films, sead=1).startswith(f"{tmp_path / 'app.json'}: no option 'sead'")


def test_the_application_s_own_settings_are_right(application):
    settings = application.read_settings(DEPLOY / "app.yaml", application.open_bundle(BUNDLE))
    assert settings["inference"]["outputs"] == "dicom"


def test_the_bundle_is_found_in_the_folder_of_models_of_a_package(application, tmp_path):
    with pytest.raises(SystemExit, match="^error: .*: 0 bundles with configs/inference.json"):
        application.open_bundle(tmp_path)
    (tmp_path / "xray2ct").symlink_to(BUNDLE)
    application.open_bundle(tmp_path)
    assert sys.path[0] == str(tmp_path / "xray2ct")


def test_the_package_has_the_bundle_s_version():
    metadata = json.loads((BUNDLE / "configs" / "metadata.json").read_text())
    assert ConfigParser.load_config_file(DEPLOY / "app.yaml")["application"]["version"] == metadata["version"]
