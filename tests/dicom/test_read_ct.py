import logging
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    BasicTextSRStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    generate_uid,
)
from scipy.spatial.transform import Rotation
from tests.refusal import refused

from scripts.cases.scans import find_scans
from scripts.dicom.read_ct import MIN_SLICES, SCANNED_HU, group_series, read_series
from scripts.intensity import AIR_HU

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "dicom"
SHAPE = (9, 7, 12)


def hounsfield(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).integers(-1000, 2000, shape).astype(np.float32)


def lps_affine(rotation=None, spacing=(0.8, 1.1, 2.5), origin=(-20.0, 31.0, 4.0)):
    affine = np.eye(4)
    affine[:3, :3] = (rotation.as_matrix() if rotation else np.eye(3)) * spacing
    affine[:3, 3] = origin
    return affine


def write_series(folder, hu, affine, order=None, **changes):
    """One file per slice, named in a shuffled order; ``changes`` are ``tag=value`` or ``tag=function(slice index)``."""
    folder.mkdir(parents=True, exist_ok=True)
    uid = generate_uid()
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    for k in range(hu.shape[2]) if order is None else order:
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        s = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        s.SOPClassUID, s.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        s.SeriesInstanceUID, s.PatientID, s.Modality = uid, "P1", "CT"
        s.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        s.ImagePositionPatient = [f"{x:.9g}" for x in affine[:3, :] @ [0, 0, k, 1]]
        s.ImageOrientationPatient = [f"{x:.9g}" for x in (affine[:3, :2] / spacing[:2]).T.ravel()]
        s.PixelSpacing = [float(spacing[1]), float(spacing[0])]
        s.SliceThickness = float(spacing[2])
        s.Columns, s.Rows = hu.shape[:2]
        s.SamplesPerPixel, s.PhotometricInterpretation = 1, "MONOCHROME2"
        s.BitsAllocated, s.BitsStored, s.HighBit, s.PixelRepresentation = 16, 16, 15, 0
        s.RescaleSlope, s.RescaleIntercept = 2, -1024 - 2 * k  # differs by slice, as some scanners do
        s.PixelData = np.round((hu[:, :, k].T - s.RescaleIntercept) / 2).astype(np.uint16).tobytes()
        for tag, value in changes.items():
            setattr(s, tag, value(k) if callable(value) else value)
        s.save_as(folder / f"{(k * 7) % 101:03d}.dcm", enforce_file_format=True)
    return sorted(folder.iterdir())


def assert_same_as_simpleitk(folder, tolerance_hu):
    """Every voxel's physical point has the HU that SimpleITK reads there, and padding is air."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    hu, affine = read_series(sorted(folder.iterdir()))
    for index in np.random.default_rng(0).integers(0, hu.shape, (50, 3)):
        lps = (affine @ [*index, 1])[:3] * [-1, -1, 1]
        found = image.TransformPhysicalPointToContinuousIndex(lps.tolist())
        np.testing.assert_allclose(found, np.round(found), atol=0.02)
        there = image[[round(i) for i in found]]
        assert abs((there if there >= SCANNED_HU[0] else AIR_HU) - hu[tuple(index)]) <= tolerance_hu


@pytest.mark.parametrize("seed", range(4))
def test_a_voxel_of_a_randomly_oriented_series_lies_where_simpleitk_puts_it(tmp_path, seed):
    write_series(tmp_path / "ct", hounsfield(seed), lps_affine(Rotation.random(random_state=seed)))
    assert_same_as_simpleitk(tmp_path / "ct", tolerance_hu=1e-3)


@pytest.mark.parametrize("name", ["ct_cip_64", "ct_crlm_1004", "ct_totalsegmentator_j2k"])
def test_a_voxel_of_a_real_series_lies_where_simpleitk_puts_it(name):
    if not (REAL / name).is_dir():
        pytest.skip(f"sample series {name} is not beside the repository")
    assert_same_as_simpleitk(REAL / name, tolerance_hu=0)


def test_slices_are_sorted_by_position_not_by_name_and_rescaled_one_by_one(tmp_path):
    hu = hounsfield()
    files = write_series(tmp_path, hu, lps_affine())
    read, affine = read_series(reversed(files))
    np.testing.assert_allclose(read, hu, atol=1)  # stored with a slope of 2
    np.testing.assert_allclose(affine, np.diag([-1, -1, 1, 1]) @ lps_affine())


def test_gantry_tilt_becomes_a_shear_of_the_affine(tmp_path):
    tilted = lps_affine()
    tilted[:3, 2] = [0, 0.7, 2.5]
    _, affine = read_series(write_series(tmp_path, hounsfield(), tilted, SliceThickness=2.5))
    np.testing.assert_allclose(affine, np.diag([-1, -1, 1, 1]) @ tilted, atol=1e-6)


def without(k):
    return [i for i in range(SHAPE[2]) if i != k]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Modality": "MR"}, "Modality is 'MR', expected 'CT'"),
        ({"ImageType": lambda k: ["ORIGINAL", "PRIMARY", "LOCALIZER" if k == 3 else "AXIAL"]}, "a localizer"),
        ({"PatientID": lambda k: f"P{k // 6}"}, r"one PatientID, got \['P0', 'P1'\]"),
        ({"PixelSpacing": lambda k: [0.5, 0.5] if k else [1, 1]}, "one PixelSpacing"),
        ({"ImageOrientationPatient": lambda k: [1, 0, 0, 0, 1 if k else -1, 0]}, "differ in ImageOrientationPatient"),
        ({"ImageOrientationPatient": None}, "ImageOrientationPatient missing"),
        ({"ImageOrientationPatient": [2, 0, 0, 0, 2, 0]}, r"ImageOrientationPatient is \[2.0, .*unit vectors"),
        ({"ImageOrientationPatient": [1, 0, 0, 0.6, 0.8, 0]}, "right angles"),
        ({"ImageOrientationPatient": [0] * 6}, "unit vectors"),
        ({"PixelSpacing": [0, 0]}, r"PixelSpacing is \[0.0, 0.0\] mm, expected two positive"),
        ({"PixelSpacing": [1, -1]}, r"PixelSpacing is \[1.0, -1.0\] mm, expected two positive"),
        ({"NumberOfFrames": 4}, "4 frames .*NIfTI"),
        ({"order": without(5)}, "missing or unevenly.*2.50 mm .*10%, got 5.00 mm .*14.00 and 19.00"),
        ({"order": range(MIN_SLICES - 1)}, f"{MIN_SLICES} slices, got {MIN_SLICES - 1}"),
        ({"ImagePositionPatient": lambda k: [0, 0, 2 * min(k, 10)]}, r"two slices at position \[0.0, 0.0, 20.0\]"),
        ({"ImagePositionPatient": lambda k: [3 * (k > 5), 0, 2 * k]}, "even stack"),
        ({"PixelData": bytes(252)}, "252 bytes present, 126 declared"),
        ({"PixelData": b"\0\0"}, "cannot decode .*Explicit VR Little Endian"),
    ],
)
def test_what_is_not_one_complete_ct_volume_is_refused_with_the_rule(tmp_path, changes, message):
    files = write_series(tmp_path, hounsfield(), lps_affine(), **changes)
    with pytest.raises(ValueError, match=message) as refusal:
        read_series(files)
    assert str(tmp_path) in str(refusal.value)


@pytest.mark.parametrize("spacing", [(1e-9, 1e-9, 2.5), (1000, 1000, 2.5), (1, 1, 300)])
def test_a_series_of_the_size_of_no_scanner_is_refused(tmp_path, spacing):
    write_series(tmp_path, hounsfield(), lps_affine(spacing=spacing))
    (scan,) = find_scans(tmp_path)
    with refused(ValueError, str(tmp_path), "mm over", "0.05 to 20 mm", "spacing"):
        scan.read()


def test_slices_of_two_shapes_are_refused(tmp_path):
    files = write_series(tmp_path, hounsfield(), lps_affine())
    odd = pydicom.dcmread(files[0])
    odd.Rows, odd.PixelData = 3, odd.PixelData[: 3 * odd.Columns * 2 + 3 * odd.Columns * 2 % 2]
    odd.save_as(files[0])
    with refused(ValueError, "Rows", "got"):
        read_series(files)


def test_the_real_series_with_gaps_is_refused_with_the_positions():
    folder = REAL / "ct_tcgalihc_BCA10X_gaps"
    if not folder.is_dir():
        pytest.skip("sample series with gaps is not beside the repository")
    with refused(ValueError, "16.00 mm", "-349.00", "-333.00", "-317.00"):
        read_series(sorted(folder.iterdir()))


def test_files_are_grouped_by_series_and_foreign_files_are_left_out(tmp_path):
    first = write_series(tmp_path / "a", hounsfield(), lps_affine())
    second = write_series(tmp_path / "b", hounsfield(), lps_affine(), PatientID="../P2")
    (tmp_path / "notes.txt").write_text("not an image")
    mixed = [tmp_path / "notes.txt", *first, *second]
    assert [(s.patient, s.modality, len(s.files)) for s in group_series(mixed)] == [
        ("P1", "CT", 12),
        ("../P2", "CT", 12),
    ]
    names = [scan.name for scan in find_scans(tmp_path)]
    assert [name[:-9] for name in names] == ["P1", "P2"]


def test_without_a_series_uid_a_folder_is_a_series_whose_name_does_not_depend_on_where_it_lies(tmp_path):
    for place in ("here", "there"):
        write_series(tmp_path / place / "a", hounsfield(), lps_affine(), SeriesInstanceUID="", PatientID="")
        write_series(tmp_path / place / "b", hounsfield(), lps_affine(), SeriesInstanceUID="", PatientID="")
    here, there = find_scans(tmp_path / "here"), find_scans(tmp_path / "there")
    assert [(scan.patient, len(scan.files)) for scan in here] == [("a", 12), ("b", 12)]
    assert [scan.name for scan in here] == [scan.name for scan in there]


def test_a_damaged_dicom_file_is_a_scan_that_fails_and_is_never_lost(tmp_path):
    (tmp_path / "broken.dcm").write_bytes(b"\0" * 300)
    (scan,) = find_scans(tmp_path)
    with refused(ValueError, "broken.dcm", "DICOM"):
        scan.read()


def stored(hu, k):
    """As :func:`write_series` stores a slice."""
    return np.round((hu[:, :, k].T + 1024 + 2 * k) / 2).astype(np.uint16)


def padded(words, value):
    """A frame of padding and one pixel of the same value in the middle; no others have it."""
    words = np.where(words == value, words + 1, words)
    words[:2] = words[-1] = words[:, 0] = words[4, 3] = value
    return words


@pytest.mark.parametrize(("value", "bits"), [(65535, 16), (65535, 12), (63536, 12), (512, 16)])
def test_padding_around_the_patient_is_air_wherever_it_is_stored(tmp_path, value, bits):
    hu = hounsfield()
    files = write_series(
        tmp_path,
        hu,
        lps_affine(),
        PixelData=lambda k: padded(stored(hu, k), value).tobytes(),
        PixelPaddingValue=value,
        BitsStored=bits,
        HighBit=bits - 1,
    )
    read, _ = read_series(files)
    frame = np.ones(SHAPE, dtype=bool)
    frame[1:, 2:-1] = False
    assert (read[frame] == AIR_HU).all()
    inside = ~frame
    inside[3, 4] = False
    np.testing.assert_allclose(read[inside], hu[inside], atol=3)
    is_tissue = value == 512
    np.testing.assert_array_equal(read[3, 4], -2 * np.arange(SHAPE[2]) if is_tissue else AIR_HU)


@pytest.mark.parametrize("is_left", [False, True])
def test_a_slice_has_the_same_hu_at_either_end_of_its_words(tmp_path, is_left):
    hu = hounsfield()
    files = write_series(
        tmp_path,
        hu,
        lps_affine(),
        PixelData=lambda k: (stored(hu, k) << 4 * is_left).tobytes(),
        BitsStored=12,
        HighBit=15 if is_left else 11,
    )
    np.testing.assert_allclose(read_series(files)[0], hu, atol=1)


def test_a_slice_of_more_bits_than_it_states_is_refused(tmp_path):
    files = write_series(tmp_path, hounsfield() + 9000, lps_affine(), BitsStored=12, HighBit=11)
    with refused(ValueError, "000.dcm", "BitsStored 12", "HighBit 11"):
        read_series(files)


def test_slices_without_preamble_are_part_of_the_series(tmp_path):
    hu = hounsfield()
    files = write_series(tmp_path, hu, lps_affine())
    for k in (2, 5):
        plain = pydicom.Dataset(pydicom.dcmread(files[k]))
        plain.save_as(tmp_path / f"IM{k}", implicit_vr=k == 2, little_endian=True)
        files[k].unlink()
    (scan,) = find_scans(tmp_path)
    assert len(scan.files) == SHAPE[2]
    np.testing.assert_allclose(scan.read().hu, hu, atol=1)


def test_a_directory_and_a_report_are_no_scans_and_are_named(tmp_path, caplog):
    files = write_series(tmp_path / "ct", hounsfield(), lps_affine())
    for name, sop_class in (("DICOMDIR", MediaStorageDirectoryStorage), ("sr.dcm", BasicTextSRStorage)):
        other = pydicom.dcmread(files[0])
        del other.PixelData
        other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = sop_class
        other.save_as(tmp_path / name)
    with caplog.at_level(logging.WARNING):
        (scan,) = find_scans(tmp_path)
    assert len(scan.files) == SHAPE[2]
    assert any("2 files" in message and "DICOMDIR, sr.dcm" in message for message in caplog.messages)


def test_one_pitch_may_be_written_in_several_ways(tmp_path):
    hu = hounsfield()
    files = write_series(tmp_path, hu, lps_affine(spacing=(6, 6, 2.5)))
    for k, path in enumerate(files):
        path.write_bytes(path.read_bytes().replace(b"6.0\\6.0 ", b"6\\6.000 " if k % 2 else b"6.0\\6.0 "))
    assert len({str(pydicom.dcmread(path).PixelSpacing) for path in files}) == 2
    np.testing.assert_allclose(read_series(files)[0], hu, atol=1)


@pytest.mark.parametrize("frames", [0, ""])
def test_no_number_of_frames_is_one_frame_however_it_is_written(tmp_path, frames):
    hu = hounsfield()
    files = write_series(tmp_path, hu, lps_affine(), NumberOfFrames=frames)
    np.testing.assert_allclose(read_series(files)[0], hu, atol=1)


@pytest.mark.parametrize("excess", [2, 2 * SHAPE[0] * SHAPE[1] - 2])
def test_bytes_after_the_pixels_of_a_slice_are_passed_over(tmp_path, excess):
    hu = hounsfield()
    data = {"PixelData": lambda k: stored(hu, k).tobytes() + bytes(excess)}
    np.testing.assert_allclose(read_series(write_series(tmp_path, hu, lps_affine(), **data))[0], hu, atol=1)


def test_slices_without_a_rescale_are_hu_if_all_lack_it_and_refused_if_some_do(tmp_path, caplog):
    hu = hounsfield()
    plain = {"PixelData": lambda k: hu[:, :, k].T.astype(np.int16).tobytes(), "PixelRepresentation": 1}
    empty = {"RescaleIntercept": "", "RescaleSlope": ""}
    files = write_series(tmp_path / "all", hu, lps_affine(), **plain, **empty)
    np.testing.assert_array_equal(read_series(files)[0], hu)
    assert "no RescaleIntercept; stored values are taken for HU" in caplog.text
    some = write_series(tmp_path / "some", hu, lps_affine(), RescaleIntercept=lambda k: "" if k == 3 else -1024)
    with refused(ValueError, "021.dcm", "RescaleIntercept"):
        read_series(some)


def test_numbers_that_nobody_needs_may_be_broken_and_those_of_the_place_may_not(tmp_path):
    hu = hounsfield()
    files = write_series(tmp_path, hu, lps_affine(), PatientWeight="72.5")
    for path in files:
        path.write_bytes(path.read_bytes().replace(b"72.5", b"72,5"))
    np.testing.assert_allclose(read_series(files)[0], hu, atol=1)
    files[3].write_bytes(files[3].read_bytes().replace(b"1.1\\0.8", b"1,1\\0.8"))
    with refused(ValueError, "021.dcm", "PixelSpacing", "['1,1', '0.8']", "2 numbers"):
        read_series(files)
