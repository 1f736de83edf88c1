import gzip
import os
import random

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from tests.dicom.dicom_files import film, radiograph, write_radiograph

from scripts.exam import read
from scripts.exam.read import holds_both_views, is_lost, is_radiograph, read_radiographs
from scripts.io import nifti_radiograph
from scripts.io.digest import sha256
from scripts.io.intake import read_bytes
from scripts.io.nifti import write_image
from scripts.io.nifti_radiograph import NIFTI_ORIENTATION


def line_integrals(width=12, height=9, seed=0):
    """``[u, w]``"""
    return np.random.default_rng(seed).uniform(0, 8, (width, height)).astype(np.float32)


def save(path, pixels, pitches=(0.5, 0.25), unit="mm"):
    image = nib.Nifti1Image(pixels, np.diag([*pitches, 1, 1]))
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("name", ["x.dcm", "x", "x.png", "x.nii"])
def test_dicom_is_told_by_content(tmp_path, name):
    (radio,) = read_radiographs(write_radiograph(tmp_path / name, ViewPosition="PA"))
    assert (radio.modality, radio.view, radio.path) == ("DX", "frontal", str(tmp_path / name))
    assert radio.sha256 == sha256(tmp_path / name)


def test_dicom_with_the_head_of_a_tiff_in_its_preamble_is_dicom(tmp_path):
    path = write_radiograph(tmp_path / "x", ViewPosition="PA")
    (plain,) = read_radiographs(path)
    path.write_bytes(b"II*\0\x08\0\0\0".ljust(128, b"\0") + path.read_bytes()[128:])
    (radio,) = read_radiographs(path)
    assert (radio.modality, radio.view) == ("DX", "frontal")
    np.testing.assert_array_equal(radio.pixels, plain.pixels)


def test_a_frame_reaches_the_dicom_reader(tmp_path):
    frames = np.stack([film(seed=seed) for seed in range(2)])
    radiograph("XA", frames).save_as(tmp_path / "x")
    (radio,) = read_radiographs(tmp_path / "x", frame=1)
    np.testing.assert_array_equal(radio.pixels, 4095 - frames[1].astype(float))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_pictures_are_told_by_content(tmp_path, kind):
    Image.fromarray(film(bits=8)).save(tmp_path / "x.dcm", format=kind)
    (radio,) = read_radiographs(tmp_path / "x.dcm")
    assert (radio.scale, radio.modality, radio.is_lossy) == ("display", None, kind == "JPEG")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
def test_a_nifti_image_is_set_upright_with_its_pitches(tmp_path, suffix):
    stored = line_integrals()
    (radio,) = read_radiographs(save(tmp_path / f"x{suffix}", stored))
    width, height = stored.shape
    assert radio.pixels.shape == (height, width)
    for row, column in [(0, 0), (3, 7), (height - 1, width - 1)]:
        assert radio.pixels[row, column] == stored[width - 1 - column, height - 1 - row]
    assert (radio.scale, radio.view, radio.orientation, radio.warnings) == ("line_integral", None, None, ())
    assert radio.pixel_spacing_mm == (0.25, 0.5)


def test_an_image_of_a_case_folder_is_read(tmp_path):
    write_image(tmp_path / "x.nii.gz", line_integrals(9, 9), 4.8)
    (radio,) = read_radiographs(tmp_path / "x.nii.gz")
    assert radio.pixel_spacing_mm == pytest.approx((4.8, 4.8))


@pytest.mark.parametrize("between", [(), (1,)])
def test_a_packed_file_holds_the_frontal_and_the_lateral_view(tmp_path, between):
    planes = [line_integrals(seed=0), line_integrals(seed=1)]
    packed = np.stack(planes, -1).reshape(12, 9, *between, 2)
    radios = read_radiographs(save(tmp_path / "x.nii.gz", packed))
    assert [radio.view for radio in radios] == ["frontal", "lateral"]
    assert [radio.orientation for radio in radios] == ["LF", "PF"] == list(NIFTI_ORIENTATION.values())
    for radio, plane in zip(radios, planes, strict=True):
        np.testing.assert_array_equal(radio.pixels, plane.T[::-1, ::-1])


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_is_told_by_content(tmp_path, suffix):
    named = save(tmp_path / f"x{suffix}", line_integrals())
    other = named.rename(tmp_path / "IMG0001")
    assert is_radiograph(other)
    (radio,) = read_radiographs(other)
    assert radio.scale == "line_integral" and radio.sha256 == sha256(other)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("notes.txt", b"a report", False),
        ("notes", b"", False),
        ("exam.zip", b"PK\x03\x04", False),
        ("archive.gz", gzip.compress(b"a report", mtime=0), False),
        ("cut.gz", b"\x1f\x8b\x08", False),
        ("damaged.dcm", b"damaged", True),
        ("DAMAGED.NII.GZ", b"damaged", True),
        ("damaged.png", b"damaged", True),
        ("DAMAGED.JPEG", b"", True),
        ("lost.tif", b"", True),
        ("picture", b"\x89PNG\r\n\x1a\n", True),
    ],
)
def test_a_radiograph_is_one_by_content_or_claims_to_be_by_name(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    assert is_radiograph(tmp_path / name) == expected


@pytest.mark.parametrize(("name", "expected"), [("frontal.dcm", True), ("frontal.nii.gz", True), ("p3", False)])
def test_a_link_that_leads_nowhere_is_a_radiograph_by_its_name(tmp_path, name, expected):
    (tmp_path / name).symlink_to(tmp_path / "unmounted")
    assert is_radiograph(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("IM0001", b"", True),
        ("1.2.840.10008.17", b"", True),
        ("IM0001", b"\0", False),
        ("LOCKFILE", b"", False),
        ("notes.txt", b"", False),
        ("film.mp4", b"", False),
    ],
)
def test_an_empty_file_is_a_lost_film_if_it_is_numbered_like_one(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    assert is_lost(tmp_path / name) == expected


def test_no_folder_is_lost(tmp_path):
    (tmp_path / "IM0001").mkdir()
    assert not is_lost(tmp_path / "IM0001") and not is_lost(tmp_path / "missing")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ""])
@pytest.mark.parametrize(
    ("shape", "expected"), [((70, 80), 0), ((70, 80, 1), 0), ((70, 80, 2), 1), ((70, 80, 1, 2), 1)]
)
def test_a_file_of_both_views_is_told_by_its_header(tmp_path, shape, expected, suffix):
    path = save(tmp_path / f"x{suffix or '.nii'}", np.ones(shape, np.float32)).rename(tmp_path / f"y{suffix}")
    assert holds_both_views(path) == expected


@pytest.mark.parametrize("content", [b"damaged", b"\x1f\x8b\x08", b""])
def test_a_damaged_file_holds_no_two_views(tmp_path, content):
    (tmp_path / "x.nii.gz").write_bytes(content)
    assert not holds_both_views(tmp_path / "x.nii.gz")


def test_a_folder_is_no_radiograph(tmp_path):
    assert not is_radiograph(tmp_path)


def test_a_nifti_film_is_read_once_after_its_first_bytes(tmp_path, monkeypatch):
    path, sizes = save(tmp_path / "x.nii", np.stack([line_integrals(90, 90)] * 2, -1)), []

    def counted(file, at_most=2**29):
        data = read_bytes(file, at_most)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(nifti_radiograph, "read_bytes", counted)
    monkeypatch.setattr(read, "read_bytes", counted)
    monkeypatch.setattr(nib, "load", None)
    assert len(read_radiographs(path)) == 2
    assert sizes == [2**14, path.stat().st_size]


def test_a_trailing_axis_of_one_is_no_third_dimension(tmp_path):
    (radio,) = read_radiographs(save(tmp_path / "x.nii", line_integrals()[..., None]))
    assert radio.pixels.shape == (9, 12)


def gzip_bomb(path):
    path.write_bytes(gzip.compress(bytes(10**6 + 1)))


def huge_declaration(path):
    save(path, line_integrals())
    data = bytearray(path.read_bytes())
    data[40:48] = np.array([2, 8000, 8000, 1], "<i2").tobytes()
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("x.nii", lambda p: save(p, line_integrals() * np.nan), "108 pixels are NaN"),
        ("x.nii", lambda p: save(p, line_integrals() * 99), r"must be line integrals within \[-0.5, 100.0\]"),
        ("x.nii", lambda p: save(p, np.ones((9, 9))), "every pixel is 1.0"),
        ("x.nii", lambda p: save(p, np.stack([line_integrals()] * 3, -1)), r"got shape \[12, 9, 3\]: give two files"),
        ("x.nii", lambda p: save(p, np.ones(9)), r"got shape \[9\]"),
        ("x.nii", lambda p: save(p, line_integrals(), unit="micron"), "pixel pitch is in microns"),
        ("x.nii", lambda p: save(p, np.ones((0, 9))), r"got shape \[0, 9\]"),
        ("x.nii", huge_declaration, "256000000 bytes .*784"),
        ("x.nii.gz", gzip_bomb, "unpacks to more than 1000000 bytes"),
        ("x.nii.gz", lambda p: p.write_bytes(b"\x1f\x8b\x08 no"), "not a readable NIfTI file"),
        ("x.nii", lambda p: p.write_bytes(b"no"), "not a readable NIfTI file"),
        ("x.txt", lambda p: p.write_text("a report"), "b'a report', .*DICOM"),
        ("x.dcm", lambda p: p.write_bytes(bytes(300)), "starts with .*DICOM"),
        ("x.zip", lambda p: p.write_bytes(b"PK\x03\x04"), "DICOM .*PNG, TIFF, JPEG"),
        ("x", lambda p: p.write_bytes(b""), "an empty file"),
        ("x", lambda p: p.mkdir(), "not a regular file"),
        ("x", os.mkfifo, "not a regular file"),
        ("x", lambda p: p.symlink_to("/dev/zero"), "not a regular file"),
        ("x", lambda p: None, "cannot be read"),
        ("x", lambda p: p.symlink_to("nowhere"), "a link to nowhere, which does not exist; repair the link"),
    ],
)
def test_what_is_none_of_these_is_refused_by_name(tmp_path, monkeypatch, name, make, message):
    monkeypatch.setattr(nifti_radiograph, "MAX_FILE_BYTES", 10**6)
    make(tmp_path / name)
    with pytest.raises(ValueError, match=message) as refusal:
        read_radiographs(tmp_path / name)
    assert str(refusal.value).startswith(f"{tmp_path / name}: ")


def test_a_damaged_nifti_file_is_read_or_refused_by_name(tmp_path):
    path = save(tmp_path / "x.nii", line_integrals())
    whole, dice = path.read_bytes(), random.Random(0)
    for _ in range(300):
        data = bytearray(whole[: dice.randrange(10, len(whole))] if dice.random() < 0.2 else whole)
        for _ in range(dice.choice([1, 4, 30])):
            data[dice.randrange(min(len(data), 352))] = dice.randrange(256)
        path.write_bytes(data)
        try:
            read_radiographs(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
