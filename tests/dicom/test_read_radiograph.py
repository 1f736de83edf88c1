import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)
from tests.dicom.dicom_files import compressed, film, radiograph, write_radiograph
from tests.refusal import refused

from scripts.dicom.files import is_dicom
from scripts.dicom.read_radiograph import read_dicom_radiograph

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "xray"


def read(tmp_path, kind="DX", pixels=None, frame=None, overlay_bit=None, intensity=None, **changes):
    dataset = radiograph(kind, pixels, **changes)
    if overlay_bit is not None:
        dataset.add_new(0x60020102, "US", overlay_bit)
    dataset.save_as(tmp_path / "x.dcm")
    return read_dicom_radiograph(tmp_path / "x.dcm", frame, intensity)


def item(**attributes):
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def view_code(value, meaning):
    return [item(CodeValue=value, CodingSchemeDesignator="SCT", CodeMeaning=meaning)]


def lut(entries, bits=16):
    data = np.asarray(entries, dtype=np.uint16).tobytes()
    return [item(LUTDescriptor=[len(data) // 2, 0, bits], ModalityLUTType="US", LUTData=data)]


# Pixels


@pytest.mark.parametrize("kind", ["DX", "CR"])
def test_monochrome2_pixels_are_those_of_simpleitk(tmp_path, kind):
    radio = read(tmp_path, kind, RescaleSlope=2, RescaleIntercept=-7)
    np.testing.assert_array_equal(radio.pixels, 2 * film().astype(float) - 7)
    np.testing.assert_array_equal(radio.pixels, sitk.GetArrayFromImage(sitk.ReadImage(radio.path))[0])
    assert (radio.pixels.dtype, radio.scale) == (np.float32, "display")


@pytest.mark.parametrize(("bits", "top"), [(8, 255), (10, 1023), (12, 4095), (15, 32767), (16, 65535)])
def test_monochrome1_is_mirrored_within_the_declared_bits(tmp_path, bits, top):
    radio = read(tmp_path, pixels=film(bits=bits), bits=bits, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(radio.pixels, top - film(bits=bits).astype(float))


def test_monochrome1_is_mirrored_after_the_modality_lut(tmp_path):
    radio = read(tmp_path, PhotometricInterpretation="MONOCHROME1", RescaleSlope=3, RescaleIntercept=-100)
    np.testing.assert_array_equal(radio.pixels, 3 * (4095 - film().astype(float)) - 100)
    table = (np.arange(4096) ** 2) // 256
    radio = read(tmp_path, PhotometricInterpretation="MONOCHROME1", ModalityLUTSequence=lut(table))
    np.testing.assert_array_equal(radio.pixels, 65535 - table[film()].astype(float))


def test_signed_pixels_keep_their_sign(tmp_path):
    pixels = film().astype(np.int16) - 2048
    np.testing.assert_array_equal(read(tmp_path, pixels=pixels).pixels, pixels)
    mirrored = read(tmp_path, pixels=pixels, PhotometricInterpretation="MONOCHROME1").pixels
    np.testing.assert_array_equal(mirrored, -1 - pixels.astype(float))


@pytest.mark.parametrize(("dtype", "offset"), [(np.uint16, 0), (np.int16, 2048)])
def test_only_the_stored_bits_count_wherever_they_lie(tmp_path, dtype, offset):
    values = film().astype(np.int32) - offset
    overlay = np.random.default_rng(1).integers(0, 2, values.shape)
    right = ((values & 0xFFF) | overlay << 13).astype(np.uint16).view(dtype)
    left = ((values & 0xFFF) << 4 | overlay).astype(np.uint16).view(dtype)
    np.testing.assert_array_equal(read(tmp_path, pixels=right, overlay_bit=13).pixels, values)
    np.testing.assert_array_equal(read(tmp_path, pixels=left, overlay_bit=0, HighBit=15).pixels, values)
    for pixels, high_bit in ((right, 11), (left, 15)):
        with refused(ValueError, "BitsStored 12", f"HighBit {high_bit}"):
            read(tmp_path, pixels=pixels, HighBit=high_bit)


def test_values_of_more_bits_than_are_stated_are_refused_and_never_wrapped(tmp_path):
    with refused(ValueError, "x.dcm", "BitsStored 12", "words", "overlay"):
        read(tmp_path, pixels=film(bits=14))


def test_padding_beyond_the_stored_bits_is_at_the_end_of_the_range_where_it_lies(tmp_path):
    pixels = film()
    pixels[:5] = 65535
    radio = read(tmp_path, pixels=pixels, PixelPaddingValue=65535)
    np.testing.assert_array_equal(radio.pixels, np.minimum(pixels, 4095))


def test_bytes_after_the_pixels_are_passed_over_with_a_warning(tmp_path):
    radio = read(tmp_path, PixelData=film().tobytes() + bytes(34))
    np.testing.assert_array_equal(radio.pixels, film())
    assert any("34 bytes follow its pixels" in warning for warning in radio.warnings)


@pytest.mark.parametrize("frames", [0, ""])
def test_no_number_of_frames_is_one_frame_however_it_is_written(tmp_path, frames):
    np.testing.assert_array_equal(read(tmp_path, NumberOfFrames=frames).pixels, film())
    dataset = compressed(radiograph(), RLELossless)
    dataset.NumberOfFrames = frames
    dataset.save_as(tmp_path / "x.dcm")
    np.testing.assert_array_equal(read_dicom_radiograph(tmp_path / "x.dcm").pixels, film())


def test_an_empty_rescale_is_none(tmp_path):
    radio = read(tmp_path, RescaleSlope="", RescaleIntercept="")
    np.testing.assert_array_equal(radio.pixels, film())


def test_a_preamble_of_another_kind_of_file_is_still_dicom(tmp_path):
    data = write_radiograph(tmp_path / "x.dcm").read_bytes()
    (tmp_path / "x.dcm").write_bytes(b"II*\0" + data[4:])
    np.testing.assert_array_equal(read_dicom_radiograph(tmp_path / "x.dcm").pixels, film())


@pytest.mark.parametrize("head", [b"\x08\x00\x05\x00\xff\xff\xff\xff", b"\x02\x00\x00\x01UL\x04\0", b"II*\0", b""])
def test_a_file_that_only_begins_like_dicom_is_none(head):
    assert not is_dicom(head + bytes(200))


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_every_native_syntax_gives_the_same_pixels(tmp_path, syntax, bits):
    pixels = film(97, 81, bits)
    stored = pixels.byteswap() if syntax == ExplicitVRBigEndian else pixels
    dataset = radiograph(pixels=stored, bits=bits, TransferSyntaxUID=syntax)
    encoding = {"implicit_vr": syntax.is_implicit_VR, "little_endian": syntax.is_little_endian}
    pydicom.dcmwrite(tmp_path / "x.dcm", dataset, force_encoding=True, **encoding)
    np.testing.assert_array_equal(read_dicom_radiograph(tmp_path / "x.dcm").pixels, pixels)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_file_without_preamble_and_meta_information_is_read(tmp_path, syntax):
    dataset = radiograph()
    plain = Dataset(dataset)
    plain.save_as(tmp_path / "x", implicit_vr=syntax.is_implicit_VR, little_endian=True)
    assert (tmp_path / "x").read_bytes()[:2] == b"\x08\x00"
    np.testing.assert_array_equal(read_dicom_radiograph(tmp_path / "x").pixels, film())


@pytest.mark.parametrize(
    ("syntax", "dtype"),
    [
        (JPEGLosslessSV1, np.uint16),
        (JPEGLSLossless, np.uint16),
        (JPEG2000Lossless, np.uint16),
        (JPEG2000Lossless, np.int16),
        (RLELossless, np.int16),
    ],
)
def test_lossless_compression_round_trips(tmp_path, syntax, dtype):
    pixels = film().astype(dtype) - (2048 if dtype == np.int16 else 0)
    dataset = compressed(radiograph(pixels=pixels), syntax)
    assert dataset.file_meta.TransferSyntaxUID == syntax
    dataset.save_as(tmp_path / "x.dcm")
    radio = read_dicom_radiograph(tmp_path / "x.dcm")
    np.testing.assert_array_equal(radio.pixels, pixels)
    assert not radio.is_lossy


def test_lossy_compression_is_told_by_syntax_or_header(tmp_path):
    compressed(radiograph(pixels=film(bits=8), bits=8), JPEGBaseline8Bit).save_as(tmp_path / "x.dcm")
    radio = read_dicom_radiograph(tmp_path / "x.dcm")
    assert radio.is_lossy
    assert np.abs(radio.pixels - film(bits=8)).max() < 30
    assert read(tmp_path, LossyImageCompression="01").is_lossy
    assert not read(tmp_path, LossyImageCompression="00").is_lossy


def test_one_frame_of_a_run_is_chosen_from_zero(tmp_path):
    frames = np.stack([film(seed=seed) for seed in range(3)])
    for index in range(3):
        np.testing.assert_array_equal(
            read(tmp_path, "XA", frames, frame=index).pixels, 4095 - frames[index].astype(float)
        )
    for frame in (None, 3, -1):
        with refused(ValueError, "3 frames", f"got frame {frame}", "--frame"):
            read(tmp_path, "XA", frames, frame=frame)


# What they mean


@pytest.mark.parametrize(
    ("relationship", "sign", "photometric", "scale", "mirrored"),
    [
        ("LIN", 1, "MONOCHROME1", "counts", False),
        ("LIN", 1, "MONOCHROME2", "counts", False),
        ("LIN", -1, "MONOCHROME2", "counts", True),
        ("LOG", 1, "MONOCHROME1", "log", True),
        ("LOG", -1, "MONOCHROME2", "log", False),
        ("LOG", -1, "MONOCHROME1", "log", False),
        ("LIN", None, "MONOCHROME2", "display", False),
        ("LOG", None, "MONOCHROME1", "display", True),
        ("DISP", 1, "MONOCHROME1", "display", True),
    ],
)
def test_for_processing_the_relationship_and_its_sign_decide(
    tmp_path, relationship, sign, photometric, scale, mirrored
):
    radio = read(
        tmp_path,
        "RAW",
        PixelIntensityRelationship=relationship,
        PixelIntensityRelationshipSign=sign,
        PhotometricInterpretation=photometric,
        RescaleSlope=1,
        RescaleIntercept=0,
    )
    assert radio.scale == scale
    assert bool(radio.warnings) == (scale == "display")
    np.testing.assert_array_equal(radio.pixels, 4095 - film().astype(float) if mirrored else film())


@pytest.mark.parametrize(
    "changes",
    [
        {"RescaleSlope": 1, "RescaleIntercept": 5},
        {"RescaleSlope": -1, "RescaleIntercept": 4095},
        {"ModalityLUTSequence": lut(range(4096))},
        {"pixels": film().astype(np.int16) - 2048},
        {"PresentationIntentType": "FOR PRESENTATION"},
    ],
)
def test_counts_need_plain_stored_values_for_processing(tmp_path, changes):
    radio = read(tmp_path, "RAW", **changes)
    assert radio.scale == "display"
    assert "attenuation only by their order" in radio.warnings[0]


@pytest.mark.parametrize(("photometric", "sign"), [("MONOCHROME2", 1), ("MONOCHROME1", -1)])
def test_a_display_image_whose_sign_contradicts_what_it_shows_carries_a_warning(tmp_path, photometric, sign):
    radio = read(tmp_path, PhotometricInterpretation=photometric, PixelIntensityRelationshipSign=sign)
    assert f"sign {sign} contradicts {photometric}" in radio.warnings[1]
    assert len(read(tmp_path).warnings) == 1


@pytest.mark.parametrize("kind", ["XA", "RF"])
@pytest.mark.parametrize(("sign", "mirrored"), [(None, True), (1, True), (-1, False)])
def test_fluoroscopy_is_dark_where_it_attenuates(tmp_path, kind, sign, mirrored):
    radio = read(tmp_path, kind, PixelIntensityRelationshipSign=sign)
    assert (radio.scale, len(radio.warnings)) == ("display", 1)
    np.testing.assert_array_equal(radio.pixels, 4095 - film().astype(float) if mirrored else film())


TOLD = {"PixelIntensityRelationship": None, "PixelIntensityRelationshipSign": None}


@pytest.mark.parametrize("intensity", ["counts", "line_integral"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("kind", ["DX", "CR", "RAW", "XA", "RF"])
def test_values_told_to_be_absolute_are_those_stored_however_they_are_shown(tmp_path, kind, photometric, intensity):
    falling = lut(range(4095, -1, -1))
    for changes in (TOLD, {**TOLD, "VOILUTSequence": falling}, {**TOLD, "RescaleSlope": 2, "RescaleIntercept": 3}):
        radio = read(tmp_path, kind, intensity=intensity, PhotometricInterpretation=photometric, **changes)
        slope, intercept = (2, 3) if "RescaleSlope" in changes else (1, 0)
        np.testing.assert_array_equal(radio.pixels, slope * film().astype(float) + intercept)
        assert (radio.scale, radio.warnings) == (intensity, ())


@pytest.mark.parametrize("kind", ["DX", "CR", "RAW", "XA"])
@pytest.mark.parametrize(("sign", "mirrored"), [(1, False), (-1, True)])
def test_counts_that_are_told_grow_with_the_x_rays_by_the_stated_sign(tmp_path, kind, sign, mirrored):
    radio = read(tmp_path, kind, intensity="counts", PixelIntensityRelationshipSign=sign)
    np.testing.assert_array_equal(radio.pixels, 4095 - film().astype(float) if mirrored else film())


@pytest.mark.parametrize("intensity", ["log", "display"])
@pytest.mark.parametrize(
    ("kind", "changes", "mirrored"),
    [
        ("CR", {"PhotometricInterpretation": "MONOCHROME1"}, True),
        ("CR", {"PhotometricInterpretation": "MONOCHROME2"}, False),
        ("XA", {"PixelIntensityRelationshipSign": None}, True),
        ("RAW", {"PixelIntensityRelationshipSign": 1}, True),
        ("RAW", {"PixelIntensityRelationshipSign": -1}, False),
    ],
)
def test_values_told_to_be_relative_grow_with_attenuation_as_the_file_says(
    tmp_path, kind, changes, mirrored, intensity
):
    radio = read(tmp_path, kind, intensity=intensity, **changes)
    np.testing.assert_array_equal(radio.pixels, 4095 - film().astype(float) if mirrored else film())
    assert radio.scale == intensity and not any("only by their order" in warning for warning in radio.warnings)


@pytest.mark.parametrize("kind", ["DX", "XA", "RF"])
def test_a_radiograph_is_also_read_from_a_secondary_capture(tmp_path, kind):
    radio = read(tmp_path, kind, SOPClassUID=SecondaryCaptureImageStorage, PixelIntensityRelationshipSign=None)
    assert (radio.modality, radio.scale) == (kind, "display")
    np.testing.assert_array_equal(radio.pixels, film() if kind == "DX" else 4095 - film().astype(float))


def test_a_pitch_of_a_secondary_capture_is_asked_for_unless_it_says_where_it_holds(tmp_path):
    capture = {"kind": "CR", "SOPClassUID": SecondaryCaptureImageStorage, "PixelSpacing": [0.2, 0.2]}
    radio = read(tmp_path, **capture)
    assert (radio.pixel_spacing_mm, radio.object_spacing_mm) == (None, None)
    assert any("of a secondary capture" in warning for warning in radio.warnings)
    assert read(tmp_path, **capture, PixelSpacingCalibrationType="FIDUCIAL").object_spacing_mm == (0.2, 0.2)
    assert read(tmp_path, **capture, ImagerPixelSpacing=[0.3, 0.3]).pixel_spacing_mm == (0.3, 0.3)


@pytest.mark.parametrize("sop_class", [DigitalXRayImageStorageForPresentation, ComputedRadiographyImageStorage])
@pytest.mark.parametrize(("photometric", "falls"), [("MONOCHROME1", 0), ("MONOCHROME2", 1)])
def test_bone_is_bright_whether_photometric_or_voi_lut_says_so(tmp_path, sop_class, photometric, falls):
    table = np.arange(4096)[:: -1 if falls else 1]
    radio = read(tmp_path, SOPClassUID=sop_class, PhotometricInterpretation=photometric, VOILUTSequence=lut(table))
    np.testing.assert_array_equal(radio.pixels, 4095 - film().astype(float))
    assert any("VOI LUT falls" in warning for warning in radio.warnings) == bool(falls)


def test_two_inversions_undo_each_other_and_a_lut_that_cannot_be_read_rises(tmp_path):
    both = read(tmp_path, PhotometricInterpretation="MONOCHROME1", VOILUTSequence=lut(range(4095, -1, -1)))
    np.testing.assert_array_equal(both.pixels, film())
    broken = read(tmp_path, VOILUTSequence=[item(LUTDescriptor=[9, 0, 16])])
    np.testing.assert_array_equal(broken.pixels, film())
    assert any("its VOI LUT cannot be read" in warning for warning in broken.warnings)


# View and geometry


@pytest.mark.parametrize(
    ("changes", "view", "side", "orientation"),
    [
        ({}, None, None, None),
        ({"ViewPosition": "AP"}, "frontal", "anterior", None),
        ({"ViewPosition": "PA", "PatientOrientation": ["L", "F"]}, "frontal", "posterior", "LF"),
        ({"ViewPosition": "LL", "PatientOrientation": ["P", "F"]}, "lateral", "right", "PF"),
        ({"ViewPosition": "RL"}, "lateral", "left", None),
        ({"ViewPosition": "RLD"}, None, None, None),
        ({"ViewPosition": "LEFT LATERAL DECUBITUS"}, None, None, None),
        ({"ViewPosition": "AP LAT"}, None, None, None),
        ({"ViewPosition": "LLAT"}, "lateral", "right", None),
        ({"ViewPosition": "RLAT"}, "lateral", "left", None),
        ({"ViewPosition": "L LATERAL"}, "lateral", "right", None),
        ({"ViewPosition": "CHEST LAT"}, "lateral", None, None),
        ({"ViewPosition": "CHEST PA"}, "frontal", "posterior", None),
        ({"ViewPosition": "AP_CHEST"}, "frontal", "anterior", None),
        ({"PatientOrientation": ["F", "R"]}, "frontal", None, "FR"),
        ({"PatientOrientation": ["A", "H"]}, "lateral", None, "AH"),
        ({"PatientOrientation": ["L", "P"]}, None, None, "LP"),
        ({"ViewCodeSequence": view_code("399348003", "antero-posterior")}, "frontal", "anterior", None),
        ({"ViewCodeSequence": view_code("R-10214", "postero-anterior")}, "frontal", "posterior", None),
        ({"ViewCodeSequence": view_code("399173006", "left lateral")}, "lateral", "right", None),
        ({"ViewCodeSequence": view_code("R-10232", "right lateral")}, "lateral", "left", None),
    ],
)
def test_view_and_orientation_are_what_the_header_states(tmp_path, changes, view, side, orientation):
    radio = read(tmp_path, **changes)
    assert (radio.view, radio.source_side, radio.orientation) == (view, side, orientation)


@pytest.mark.parametrize(
    ("primary", "secondary", "view", "side"),
    [
        (0, 0, "frontal", "posterior"),
        (-29, 29, "frontal", "posterior"),
        (90, 0, "lateral", "right"),
        (-95, 0, "lateral", "left"),
        (180, 0, "frontal", "anterior"),
        (-175, 0, "frontal", "anterior"),
        (45, 0, None, None),
        (0, 40, None, None),
        (None, None, None, None),
    ],
)
def test_the_angles_of_a_c_arm_tell_where_its_source_was(tmp_path, primary, secondary, view, side):
    angles = {"PositionerPrimaryAngle": primary, "PositionerSecondaryAngle": secondary}
    radio = read(tmp_path, "XA", **angles)
    assert (radio.view, radio.source_side) == (view, side)
    assert (radio.primary_angle_deg, radio.secondary_angle_deg) == (primary, secondary)
    on_a_column = read(tmp_path, "DX", **angles)
    assert (on_a_column.view, on_a_column.primary_angle_deg) == (None, None)
    assert read(tmp_path, "DX", PositionerType="CARM", **angles).view == view


def test_angles_hold_for_the_first_frame_of_a_rotation_only(tmp_path):
    frames = np.stack([film(seed=seed) for seed in range(2)])
    run = {"kind": "XA", "pixels": frames, "PositionerMotion": "DYNAMIC"}
    assert read(tmp_path, frame=0, **run).view == "frontal"
    assert read(tmp_path, frame=1, **run).view is None


@pytest.mark.parametrize(
    ("orientation", "read_as"), [(["AL", "F"], "AF"), (["LE", "D"], None), (["L", "R"], None), ("LF", None)]
)
def test_an_odd_orientation_carries_a_warning(tmp_path, orientation, read_as):
    radio = read(tmp_path, PatientOrientation=orientation)
    assert radio.orientation == read_as
    assert "PatientOrientation" in radio.warnings[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ViewPosition": "LLO"}, "an oblique projection"),
        ({"ViewPosition": "PA OBLIQUE"}, "an oblique projection"),
        ({"ViewCodeSequence": view_code("399135007", "left anterior oblique")}, "an oblique projection"),
        (
            {"ViewPosition": "PA", "PatientOrientation": ["A", "F"]},
            "ViewPosition PA .*frontal posterior; PatientOrientation AF .*lateral; correct",
        ),
        ({"ViewPosition": "AP", "ViewCodeSequence": view_code("272479007", "")}, "contradicts itself"),
    ],
)
def test_a_view_that_is_oblique_or_contradictory_is_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, **changes)


@pytest.mark.parametrize(
    ("imager", "pixel", "calibration", "detector_mm", "object_mm", "warned"),
    [
        ([0.15, 0.14], None, None, (0.15, 0.14), None, False),
        ([0.15, 0.14], [0.15, 0.14], None, (0.15, 0.14), None, False),
        ([0.15, 0.14], [0.10, 0.09], "GEOMETRY", (0.15, 0.14), (0.10, 0.09), False),
        ([0.15, 0.14], [0.10, 0.09], None, (0.15, 0.14), (0.10, 0.09), True),
        (None, [0.10, 0.09], "FIDUCIAL", None, (0.10, 0.09), False),
        (None, [0.10, 0.09], None, (0.10, 0.09), None, True),
        ([0, 0], [0, 0], None, None, None, False),
        ([-0.1, 0.1], None, None, None, None, False),
        ([0.1], None, None, None, None, False),
        (None, None, None, None, None, False),
    ],
)
def test_spacing_is_told_apart_by_where_it_holds(tmp_path, imager, pixel, calibration, detector_mm, object_mm, warned):
    radio = read(tmp_path, ImagerPixelSpacing=imager, PixelSpacing=pixel, PixelSpacingCalibrationType=calibration)
    assert (radio.pixel_spacing_mm, radio.object_spacing_mm) == (detector_mm, object_mm)
    assert any("PixelSpacing" in warning for warning in radio.warnings) == warned


@pytest.mark.parametrize(
    ("to_detector", "to_patient", "magnification", "expected"),
    [
        (1800, 1600, None, (1800, 1600)),
        (1200, None, 1.5, (1200, 800)),
        (1200, 700, 1.5, (1200, 700)),
        (1200, 0, 1, (1200, None)),
        (0, 0, 1.5, (None, None)),
        (None, None, None, (None, None)),
    ],
)
def test_distances_are_read_where_stated(tmp_path, to_detector, to_patient, magnification, expected):
    radio = read(
        tmp_path,
        DistanceSourceToDetector=to_detector,
        DistanceSourceToPatient=to_patient,
        EstimatedRadiographicMagnificationFactor=magnification,
    )
    assert (radio.source_to_detector_mm, radio.source_to_patient_mm) == expected


def test_the_header_keeps_identity_and_only_that(tmp_path):
    radio = read(
        tmp_path,
        SpecificCharacterSet="ISO_IR 192",
        PatientName="Ясный^Ян",
        StudyInstanceUID="../../etc/passwd",
        WindowCenter=5,
        KVP=120,
    )
    assert radio.header.PatientName == "Ясный^Ян"
    assert radio.header.StudyInstanceUID == "../../etc/passwd"
    assert (radio.header.KVP, radio.header.PatientID) == (120, "P1")
    assert not {"WindowCenter", "PixelData", "Rows"} & set(radio.header.dir())
    assert os.listdir(tmp_path) == ["x.dcm"]


@pytest.mark.parametrize(
    ("keyword", "valid", "broken"),
    [
        ("PatientWeight", "72.5", "72,5"),
        ("PatientSize", "1.8123", "1,80 m"),
        ("KVP", "80.001", "80 kV "),
        ("InstanceNumber", "9876", "abc "),
        ("LossyImageCompressionRatio", "1012", "10:1"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_attribute_that_nobody_needs_is_left_out_where_it_breaks_the_standard(tmp_path, keyword, valid, broken):
    path = write_radiograph(tmp_path / "x.dcm", **{keyword: valid})
    path.write_bytes(path.read_bytes().replace(valid.encode(), broken.encode()))
    radio = read_dicom_radiograph(path)
    np.testing.assert_array_equal(radio.pixels, film())
    assert keyword not in radio.header
    assert keyword not in str(radio.header.to_json_dict()) and radio.header.PatientID == "P1"


# Hostile files


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"SOPClassUID": CTImageStorage, "Modality": "CT"},
            "'CT' .*'CT Image Storage' .* DX, CR, RF, RG and XA",
        ),
        ({"Modality": "MG", "SOPClassUID": DigitalMammographyXRayImageStorageForPresentation}, "'MG' stored as 'Digi"),
        ({"Modality": "CT"}, "'CT' .*'Digital X-Ray Image Storage"),
        ({"SOPClassUID": None}, "stored as 'no SOP class'"),
        ({"SOPClassUID": "../../../etc"}, "stored as '../../../ETC'"),
        ({"SamplesPerPixel": 3}, "3 samples per pixel"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR; a radiograph is"),
        ({"Rows": None}, "Rows is None, .*whole number"),
        ({"Rows": [96, 80]}, "Rows is .* expected a whole number"),
        ({"Rows": 65535, "Columns": 65535}, "65535 x 65535 pixels, at most 67108864 are read"),
        ({"Rows": 1, "Columns": 1}, "1 x 1 pixels, .*64"),
        ({"Rows": 97}, "15360 bytes present, 15520 declared"),
        ({"NumberOfFrames": 2_000_000_000}, "2000000000 frames, got frame None"),
        ({"BitsAllocated": 32}, "BitsAllocated 32, BitsStored 12"),
        ({"BitsStored": 17}, "BitsStored 17"),
        ({"BitsStored": 4, "HighBit": 3}, "BitsStored 4, HighBit 3; 8 to 16 bits"),
        ({"HighBit": 2}, "HighBit 2"),
        ({"PixelData": b""}, "no pixel data"),
        ({"PixelData": None}, "no pixel data"),
        ({"TransferSyntaxUID": "1.2.3"}, "1.2.3 .*pydicom .*export"),
        ({"Modality": "OT", "SOPClassUID": SecondaryCaptureImageStorage}, "'OT' stored as 'Secondary Capture"),
        ({"RescaleSlope": "nan", "RescaleIntercept": 0}, "7680 pixels are NaN"),
        ({"RescaleSlope": 0, "RescaleIntercept": 7}, "every pixel is 7; a constant image"),
        ({"ModalityLUTSequence": [item(LUTDescriptor=[9, 0, 16])]}, "modality LUT"),
        ({"pixels": np.full((64, 64), 5, np.uint16)}, "every pixel is 5; a constant image"),
        ({"pixels": np.minimum(film(), 1000)}, "saturated: 100% .*value 1000"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_no_usable_radiograph_is_refused_by_rule_and_value(tmp_path, changes, message):
    path = tmp_path / "x.dcm"
    write_radiograph(path, **changes)
    with pytest.raises(ValueError, match=message) as refusal:
        read_dicom_radiograph(path)
    assert str(path) in str(refusal.value)


def test_air_that_saturates_beside_the_patient_is_not_held_against_the_film(tmp_path):
    pixels = film()
    pixels[:, :12] = pixels[:, -12:] = pixels[:12] = 0
    assert len(read(tmp_path, pixels=pixels).warnings) == 1
    clipped = np.minimum(film(), 3600)
    assert 0.1 < np.mean(clipped[24:72, 20:60] == 3600) < 0.5
    assert "the clipped values are lost" in read(tmp_path, pixels=clipped).warnings[1]


def encapsulated_against_the_syntax(path):
    compressed(radiograph(), RLELossless).save_as(path)
    path.write_bytes(path.read_bytes().replace(RLELossless.encode(), ExplicitVRLittleEndian.encode()))


def native_against_the_syntax(path):
    write_radiograph(path)
    path.write_bytes(path.read_bytes().replace(ExplicitVRLittleEndian.encode(), RLELossless.encode()))


def corrupt_codestream(path):
    dataset = compressed(radiograph(), JPEGLSLossless)
    dataset.PixelData = dataset.PixelData[:-3000] + bytes(3000)
    dataset.save_as(path)


def codestream_of_another_shape(path):
    dataset = compressed(radiograph(), JPEG2000Lossless)
    dataset.Rows = 90
    dataset.save_as(path)


def deflated_bomb(path):
    radiograph(TransferSyntaxUID=DeflatedExplicitVRLittleEndian).save_as(path)
    head, body = path.read_bytes().split(DeflatedExplicitVRLittleEndian.encode(), 1)
    assert len(head) < 300
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = squeeze.compress(bytes(2**26)) + squeeze.flush()
    path.write_bytes(head + DeflatedExplicitVRLittleEndian.encode() + body[:2] + bomb)


def million_items(path):
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * 1_000_000
    sequence = b"\x08\x00\x10\x11" + b"SQ\0\0\xff\xff\xff\xff" + items + b"\xfe\xff\xdd\xe0\0\0\0\0"
    path.write_bytes(bytes(128) + b"DICM" + sequence)


def large_look_up_table(path):
    table = b"\x28\x00\x00\x30" + b"SQ\0\0" + struct.pack("<L", 2**21) + b"\xfe\xff\x00\xe0\0\0\0\0" * 2**18
    path.write_bytes(bytes(128) + b"DICM" + table)


def deep_sequences(path):
    opening = b"\x08\x00\x10\x11" + b"SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    path.write_bytes(bytes(128) + b"DICM" + opening * 20_000)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (encapsulated_against_the_syntax, "compressed, .*transfer syntax"),
        (native_against_the_syntax, "96 x 80 .*RLE Lossless, .*decoded"),
        (corrupt_codestream, "JPEG-LS .*decoded"),
        (codestream_of_another_shape, "90 x 80 .*JPEG 2000 .*decoded"),
        (deflated_bomb, "deflated as a whole"),
        (million_items, "not a readable DICOM file"),
        (large_look_up_table, "not a readable DICOM file"),
        (deep_sequences, "not a readable DICOM file"),
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.write_bytes(b"%PDF-1.4" * 99), "not a DICOM file"),
        (lambda path: path.write_bytes(bytes(128) + b"DICM"), "no SOP class"),
        (lambda path: path.mkdir(), "not a regular file but a folder"),
        (os.mkfifo, "regular file .*pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        (lambda path: path.symlink_to(path), "repair the link"),
        (lambda path: None, "cannot be read"),
        (lambda path: (path.touch(), os.truncate(path, 2**29 + 1)), "536870913 bytes, a radiograph has at most"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_hostile_file_ends_in_one_error_that_names_it(tmp_path, make, message):
    make(tmp_path / "x.dcm")
    with pytest.raises(ValueError, match=message) as refusal:
        read_dicom_radiograph(tmp_path / "x.dcm")
    assert str(refusal.value).startswith(f"{tmp_path / 'x.dcm'}: ")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_damaged_file_is_read_or_refused_by_name(tmp_path):
    path = tmp_path / "x.dcm"
    write_radiograph(path, "XA", ViewCodeSequence=view_code("399348003", "antero-posterior"))
    whole = path.read_bytes()
    header = len(whole) - film().nbytes
    dice = random.Random(0)
    for _ in range(300):
        data = bytearray(whole)
        if dice.random() < 0.3:
            del data[dice.randrange(header + 100) :]
        for _ in range(dice.choice([1, 4, 30])):
            if len(data) > 132:
                data[dice.randrange(132, min(header, len(data)))] = dice.randrange(256)
        path.write_bytes(data)
        try:
            read_dicom_radiograph(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")


# Real files


@pytest.mark.parametrize(
    ("name", "shape", "bits", "view", "side", "orientation", "lossy"),
    [
        ("nema_RG1_chest_pa", (1955, 1841), 15, "frontal", "posterior", "LF", True),
        ("nema_RG3_tibia_ap", (1760, 1760), 10, "frontal", "anterior", "RF", False),
    ],
)
def test_a_real_cr_is_mirrored_and_states_no_pitch(name, shape, bits, view, side, orientation, lossy):
    path = REAL / f"{name}.dcm"
    if not path.is_file():
        pytest.skip(f"sample radiograph {name} is not beside the repository")
    radio = read_dicom_radiograph(path)
    stored = pydicom.dcmread(path)
    np.testing.assert_array_equal(radio.pixels, 2**bits - 1 - stored.pixel_array.astype(float))
    assert radio.pixels.shape == shape
    assert (radio.view, radio.source_side, radio.orientation) == (view, side, orientation)
    assert (radio.pixel_spacing_mm, radio.object_spacing_mm, radio.is_lossy) == (None, None, lossy)
    assert radio.header.PatientID == stored.PatientID


@pytest.mark.parametrize("name", ["acrinnsclc_042_ct_scout", "tcgaucec_A0ZP_ct_topogram"])
def test_a_real_localizer_is_refused(name):
    path = REAL / f"{name}.dcm"
    if not path.is_file():
        pytest.skip(f"sample localizer {name} is not beside the repository")
    with refused(ValueError, "'CT'", "'CT Image Storage'", "localizer"):
        read_dicom_radiograph(path)
