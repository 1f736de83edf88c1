"""A CT series says truly where and what its voxels are, whose they are, and that they are synthetic."""

import re
import shutil
import subprocess
from datetime import datetime, timedelta, timezone

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import DigitalXRayImageStorageForProcessing
from scipy.spatial.transform import Rotation

from scripts.cases.scans import read_ct
from scripts.dicom.read_ct import read_series
from scripts.dicom.read_radiograph import read_dicom_radiograph
from scripts.dicom.write_ct import CtDescription, write_ct_series, write_uncertainty_series
from scripts.dicom.write_radiograph import FORMS, simulated_header, write_dx
from scripts.geometry import VIEWS, BiplanarGeometry

SHAPE = (9, 12, 11)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
DESCRIPTION = CtDescription("exam 1", "biplanar", "0.3.0", "ab" * 32, "2 steps, seed 0")
KNOWN_MESSAGES = re.compile(r"0008,(0x)?001c|Standard Extended SOP Class|^CTImage$|^$")
"""Of the validators: their build knows the standard of 2022, which had no Synthetic Data, (0008,001C)."""


def hounsfield(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).integers(-1024, 3000, shape).astype(np.int16)


def ras_affine(rotation=None, spacing=(5.0, 5.0, 5.0), origin=(-20.0, 31.5, 1004.25)):
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if rotation is None else rotation) * spacing
    affine[:3, 3] = origin
    return affine


def header(view, **changes):
    ds = Dataset()
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Doe^Jane", "P1", "19700102", "F"
    ds.StudyInstanceUID, ds.StudyID, ds.StudyDate, ds.StudyTime = "1.2.840.77", "S1", "20260304", "101112"
    ds.AccessionNumber, ds.ReferringPhysicianName, ds.PatientAge = "A1", "Roe^Richard", "056Y"
    ds.SOPClassUID, ds.SOPInstanceUID = DigitalXRayImageStorageForProcessing, f"1.2.840.77.{VIEWS.index(view) + 1}"
    ds.SeriesInstanceUID, ds.BodyPartExamined = f"1.2.840.77.0.{VIEWS.index(view) + 1}", "CHEST"
    for tag, value in changes.items():
        setattr(ds, tag, value)
    return ds


def headers(**changes):
    return {"frontal": header("frontal", **changes), "lateral": header("lateral", **changes)}


def write(folder, hu=None, affine=None, sources=None, description=DESCRIPTION, writer=write_ct_series):
    folder.mkdir(parents=True)
    hu = hounsfield() if hu is None else hu
    return writer(folder, hu, ras_affine() if affine is None else affine, sources or headers(), description)


def first(files):
    return pydicom.dcmread(files[0])


def assert_same_volume(voxels, affine, written, written_affine, tolerance=0.0):
    """Every voxel has what was written at its place, and the grids coincide to 1e-4 mm."""
    index = np.stack(np.meshgrid(*map(np.arange, voxels.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    ras = index @ affine[:3, :3].T + affine[:3, 3]
    there = np.rint((ras - written_affine[:3, 3]) @ np.linalg.inv(written_affine[:3, :3]).T).astype(int)
    np.testing.assert_allclose(there @ written_affine[:3, :3].T + written_affine[:3, 3], ras, atol=1e-4)
    assert voxels.size == written.size and len(np.unique(there, axis=0)) == written.size
    np.testing.assert_allclose(voxels.ravel(), written[tuple(there.T)], rtol=0, atol=tolerance)


def by_simpleitk(files):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(files[0].parent)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, LPS_TO_RAS @ affine


def by_highdicom(files):
    volume = hd.get_volume_from_series([pydicom.dcmread(path) for path in reversed(files)])
    return volume.array, LPS_TO_RAS @ volume.affine


WRITERS = [write_ct_series, write_uncertainty_series]
READERS = [by_simpleitk, by_highdicom, read_series]
AFFINES = {
    "RAS": ras_affine(),
    "uneven spacing": ras_affine(spacing=(1.25, 0.7, 3.1)),
    "LAS": ras_affine(np.diag([-1, 1, 1])),
    "axes exchanged": ras_affine(np.eye(3)[[2, 0, 1]], spacing=(2, 3, 4)),
    "oblique": ras_affine(Rotation.from_euler("xyz", [20, -15, 30], degrees=True).as_matrix(), spacing=(1, 2, 3)),
    "any": ras_affine(Rotation.random(random_state=3).as_matrix(), spacing=(1, 2, 3)),
}


@pytest.mark.parametrize("name", AFFINES)
def test_every_reader_finds_every_hounsfield_unit_at_its_place(tmp_path, name):
    files = write(tmp_path / "ct", affine=AFFINES[name])
    for read in READERS:
        assert_same_volume(*read(files), hounsfield(), AFFINES[name])


@pytest.mark.parametrize("read", READERS)
def test_every_reader_finds_the_standard_deviation_to_half_a_tenth(tmp_path, read):
    std = np.random.default_rng(1).uniform(0, 6553, SHAPE).astype(np.float32)
    files = write(tmp_path / "std", std, writer=write_uncertainty_series)
    assert_same_volume(*read(files), std, ras_affine(), tolerance=0.051)


def test_slices_are_axial_with_the_patients_left_at_the_end_of_a_row_and_back_at_that_of_a_column(tmp_path):
    files = write(tmp_path / "ct")
    slices = [pydicom.dcmread(path) for path in files]
    assert [s.InstanceNumber for s in slices] == list(range(1, SHAPE[2] + 1))
    assert slices[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    assert slices[0].PatientPosition == "HFS"
    np.testing.assert_array_equal(slices[4].pixel_array, hounsfield()[::-1, ::-1, 4].T)
    np.testing.assert_allclose(slices[4].ImagePositionPatient, [20 - 8 * 5, -31.5 - 11 * 5, 1004.25 + 4 * 5])


def test_all_of_int16_is_kept_exactly_and_fractions_are_rounded(tmp_path):
    extremes = np.full(SHAPE, 40, np.int16)
    extremes[0, 0, :3] = [-32768, 32767, -1]
    hu, _ = read_series(write(tmp_path / "a", extremes))
    assert {-32768, 32767, -1} < set(np.unique(hu))
    fractions = np.random.default_rng(0).uniform(-1024, 1500, SHAPE).astype(np.float32)
    assert_same_volume(*read_series(write(tmp_path / "b", fractions)), fractions, ras_affine(), tolerance=0.5)


def test_a_series_says_in_every_place_that_it_is_synthetic(tmp_path):
    ds = first(write(tmp_path / "ct"))
    assert ds.SyntheticData == "YES"
    assert ds.ContentQualification == "RESEARCH"
    assert ds.ImageType == ["DERIVED", "SECONDARY", "AXIAL"]
    for text in (ds.SeriesDescription, ds.ImageComments, ds.DerivationDescription):
        assert "NOT FOR DIAGNOSTIC USE" in text
    assert "ab" * 32 in ds.DerivationDescription and "2 steps, seed 0" in ds.DerivationDescription
    assert [s.ReferencedSOPInstanceUID for s in ds.SourceImageSequence] == ["1.2.840.77.1", "1.2.840.77.2"]
    assert {s.PurposeOfReferenceCodeSequence[0].CodeValue for s in ds.SourceImageSequence} == {"121322"}
    (equipment,) = ds.ContributingEquipmentSequence
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert (equipment.Manufacturer, equipment.SoftwareVersions) == ("biplanar", "0.3.0")
    assert (ds.KVP, ds.BurnedInAnnotation, ds.RescaleType) == (None, "NO", "HU")


def test_the_uncertainty_lies_over_the_ct_but_is_no_ct(tmp_path):
    ct, std = (first(write(tmp_path / w.__name__, abs(hounsfield()), writer=w)) for w in WRITERS)
    for tag in ("StudyInstanceUID", "FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient"):
        assert ct[tag] == std[tag]
    assert ct.SeriesInstanceUID != std.SeriesInstanceUID and ct.SeriesNumber != std.SeriesNumber
    assert std.ImageType[4] == "STD_DEVIATION"
    assert "UNCERTAINTY" in std.SeriesDescription and "not a CT" in std.SeriesDescription
    (mapping,) = std.RealWorldValueMappingSequence
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeMeaning == "Standard Deviation"
    for writer in WRITERS:
        with pytest.raises(ValueError, match="SyntheticData YES"):
            read_ct(sorted((tmp_path / writer.__name__).iterdir()))


def test_patient_and_study_are_those_of_the_radiographs_and_everything_else_is_new(tmp_path):
    source = header("frontal")
    ds = first(write(tmp_path / "ct"))
    for element in source:
        if element.keyword not in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"):
            assert ds[element.tag] == element
    assert {ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID}.isdisjoint(
        {source.SOPInstanceUID, source.SeriesInstanceUID, source.StudyInstanceUID}
    )


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 100", "Müller^Jürg"),
        ("ISO_IR 192", "Wałęsa^Ли"),
        ("ISO_IR 144", "Люкceмбypг"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    ],
)
@pytest.mark.parametrize("travel", [lambda ds: ds, lambda ds: Dataset.from_json(ds.to_json_dict())])
def test_names_survive_in_the_character_set_of_the_sources(tmp_path, character_set, name, travel):
    sources = headers(SpecificCharacterSet=character_set, PatientName=name, StudyDescription=name.split("^")[0])
    ds = first(write(tmp_path / "ct", sources={view: travel(ds) for view, ds in sources.items()}))
    assert ds.SpecificCharacterSet == character_set
    assert ds.PatientName == name
    assert ds.StudyDescription == name.split("^")[0]


def test_two_character_sets_become_utf_8(tmp_path):
    latin = first(write(tmp_path / "a", sources=headers(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jürg")))
    cyrillic = header("frontal", SpecificCharacterSet="ISO_IR 144", StudyDescription="Люк", PatientName="")
    ds = first(write(tmp_path / "ct", sources={"frontal": cyrillic, "lateral": latin}))
    assert (ds.SpecificCharacterSet, ds.PatientName, ds.StudyDescription) == ("ISO_IR 192", "Müller^Jürg", "Люк")


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        ("PatientID", ("P1", "P2")),
        ("PatientName", ("Doe^Jane", "Roe^Jane")),
        ("PatientBirthDate", ("19700101", "19700102")),
    ],
)
def test_two_patients_are_refused_by_the_attribute_and_without_their_values(tmp_path, tag, values):
    sources = {view: header(view, **{tag: value}) for view, value in zip(VIEWS, values, strict=True)}
    with pytest.raises(ValueError, match=f"two patients, by {tag};") as refusal:
        write(tmp_path / "ct", sources=sources)
    assert not any(value in str(refusal.value) for value in values)
    assert not list((tmp_path / "ct").iterdir())


@pytest.mark.parametrize("change", [{"PatientID": ""}, {"PatientName": "DOE^JANE^^"}, {"PatientBirthDate": ""}])
def test_a_patient_spelt_differently_or_left_out_once_is_one_patient(tmp_path, change):
    sources = {"frontal": header("frontal"), "lateral": header("lateral", **change)}
    assert first(write(tmp_path / "ct", sources=sources)).PatientID == "P1"


def test_what_one_source_does_not_state_is_taken_from_the_other(tmp_path):
    ds = first(write(tmp_path / "ct", sources={"frontal": Dataset(), "lateral": header("lateral")}))
    assert (ds.PatientID, ds.StudyInstanceUID) == ("P1", "1.2.840.77")
    assert len(ds.SourceImageSequence) == 1


def test_of_two_studies_all_attributes_are_those_of_the_frontal_view(tmp_path):
    sources = headers()
    sources["lateral"] = header("lateral", StudyInstanceUID="1.2.840.78", StudyID="S2", AccessionNumber="A2")
    sources["frontal"].StudyID = ""
    ds = first(write(tmp_path / "ct", sources=sources))
    assert (ds.StudyInstanceUID, ds.StudyID, ds.AccessionNumber) == ("1.2.840.77", "", "A1")


def test_without_headers_the_patient_is_plainly_anonymous_and_another_exam_is_another_patient(tmp_path):
    no_headers = {"frontal": Dataset(), "lateral": Dataset()}
    one, again, other = (
        first(write(tmp_path / name, sources=no_headers, description=CtDescription(exam, "b", "1", "0")))
        for name, exam in (("one", "e1"), ("again", "e1"), ("other", "e2"))
    )
    assert one.PatientName == "ANONYMOUS^PATIENT" and one.PatientIdentityRemoved == "YES"
    for tag in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert one[tag] == again[tag] != other[tag]
    assert "SourceImageSequence" not in one


def test_a_new_study_is_that_of_its_day_so_that_its_attributes_never_differ(tmp_path):
    def study(hour, day=5):
        created = datetime(2026, 3, day, hour).astimezone()
        sources = {"frontal": Dataset(), "lateral": Dataset()}
        name, description = f"{day} {hour}", CtDescription("e", "b", "1", "0", created=created)
        ds = first(write(tmp_path / name, sources=sources, description=description))
        return ds.PatientID, ds.StudyInstanceUID, ds.StudyDate, ds.StudyTime

    morning, evening, next_day = study(8), study(20), study(8, day=6)
    assert morning == evening
    assert morning[0] == next_day[0] and morning[1] != next_day[1]


def test_a_deidentified_patient_stays_without_a_name(tmp_path):
    sources = headers(PatientName="", PatientID="", PatientIdentityRemoved="YES")
    ds = first(write(tmp_path / "ct", sources=sources))
    assert (ds.PatientName, ds.PatientID, ds.StudyInstanceUID) == ("", "", "1.2.840.77")
    assert ds.DeidentificationMethod


def test_the_same_result_has_the_same_identifiers_and_any_other_has_new_ones(tmp_path):
    def identifiers(name, hu=None, affine=None, sources=None, **changes):
        description = CtDescription(**{**vars(DESCRIPTION), "created": datetime.now(timezone.utc), **changes})
        slices = [pydicom.dcmread(path) for path in write(tmp_path / name, hu, affine, sources, description)]
        assert len({s.SeriesInstanceUID for s in slices}) == 1
        assert len({s.SOPInstanceUID for s in slices}) == len(slices)
        return {s.SOPInstanceUID for s in slices} | {slices[0].SeriesInstanceUID}, slices[0].FrameOfReferenceUID

    same, frame = identifiers("a")
    assert identifiers("b", created=DESCRIPTION.created + timedelta(days=1)) == (same, frame)
    others = {
        "pixels": {"hu": hounsfield(1)},
        "affine": {"affine": ras_affine(origin=(0, 0, 0))},
        "weights": {"weights_sha256": "cd" * 32},
        "seed": {"derivation": "2 steps, seed 1"},
        "study": {"sources": headers(StudyInstanceUID="1.2.840.99")},
    }
    for name, change in others.items():
        found, found_frame = identifiers(name, **change)
        assert found.isdisjoint(same)
        assert (found_frame == frame) == (name != "study")
    assert identifiers("exam", exam="exam 2")[1] != frame


def test_lossy_sources_make_a_lossy_result_with_the_strongest_ratio(tmp_path):
    lossy = {"LossyImageCompression": "01", "LossyImageCompressionMethod": "ISO_10918_1"}
    sources = {
        view: header(view, LossyImageCompressionRatio=ratio, **lossy)
        for view, ratio in zip(VIEWS, (7, 12), strict=True)
    }
    ds = first(write(tmp_path / "rated", sources=sources))
    assert (ds.LossyImageCompression, ds.LossyImageCompressionRatio) == ("01", 12)
    assert ds.LossyImageCompressionMethod == "ISO_10918_1"
    known = CtDescription("e", "b", "1", "0", is_lossy=True)
    assert first(write(tmp_path / "known", description=known)).LossyImageCompression == "01"
    assert first(write(tmp_path / "lossless")).LossyImageCompression == "00"


@pytest.mark.parametrize(("offset", "clock"), [("+0530", "20260101 013000"), ("-0300", "20251231 170000")])
def test_times_are_in_the_time_zone_of_the_study(tmp_path, offset, clock):
    description = CtDescription("e", "b", "1", "0", created=datetime(2025, 12, 31, 20, tzinfo=timezone.utc))
    ds = first(write(tmp_path / "ct", sources=headers(TimezoneOffsetFromUTC=offset), description=description))
    assert ds.TimezoneOffsetFromUTC == offset
    assert f"{ds.ContentDate} {ds.ContentTime}" == clock


@pytest.mark.filterwarnings("ignore:.*(VR|value|UID|offset).*:UserWarning")
def test_values_that_the_standard_does_not_allow_are_handed_on_and_break_nothing(tmp_path):
    odd = {"StudyID": "S" * 40, "StudyDate": "4 March", "PatientSex": "unknown", "TimezoneOffsetFromUTC": "CET"}
    ds = first(write(tmp_path / "ct", sources=headers(**odd)))
    for tag, value in odd.items():
        assert str(ds[tag].value) == value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hu": np.where(hounsfield() == hounsfield()[0, 0, 0], np.nan, 0.0)}, "voxels are NaN or infinite"),
        ({"hu": np.full(SHAPE, 40000.0)}, r"holds values within \[-32768, 32767\] HU, got \[40000, 40000\]"),
        ({"hu": np.full(SHAPE, -1.0), "writer": write_uncertainty_series}, r"within \[0, 6553.5\] HU, got \[-1, -1\]"),
        ({"affine": ras_affine(np.eye(3) + 0.01 * np.eye(3)[[1, 0, 2]])}, "at right angles"),
        ({"affine": ras_affine(origin=(0, 0, np.nan))}, "affine holds NaN"),
    ],
)
def test_what_a_series_cannot_hold_is_refused_before_anything_is_written(tmp_path, change, message):
    with pytest.raises(ValueError, match=message) as refusal:
        write(tmp_path / "ct", **change)
    assert str(tmp_path / "ct") in str(refusal.value)
    assert not list((tmp_path / "ct").iterdir())


def complaints(tool, *files):
    """What a validator says beside the known messages."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed (Debian package dicom3tools)")
    done = subprocess.run([tool, *map(str, files)], capture_output=True, text=True)
    return [line for line in (done.stdout + done.stderr).splitlines() if not KNOWN_MESSAGES.search(line)]


SOURCES = {
    "DICOM": headers(),
    "UTF-8": headers(SpecificCharacterSet="ISO_IR 192", PatientName="Wałęsa^Ли"),
    "lossy": headers(
        LossyImageCompression="01", LossyImageCompressionRatio="8.5", LossyImageCompressionMethod="ISO_10918_1"
    ),
    "lossy by an unknown ratio": headers(LossyImageCompression="01"),
    "deidentified": headers(PatientIdentityRemoved="YES"),
    "pictures": {"frontal": Dataset(), "lateral": Dataset()},
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("sources", SOURCES)
def test_the_validators_have_nothing_to_say(tmp_path, writer, sources):
    files = write(tmp_path / "ct", abs(hounsfield()), AFFINES["oblique"], SOURCES[sources], writer=writer)
    assert complaints("dciodvfy", files[len(files) // 2]) == []
    assert complaints("dcentvfy", *files) == []


@pytest.mark.filterwarnings("ignore:.*value.*:UserWarning")
@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (("ABDOMEN", "PELVIS"), "ABDOMEN"),
        (("", "TLSPINE"), "TLSPINE"),
        (("chest ", "chest "), "CHEST"),
        (("HIP", "CHEST"), "CHEST"),
        (("HIP", "HIP"), "CHESTABDPELVIS"),
        (("SHOULDER", ""), "CHESTABDPELVIS"),
        (("chest, ap", "THORAX"), "CHESTABDPELVIS"),
        ((["CHEST", "ABDOMEN"], ""), "CHESTABDPELVIS"),
    ],
)
def test_the_body_part_is_the_first_that_is_a_term_for_the_trunk_so_that_no_laterality_is_needed(
    tmp_path, stated, expected
):
    sources = {view: header(view, BodyPartExamined=part) for view, part in zip(VIEWS, stated, strict=True)}
    files = write(tmp_path / "ct", sources=sources)
    assert first(files).BodyPartExamined == expected
    assert complaints("dciodvfy", files[0]) == []


def test_simulated_radiographs_their_ct_and_its_uncertainty_are_one_consistent_study(tmp_path):
    geometry = BiplanarGeometry(785.0, 1200.0, 64, 4.8, SHAPE, 5.0)
    patient, films = simulated_header("case 1", "exam"), {view: tmp_path / f"{view}.dcm" for view in VIEWS}
    for seed, (view, path) in enumerate(films.items()):
        image = np.random.default_rng(seed).uniform(0, 8, (64, 64))
        write_dx(path, image, view, geometry, patient, FORMS["processing"])
    sources = {view: read_dicom_radiograph(path).header for view, path in films.items()}
    series = [write(tmp_path / w.__name__, abs(hounsfield()), sources=sources, writer=w) for w in WRITERS]
    assert complaints("dcentvfy", *films.values(), *series[0], *series[1]) == []
    for files in series:
        referenced = {item.ReferencedSOPInstanceUID for item in first(files).SourceImageSequence}
        assert referenced == {pydicom.dcmread(path).SOPInstanceUID for path in films.values()}
