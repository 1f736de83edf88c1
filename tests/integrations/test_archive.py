"""A loopback archive, dcmtk's dcmqrscp: what the bundle writes is stored, found and fetched back, voxel for voxel."""

import shutil
import subprocess
import time

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from monai.bundle import ConfigWorkflow
from tests.integrations import films_app
from tests.integrations.samples import DEMO
from tests.launcher import free_port

config_files = films_app.config_files
TOOLS = ("dcmqrscp", "storescu", "findscu", "getscu")
NEEDS_DCMTK = pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason="dcmtk is not installed (Debian: dcmtk)")
ARCHIVE = """
NetworkTCPPort = {port}
MaxPDUSize = 16384
MaxAssociations = 4
HostTable BEGIN
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
ARCHIVE {folder} RW (10, 1024mb) ANY
AETable END
"""


@pytest.fixture(scope="module")
def study(config_files, tmp_path_factory):
    """The DICOM files of a small reconstruction by kind."""
    output = tmp_path_factory.mktemp("study")
    options = {"input": str(DEMO), "output_dir": str(output), "samples": 2, "steps": 1}
    workflow = ConfigWorkflow(
        config_files, workflow_type="inference", outputs="dicom,capture,parametric_map", **options
    )
    workflow.initialize()
    workflow.run()
    folder = output / "demo" / "dicom"
    return {kind.name: sorted(kind.iterdir()) for kind in sorted(folder.iterdir())}


@pytest.fixture
def archive(tmp_path):
    """Runs a dcmtk program against an archive that has just been started."""
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive.cfg").write_text(ARCHIVE.format(port=free_port(), folder=tmp_path / "archive"))
    port = (tmp_path / "archive.cfg").read_text().split()[2]
    process = subprocess.Popen(["dcmqrscp", "-c", str(tmp_path / "archive.cfg")])

    def ask(tool, *arguments):
        command = [tool, "-aet", "TESTS", "-aec", "ARCHIVE", "127.0.0.1", port, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    for _ in range(200):
        if subprocess.run(["echoscu", "-aec", "ARCHIVE", "127.0.0.1", port], capture_output=True).returncode == 0:
            break
        time.sleep(0.05)
    yield ask
    process.terminate()
    process.wait()


def test_the_extra_instances_are_written_where_they_are_asked_for(study):
    assert {kind: len(files) for kind, files in study.items()} == {
        "capture": 2,
        "ct": 32,
        "parametric_map": 1,
        "std": 32,
    }
    images = {kind: pydicom.dcmread(files[0]) for kind, files in study.items()}
    assert len({image.StudyInstanceUID for image in images.values()}) == 1
    assert len({image.SeriesInstanceUID for image in images.values()}) == len(images)
    assert len({image.SeriesNumber for image in images.values()}) == len(images)


def volume_by_simpleitk(folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    return sitk.GetArrayFromImage(image), (image.GetOrigin(), image.GetDirection(), image.GetSpacing())


def volume_by_highdicom(folder):
    volume = hd.get_volume_from_series([pydicom.dcmread(path) for path in folder.iterdir()])
    return volume.array, volume.affine.tolist()


@NEEDS_DCMTK
def test_the_study_is_stored_found_and_fetched_back_the_same(study, archive, tmp_path):
    archive("storescu", "-R", *(path for files in study.values() for path in files))
    ct = pydicom.dcmread(study["ct"][0])
    level = f"StudyInstanceUID={ct.StudyInstanceUID}"
    found = archive(
        "findscu", "-v", "-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientID=ANON-*", "-k", "StudyInstanceUID"
    )
    assert ct.StudyInstanceUID in found
    series = archive("findscu", "-v", "-S", "-k", "QueryRetrieveLevel=SERIES", "-k", level, "-k", "SeriesInstanceUID")
    for files in study.values():
        assert pydicom.dcmread(files[0]).SeriesInstanceUID in series

    (tmp_path / "back").mkdir()
    key = ("-k", "QueryRetrieveLevel=SERIES", "-k", level, "-k", f"SeriesInstanceUID={ct.SeriesInstanceUID}")
    archive("getscu", "-S", *key, "-od", tmp_path / "back")
    back = sorted((tmp_path / "back").iterdir())
    assert len(back) == len(study["ct"])
    for read in (volume_by_simpleitk, volume_by_highdicom):
        (voxels, place), (sent, sent_place) = read(tmp_path / "back"), read(study["ct"][0].parent)
        assert np.array_equal(voxels, sent) and place == sent_place
        assert sent.min() < -500, "air in HU"
    by_uid = {image.SOPInstanceUID: image for image in map(pydicom.dcmread, back)}
    for path in study["ct"]:
        image = pydicom.dcmread(path)
        fetched = by_uid[image.SOPInstanceUID]
        assert fetched.PixelData == image.PixelData and fetched.SeriesDescription == image.SeriesDescription
