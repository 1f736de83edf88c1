"""The MONAI Deploy application for real, on the CPU; ``make test-deploy`` runs it.

``DEPLOY_PYTHON`` is the interpreter of its environment; ``DEPLOY_CASE``, if set, the case to take instead of the demo.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
import torch
from monai.bundle import ConfigParser
from tests.integrations.samples import BUNDLE, trained, without_biases

DEPLOY = BUNDLE / "integrations" / "deploy"
PYTHON = os.environ.get("DEPLOY_PYTHON")
KNOWN_MESSAGES = re.compile(r"0008,(0x)?001c|Standard Extended SOP Class|^CTImage$|^$")
"""Of the validators: their build knows the standard of 2022, which had no Synthetic Data, (0008,001C)."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="DEPLOY_PYTHON is not set; `make test-deploy` sets it"),
]


def process(*command, **environment):
    """A finished process with its output in one text."""
    return subprocess.run(
        [str(part) for part in command],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def bundle(config, **options):
    """Run a config of the bundle by MONAI's command line, in the bundle's own environment."""
    config = BUNDLE / "configs" / config
    arguments = [f"--{name}={value}" for name, value in options.items()]
    done = process(sys.executable, "-m", "monai.bundle", "run", f"--config_file={config}", *arguments)
    assert done.returncode == 0, done.stdout[-2000:]


def deploy(study, output, *options, **environment):
    """Run the application; returns the finished process."""
    return process(PYTHON, DEPLOY, "--input", study, "--output", output, *options, **environment)


def files(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two DX files of one study, made from a CT: the demo's, or that of the case in ``DEPLOY_CASE``."""
    folder, case = tmp_path_factory.mktemp("study"), Path(os.environ.get("DEPLOY_CASE", BUNDLE / "docs" / "demo"))
    bundle("export_radiographs.json", input=case, output_dir=folder)
    return folder / case.name


@pytest.fixture(scope="module")
def series(study, tmp_path_factory):
    """The CT series that the application makes of them: its files."""
    output = tmp_path_factory.mktemp("deploy")
    done = deploy(study, output)
    assert done.returncode == 0, done.stdout[-3000:]
    made = [str(path) for path in files(output)]
    uid = pydicom.dcmread(study / "frontal.dcm").StudyInstanceUID
    ct, std = ([f"{uid}/dicom/{kind}/{k:04d}.dcm" for k in range(1, len(made) // 2 + 1)] for kind in ("ct", "std"))
    assert made == [*ct, *std, f"{uid}/result.json"]
    return [output / path for path in ct]


def test_the_series_is_that_of_the_command_line(series, study, tmp_path):
    bundle("inference.json", input=study, output_dir=tmp_path, outputs="dicom")
    expected = sorted(tmp_path.rglob("ct/*.dcm"))
    assert len(series) == len(expected) > 1
    for one, other in zip(map(pydicom.dcmread, series), map(pydicom.dcmread, expected), strict=True):
        assert one.PixelData == other.PixelData
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
            assert one[keyword] == other[keyword]
        for keyword in ("ImagePositionPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
            assert one[keyword] == other[keyword]


def test_patient_and_study_are_those_of_the_radiographs_which_it_names_as_its_sources(series, study):
    films = [pydicom.dcmread(study / f"{view}.dcm") for view in ("frontal", "lateral")]
    image = pydicom.dcmread(series[0])
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "StudyDate"):
        assert image[keyword].value == films[0][keyword].value
    sources = {item.ReferencedSOPInstanceUID for item in image.SourceImageSequence}
    assert sources == {film.SOPInstanceUID for film in films}
    assert image.SyntheticData == "YES" and "NOT FOR DIAGNOSTIC USE" in image.SeriesDescription


def test_the_validators_have_nothing_to_say(series, study):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian package dicom3tools)")
    reports = [process("dciodvfy", path).stdout for path in series]
    reports.append(process("dcentvfy", *series, *study.glob("*.dcm")).stdout)
    assert [line for line in "\n".join(reports).splitlines() if not KNOWN_MESSAGES.search(line)] == []


def remove_the_lateral_view(study):
    (study / "lateral.dcm").unlink()


def give_another_patient(study):
    film = pydicom.dcmread(study / "lateral.dcm")
    film.PatientID = "another"
    film.save_as(study / "lateral.dcm")


def remove_everything(study):
    for path in study.iterdir():
        path.unlink()


def cut_off(study):
    whole = (study / "lateral.dcm").read_bytes()
    (study / "lateral.dcm").write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_the_lateral_view, "an exam is two radiographs"),
        (give_another_patient, "two patients, by PatientID"),
        (remove_everything, "0 studies with radiographs"),
        (cut_off, "lateral.dcm"),
    ],
)
def test_a_study_that_is_no_exam_ends_with_one_message_and_no_files(study, tmp_path, damage, message):
    damage(Path(shutil.copytree(study, tmp_path / "study")))
    done = deploy(tmp_path / "study", tmp_path / "out")
    assert done.returncode == 1
    assert len(re.findall(r"^error: .*" + message, done.stdout, re.MULTILINE)) == 1, done.stdout[-3000:]
    assert files(tmp_path / "out") == []


def test_other_weights_end_with_one_message_and_no_files(study, tmp_path):
    torch.save(without_biases(trained()), tmp_path / "other.pt")
    settings = ConfigParser.load_config_file(DEPLOY / "app.yaml")
    settings["inference"]["weights"] = str(tmp_path / "other.pt")
    (tmp_path / "app.json").write_text(json.dumps(settings))
    done = deploy(study, tmp_path / "out", HOLOSCAN_CONFIG_PATH=str(tmp_path / "app.json"))
    assert done.returncode == 1
    assert len(re.findall("^error: .*weights of another network", done.stdout, re.MULTILINE)) == 1, done.stdout[-3000:]
    assert files(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("options", "settings", "message"),
    [
        (["--model", str(DEPLOY)], "selections: []", "0 bundles with configs/inference.json"),
        ([], "selections: []", "site.yaml: inference must be a dict"),
    ],
)
def test_without_a_bundle_or_settings_it_ends_with_one_message(study, tmp_path, options, settings, message):
    (tmp_path / "site.yaml").write_text(settings)
    done = deploy(study, tmp_path / "out", *options, HOLOSCAN_CONFIG_PATH=str(tmp_path / "site.yaml"))
    assert done.returncode == 1
    assert len(re.findall("^error: .*" + message, done.stdout, re.MULTILINE)) == 1, done.stdout[-3000:]
    assert "Traceback" not in done.stdout


def test_laid_out_as_in_a_package_it_makes_the_same_series(study, series, tmp_path):
    application = Path(shutil.copytree(DEPLOY, tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__")))
    for part in ("configs", "models", "scripts"):
        shutil.copytree(BUNDLE / part, tmp_path / "models" / "xray2ct" / part)
    paths = {"INPUT": study, "OUTPUT": tmp_path / "out", "MODEL": tmp_path / "models"}
    environment = {f"HOLOSCAN_{name}_PATH": str(path) for name, path in paths.items()}
    done = process(PYTHON, application, HOLOSCAN_CONFIG_PATH=str(application / "app.yaml"), **environment)
    assert done.returncode == 0, done.stdout[-3000:]
    made = sorted((tmp_path / "out").rglob("ct/*.dcm"))
    assert [pydicom.dcmread(path).PixelData for path in made] == [pydicom.dcmread(path).PixelData for path in series]
