"""Two radiographs of one exam, found, told apart and compared."""

import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, XRayRadiationDoseSRStorage, generate_uid
from tests.refusal import refused

from scripts.exam import views
from scripts.exam.views import ViewChoice, choose_views, disagreements, find_exam
from scripts.geometry import VIEWS, preset, read_geometry
from scripts.io.case import read_case
from scripts.io.nifti import write_image
from scripts.io.radiograph import Radiograph

DEMO = Path(__file__).parents[2] / "bundle" / "docs" / "demo"


def pixels(seed=0):
    return np.random.default_rng(seed).uniform(0, 5, (70, 70)).astype(np.float32)


@pytest.fixture
def exam(tmp_path):
    """A folder with two NIfTI radiographs of line integrals."""
    for seed, view in enumerate(("frontal", "lateral")):
        write_image(tmp_path / f"{view}.nii.gz", pixels(seed), 2.0)
    return tmp_path


def header(**attributes):
    dataset = Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def film(path, seed=0, **stated):
    return Radiograph(str(path), f"digest {seed}", pixels(seed), "log", **stated)


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """Puts films in files: ``stub(name=film fields)`` makes readable files of these names in a folder."""
    known = {}
    monkeypatch.setattr(views, "read_radiographs", lambda path, frame=None, intensity=None: known[Path(path).name])

    def make(**films):
        for seed, (name, fields) in enumerate(films.items()):
            path = tmp_path / f"{name}.dcm"
            path.write_bytes(b"x")
            known[path.name] = [film(path, **{"seed": seed, **fields})]
        return tmp_path

    return make


def write_report(path):
    """A DICOM file that holds no image."""
    report = Dataset()
    report.SOPClassUID, report.SOPInstanceUID = XRayRadiationDoseSRStorage, generate_uid()
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report.file_meta.MediaStorageSOPClassUID = XRayRadiationDoseSRStorage
    report.file_meta.MediaStorageSOPInstanceUID = report.SOPInstanceUID
    report.save_as(path, enforce_file_format=True)


def assert_is_the_exam(found):
    assert list(found) == ["frontal", "lateral"]
    for seed, (view, radiograph) in enumerate(found.items()):
        assert radiograph.view == view
        np.testing.assert_array_equal(radiograph.pixels, pixels(seed)[::-1, ::-1].T)
        assert radiograph.orientation == {"frontal": "LF", "lateral": "PF"}[view]


def test_a_folder_a_list_a_mapping_and_a_zip_hold_the_same_exam(exam):
    files = [exam / "lateral.nii.gz", str(exam / "frontal.nii.gz")]
    with zipfile.ZipFile(exam / "exam.zip", "w") as archive:
        for path in files:
            archive.write(path, f"study/{Path(path).name}")
    for source in (exam, str(exam), files, tuple(files), {"frontal": files[1], "lateral": files[0]}, exam / "exam.zip"):
        assert_is_the_exam(find_exam(source)[0])


def test_a_packed_file_holds_both_views(tmp_path):
    packed = np.stack([pixels(0), pixels(1)], axis=-1)
    nib.save(nib.Nifti1Image(packed, np.eye(4)), tmp_path / "exam.nii.gz")
    for source in (tmp_path / "exam.nii.gz", tmp_path, [tmp_path / "exam.nii.gz"]):
        assert_is_the_exam(find_exam(source)[0])


def test_files_in_a_zip_go_by_the_zips_path(exam):
    path = exam / "exam.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for view in ("frontal", "lateral"):
            archive.write(exam / f"{view}.nii.gz", f"{view}.nii.gz")
    assert find_exam(path)[0]["lateral"].path == f"{path}/lateral.nii.gz"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("third.dcm", "damaged")
    with refused(ValueError, "exam.zip", "got 3", "exam.zip/third.dcm"):
        find_exam(path)[0]


def test_folders_may_be_nested_to_any_depth(exam):
    for view in ("frontal", "lateral"):
        folder = exam / "patient" / "study" / f"series of {view}"
        folder.mkdir(parents=True)
        (exam / f"{view}.nii.gz").rename(folder / f"{view}.nii.gz")
    assert_is_the_exam(find_exam(exam)[0])
    (exam / "other").mkdir()
    (exam / "other" / "notes.txt").write_text("a report")
    assert_is_the_exam(find_exam(exam)[0])


def test_hidden_files_and_files_that_are_no_images_are_ignored(exam):
    (exam / ".hidden.dcm").write_bytes(b"x")
    (exam / "notes.txt").write_text("frontal.dcm")
    (exam / "acquisition.json").write_text("{}")
    (exam / "__MACOSX").mkdir()
    (exam / "__MACOSX" / "frontal.nii.gz").write_bytes(b"x")
    write_report(exam / "dose.dcm")
    write_report(exam / "dose without suffix")
    assert_is_the_exam(find_exam(exam)[0])


@pytest.mark.parametrize("name", ["damaged.dcm", "damaged"])
def test_a_damaged_file_that_claims_to_be_dicom_is_an_error(exam, name):
    (exam / "lateral.nii.gz").unlink()
    (exam / name).write_bytes(b"\0" * 128 + b"DICM" + b"damaged" * 9 if name == "damaged" else b"damaged" * 40)
    with pytest.raises(ValueError, match=f"{name}: "):
        find_exam(exam)[0]


def test_pictures_are_found_by_content_and_told_apart_by_name(tmp_path):
    for seed, name in enumerate(("IM1_PA.x", "chest-lat2.jpg")):
        Image.fromarray((pixels(seed) * 50).astype(np.uint8)).save(tmp_path / name, format="PNG")
    found = find_exam(tmp_path)[0]
    assert [Path(radiograph.path).name for radiograph in found.values()] == ["IM1_PA.x", "chest-lat2.jpg"]
    assert found["frontal"].orientation is None  # only a NIfTI file's arrangement is known without being stated


@pytest.mark.parametrize("count", [0, 1, 3, 20])
def test_anything_but_two_radiographs_is_refused_with_their_names(stub, count):
    folder = stub(**{f"image{i:02d}": {} for i in range(count)})
    with refused(ValueError, "two radiographs", f"got {count}") as refusal:
        find_exam(folder)[0]
    assert all(f"image{i:02d}.dcm" in str(refusal.value) for i in range(min(count, 6)))
    assert "image06" not in str(refusal.value)


def test_more_files_than_two_are_not_even_read(tmp_path, monkeypatch):
    monkeypatch.setattr(views, "read_radiographs", pytest.fail)
    for name in "abc":
        (tmp_path / f"{name}.dcm").write_bytes(b"x")
    with pytest.raises(ValueError, match="got 3"):
        find_exam(tmp_path)[0]


def test_the_file_tells_its_view_before_its_name_does(stub):
    found = find_exam(stub(frontal={"view": "lateral"}, two={"view": "frontal"}))[0]
    assert found["lateral"].path.endswith("frontal.dcm") and found["frontal"].path.endswith("two.dcm")
    assert "taken as the lateral view, though its name says frontal" in found["lateral"].warnings[0]
    assert found["frontal"].warnings == ()


@pytest.mark.parametrize("name", ["image1", "pat01", "paper", "ap_lateral", "plateral"])
def test_a_view_that_nothing_tells_is_asked_for_by_name(stub, name):
    with refused(ValueError, f"{name}.dcm", "name", "--frontal and --lateral"):
        find_exam(stub(**{name: {}, "z": {"view": "lateral"}}))[0]


@pytest.mark.parametrize("view", ["frontal", "lateral"])
def test_two_views_of_a_kind_are_refused(stub, view):
    with refused(ValueError, "a.dcm", "b.dcm", f"both are {view} views"):
        find_exam(stub(a={"view": view}, b={"view": view}))[0]


def test_told_views_that_the_files_contradict_are_refused(stub):
    folder = stub(a={"view": "frontal"}, b={"view": "lateral"})
    with refused(ValueError, "b.dcm", "frontal view", "lateral one", "exchange"):
        find_exam({"frontal": folder / "b.dcm", "lateral": folder / "a.dcm"})[0]


def test_told_views_that_only_the_names_contradict_are_warned_of(stub):
    folder = stub(lateral={}, b={})
    found = find_exam({"frontal": folder / "lateral.dcm", "lateral": folder / "b.dcm"})[0]
    assert "taken as the frontal view, though its name says lateral" in found["frontal"].warnings[0]


@pytest.mark.parametrize(
    "mapping", [{"frontal": "a"}, {"frontal": "a", "lateral": None}, {"ap": "a", "lateral": "b"}, {}]
)
def test_a_mapping_names_both_views_and_nothing_else(mapping):
    with refused(ValueError, "--frontal", "--lateral", "got {"):
        find_exam(mapping)[0]


def test_a_packed_file_is_no_single_view(tmp_path):
    nib.save(nib.Nifti1Image(np.stack([pixels(0), pixels(1)], axis=-1), np.eye(4)), tmp_path / "both.nii")
    with refused(ValueError, "both.nii", "2 radiographs", "alone"):
        find_exam({"frontal": tmp_path / "both.nii", "lateral": tmp_path / "both.nii"})[0]


def test_the_same_image_twice_is_refused(stub):
    folder = stub(ap={"seed": 3}, lat={"seed": 3})
    with refused(ValueError, "ap.dcm", "lat.dcm", "same image"):
        find_exam(folder)[0]
    with pytest.raises(ValueError, match="the same image twice"):
        find_exam({"frontal": folder / "ap.dcm", "lateral": folder / "ap.dcm"})[0]


@pytest.mark.parametrize(
    ("attribute", "first", "second", "are_two"),
    [
        ("PatientID", "1", "2", True),
        ("PatientID", "1", "", False),
        ("PatientID", " 17", "17 ", False),
        ("PatientName", "Doe^Jane", "Doe^John", True),
        ("PatientName", "DOE^JANE^^", "Doe^Jane", False),
        ("PatientName", "Yamada^Tarou=山田^太郎", "Yamada^Tarou", False),
        ("PatientName", "Yamada^Tarou=山田^太郎", "Yamada^Tarou=山田^次郎", True),
        ("PatientBirthDate", "19700101", "19700102", True),
        ("PatientBirthDate", "19700101", None, False),
        ("PatientSex", "M", "F", True),
        ("PatientSex", "O", "F", False),
        ("IssuerOfPatientID", "Hospital A", "Hospital B", True),
    ],
)
def test_two_patients_are_refused_without_repeating_who_they_are(stub, attribute, first, second, are_two):
    folder = stub(ap={"header": header(**{attribute: first})}, lat={"header": header(**{attribute: second})})
    if not are_two:
        assert len(find_exam(folder)[0]) == 2
        return
    with pytest.raises(ValueError, match=f"two patients, by {attribute}") as refusal:
        find_exam(folder)[0]
    assert str(first) not in str(refusal.value).replace(str(folder), "")


ANNA = {"PatientID": "4711", "PatientName": "Doe^Anna"}


@pytest.mark.parametrize(
    ("frontal", "lateral", "nameless"),
    [
        (ANNA, ANNA, None),
        ({}, {}, None),
        ({"PatientSex": "F"}, {}, None),
        (ANNA, {"PatientName": "Doe^Anna"}, None),
        ({"PatientID": "4711"}, ANNA, None),
        (ANNA, {}, "lat.dcm"),
        (ANNA, {"PatientID": "", "PatientName": "^", "PatientSex": "F"}, "lat.dcm"),
        ({}, {"PatientName": "Doe^Anna"}, "ap.dcm"),
        ({"PatientID": "4711"}, {"PatientName": "Doe^Anna"}, "ap.dcm"),
    ],
)
def test_a_film_that_may_be_of_anybody_is_warned_of_by_its_file_alone(stub, frontal, lateral, nameless):
    folder = stub(ap={"header": header(**frontal)}, lat={"header": header(**lateral)})
    found = find_exam(folder)[0]
    warnings = {Path(film.path).name: film.warnings for film in found.values()}
    assert {name for name, said in warnings.items() if said} == ({nameless} if nameless else set())
    for text in warnings.get(nameless, ()):
        assert text.startswith(str(folder / nameless)) and "one patient" in text
        assert "4711" not in text.replace(str(folder), "") and "Anna" not in text


def test_a_picture_beside_a_film_of_a_patient_is_warned_of(stub):
    found = find_exam(stub(ap={"header": header(**ANNA)}, lat={}))[0]
    assert "PatientID and PatientName" in found["lateral"].warnings[0] and not found["frontal"].warnings


def test_two_studies_are_warned_of_once(stub):
    folder = stub(ap={"header": header(StudyInstanceUID="1.2")}, lat={"header": header(StudyInstanceUID="1.3")})
    warnings = [warning for radiograph in find_exam(folder)[0].values() for warning in radiograph.warnings]
    assert len(warnings) == 1 and "from two studies" in warnings[0]


def test_what_the_reader_warned_of_is_kept(stub):
    found = find_exam(stub(ap={"warnings": ("clipped",)}, lat={}))[0]
    assert found["frontal"].warnings == ("clipped",)


def test_frame_and_intensity_reach_the_reader(tmp_path, monkeypatch):
    asked = []

    def read(path, frame, intensity):
        asked.append((frame, intensity))
        return [film(path, seed=len(asked))]

    monkeypatch.setattr(views, "read_radiographs", read)
    for name in ("ap.dcm", "lat.dcm"):
        (tmp_path / name).write_bytes(b"x")
    find_exam(tmp_path, frame=3, intensity="log")[0]
    find_exam({"frontal": tmp_path / "ap.dcm", "lateral": tmp_path / "lat.dcm"}, frame=4)[0]
    assert asked == [(3, "log"), (3, "log"), (4, None), (4, None)]


@pytest.mark.parametrize("given", ["lateral,frontal", ("frontal", "lateral"), "frontal , lateral"])
def test_both_views_are_chosen_in_any_order_and_form(given):
    assert choose_views(given, one_view=False) == ViewChoice(VIEWS)


@pytest.mark.parametrize("given", ["", "top", "frontal,top", "frontal,frontal", [], "frontal;lateral"])
def test_views_that_there_are_not_cannot_be_chosen(given):
    with refused(ValueError, "--views", "frontal or lateral", "got "):
        choose_views(given, one_view=True)


@pytest.mark.parametrize("view", VIEWS)
def test_one_view_is_for_networks_that_were_trained_for_it(view):
    assert choose_views(view, one_view=True).used == (view,)
    with refused(ValueError, "--views", "both views", f"got '{view}'"):
        choose_views(view, one_view=False)


ONE = {view: ViewChoice((view,), True) for view in VIEWS}


@pytest.mark.parametrize("view", VIEWS)
def test_one_view_is_the_same_with_the_other_and_without(exam, view):
    path = exam / f"{view}.nii.gz"
    packed = exam / "packed.nii"
    nib.save(nib.Nifti1Image(np.stack([pixels(0), pixels(1)], axis=-1), np.diag([2.0, 2, 1, 1])), packed)
    with zipfile.ZipFile(exam / "one.zip", "w") as archive:
        archive.write(path, path.name)
    both = {name: exam / f"{name}.nii.gz" for name in VIEWS}
    alone = exam / "alone"
    alone.mkdir()
    sources = [[path], {view: path}, exam / "one.zip", both, list(both.values()), path, packed]
    for source in sources:
        assert_is_one(find_exam(source, choice=ONE[view])[0], view)
    packed.unlink()
    (exam / "one.zip").unlink()
    assert_is_one(find_exam(exam, choice=ONE[view])[0], view)
    path.rename(alone / path.name)
    assert_is_one(find_exam(alone, choice=ONE[view])[0], view)


def assert_is_one(found, view):
    assert list(found) == [view] == [found[view].view]
    np.testing.assert_array_equal(found[view].pixels, pixels(VIEWS.index(view))[::-1, ::-1].T)
    assert found[view].orientation == {"frontal": "LF", "lateral": "PF"}[view] and found[view].warnings == ()


def test_of_a_view_that_is_not_used_nothing_is_asked(stub):
    folder = stub(ap={"header": header(StudyInstanceUID="1")}, unknown={"header": header(StudyInstanceUID="2")})
    found = find_exam(folder, choice=ONE["frontal"])[0]["frontal"]
    assert Path(found.path).name == "ap.dcm" and found.warnings == ()
    with pytest.raises(ValueError, match="unknown.dcm: .* --lateral$"):
        find_exam(folder, choice=ONE["lateral"])[0]


def test_files_of_two_patients_are_no_exam_whichever_view_is_used(stub):
    folder = stub(ap={"header": header(PatientID="1")}, lat={"header": header(PatientID="2")})
    with pytest.raises(ValueError, match="two patients, by PatientID"):
        find_exam(folder, choice=ONE["lateral"])[0]


@pytest.mark.parametrize(
    ("films", "message"),
    [
        ({}, "frontal radiograph, .*got 0; .*--frontal$"),
        ({"a": {}, "b": {}, "c": {}}, r"got 3 \(.*--frontal$"),
        ({"lat": {}}, "lat.dcm: .*lateral view, .*--views lateral$"),
        ({"ap": {}, "pa": {}}, "both are frontal views"),
        ({"a": {}}, "a.dcm: .*name .*--frontal$"),
    ],
)
def test_an_exam_without_the_one_view_is_refused(stub, films, message):
    with pytest.raises(ValueError, match=message):
        find_exam(stub(**films), choice=ONE["frontal"])[0]


def test_one_of_two_views_is_refused_with_the_option_if_the_network_takes_one(stub):
    folder, both_or_one = stub(ap={}), ViewChoice(VIEWS, True)
    for source in (folder, {"frontal": folder / "ap.dcm"}):
        with refused(ValueError, "one view", "--views frontal", "--views lateral"):
            find_exam(source, choice=both_or_one)[0]
        with pytest.raises(ValueError) as refusal:
            find_exam(source)[0]
        assert "--views" not in str(refusal.value)


def demo():
    return read_case(DEMO).line_integrals.numpy(), read_geometry(DEMO / "geometry.json")


def test_two_views_of_one_body_agree():
    assert disagreements(*demo()) == []


def test_swapped_views_are_noticed_by_the_width_of_the_shadow_on_any_affine_scale():
    image, geometry = demo()
    for scaled in (image, 300 * image + 900):
        (warning,) = disagreements(scaled[::-1], geometry)
        assert "as wide as the lateral one's" in warning and "are the views swapped?" in warning


@pytest.mark.parametrize("pixels_too_high", [-24, 20])
def test_views_at_different_heights_are_noticed_in_mm(pixels_too_high):
    image, geometry = demo()
    moved = np.stack([image[0], np.roll(image[1], pixels_too_high, axis=1)])
    (warning,) = disagreements(moved, geometry)
    expected_mm = abs(pixels_too_high) * geometry.detector_spacing_mm * 785 / 1200
    found_mm = float(warning.split(" seems ")[1].split(" mm")[0])
    assert abs(found_mm - expected_mm) < 7
    assert ("too high" if pixels_too_high > 0 else "too low") in warning


def test_images_without_any_structure_along_the_height_do_not_disagree():
    geometry = preset("carm", (16, 16, 16), 20.0, 32)
    flat = np.ones((32, 32)) * np.hanning(32)[:, None]
    assert disagreements(np.stack([flat, flat]), geometry) == []


def test_another_patients_lateral_is_noticed_by_what_its_rows_attenuate():
    image, geometry = demo()
    assert disagreements(image, geometry, is_absolute=True) == []
    stretched = image[1] * np.linspace(0.6, 1.4, image.shape[2])  # another distribution along the height
    (warning,) = disagreements(np.stack([image[0], stretched]), geometry, is_absolute=True)
    assert "one patient" in warning and "limit 19%" in warning
    assert disagreements(np.stack([image[0], stretched]), geometry) == []
