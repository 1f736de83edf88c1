"""Files as scanners, archives and users leave them: what means the same gives the same; what cannot be, one line."""

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from tests.dicom.test_read_ct import lps_affine, write_series

from scripts.cases.scans import find_scans
from scripts.dicom.write_radiograph import FORMS, simulated_header, write_dx
from scripts.exam.familiarity import read_reference
from scripts.exam.find import find_exams
from scripts.exam.load import LoadExamd
from scripts.geometry import VIEWS, read_geometry
from scripts.io.case import read_case

BUNDLE = Path(__file__).parents[2] / "bundle"
CONFIGS, DEMO = BUNDLE / "configs", BUNDLE / "docs" / "demo"
STRAY = {"Thumbs.db": bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504), "desktop.ini": b"[.ShellClassInfo]\r\n"}


def rewrite(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))


def without_preamble(path: Path) -> None:
    pydicom.Dataset(pydicom.dcmread(path)).save_as(path, implicit_vr=True, little_endian=True)


def with_tiff_preamble(path: Path) -> None:
    path.write_bytes(b"II*\0" + bytes(124) + path.read_bytes()[128:])


def edited(**elements):
    def change(path: Path) -> None:
        dataset = pydicom.dcmread(path)
        for keyword, value in elements.items():
            setattr(dataset, keyword, value(dataset) if callable(value) else value)
        dataset.save_as(path)

    return change


def broken_weight(path: Path) -> None:
    edited(PatientWeight="72.5")(path)
    rewrite(path, b"72.5", b"72,5")


def longer(dataset: pydicom.Dataset) -> bytes:
    return dataset.PixelData + bytes(2)


def shifted(dataset: pydicom.Dataset) -> bytes:
    return (np.frombuffer(dataset.PixelData, np.uint16) << 4).tobytes()


def padding_around(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array.copy()
    pixels[0] = pixels[:, -1] = 65535
    dataset.PixelData = pixels.tobytes()
    dataset.add_new("PixelPaddingValue", "US", 65535)
    dataset.save_as(path)


EITHER = {
    "plain": lambda path: None,
    "without preamble": without_preamble,
    "preamble of a TIFF": with_tiff_preamble,
    "weight with a comma": broken_weight,
    "no number of frames": edited(NumberOfFrames=0),
    "bytes after the pixels": edited(PixelData=longer),
}
CTS = EITHER | {
    "left-justified": edited(PixelData=shifted, BitsStored=12, HighBit=15),
    "spacing with more digits": lambda path: rewrite(path, b"6.0\\6.0 ", b"6.\\6.000"),
    "padding around": padding_around,
}


def body() -> np.ndarray:
    """HU of a block of water with a spine in air."""
    hu = np.full((30, 26, 20), -1000.0, dtype=np.float32)
    hu[5:25, 5:20] = 40
    hu[13:17, 6:9] = 500
    return hu


def test_a_ct_is_the_same_volume_however_its_slices_are_written(tmp_path, caplog):
    for name, change in CTS.items():
        slices = write_series(tmp_path / name, body(), lps_affine(spacing=(6, 6, 10)), PatientID=name)
        for path in slices if name != "spacing with more digits" else slices[::2]:
            change(path)
    for name, content in STRAY.items():
        (tmp_path / "plain" / name).write_bytes(content)
    cts = {scan.patient: scan.read() for scan in find_scans(tmp_path)}
    assert "2 files are no CT and were passed over: plain/Thumbs.db, plain/desktop.ini" in caplog.text
    assert cts.keys() == CTS.keys()
    for name, ct in cts.items():
        np.testing.assert_array_equal(ct.hu, cts["plain"].hu, name)
        np.testing.assert_allclose(ct.affine, cts["plain"].affine, err_msg=name)
    assert (cts["plain"].hu.min(), cts["plain"].hu.max()) == (-1000, 500)


def test_an_exam_is_the_same_input_of_the_network_however_its_films_are_written(tmp_path):
    """An exam of the batch that cannot be read keeps its place."""
    line_integrals, geometry = read_case(DEMO).line_integrals.numpy(), read_geometry(DEMO / "geometry.json")
    for name, change in EITHER.items():
        (tmp_path / name).mkdir()
        for view, pixels in zip(VIEWS, line_integrals, strict=True):
            path = tmp_path / name / f"{view}.dcm"
            write_dx(path, pixels, view, geometry, simulated_header("demo", "exam"), FORMS["presentation"])
            change(path)
    for name, content in STRAY.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / "plain" / name).write_bytes(content)
    (tmp_path / "lost").symlink_to("nowhere")
    exams = {exam["name"]: exam for exam in find_exams(str(tmp_path))}
    reference = read_reference(BUNDLE / "models" / "radiographs.json", network := geometry.coarser())
    load = LoadExamd("image", network, reference=reference, factor=2)
    with pytest.raises(ValueError, match="lost"):
        load(exams.pop("lost"))
    images = {name: load(exam)["image"] for name, exam in exams.items()}
    assert images.keys() == EITHER.keys()
    assert all(torch.equal(image, images["plain"]) for image in images.values())


def is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.mark.parametrize("workflow", ["inference", "prepare", "export_radiographs", "train"])
@pytest.mark.parametrize("is_file", [True, pytest.param(False, marks=pytest.mark.skipif(is_root(), reason="root"))])
def test_an_output_folder_that_cannot_be_written_to_is_one_line(monai_bundle, dataset_dir, tmp_path, workflow, is_file):
    output = tmp_path / "out"
    output.write_text("somebody's") if is_file else output.mkdir(mode=0o555)
    inputs = {"inference": {"input": DEMO}, "train": {"dataset_dir": dataset_dir}}
    given = inputs.get(workflow, {"input": dataset_dir / "cases" / "d"})
    if workflow == "prepare":
        write_series(tmp_path / "in", body(), lps_affine(spacing=(6, 6, 10)))
        given = {"input": tmp_path / "in"}
    run = monai_bundle("run", tmp_path, config_file=CONFIGS / f"{workflow}.json", output_dir=output, **given)
    assert run.wait() == 1, run.output
    assert "Traceback" not in run.output and str(output) in run.output
    assert not is_file or output.read_text() == "somebody's"
