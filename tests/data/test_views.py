"""Two radiographs of one exam, found, told apart and compared."""

import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, XRayRadiationDoseSRStorage, generate_uid

from scripts.data import views
from scripts.data.views import disagreements, find_views
from scripts.geometry import preset, read_geometry
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
    monkeypatch.setattr(views, "read_radiographs", lambda path, frame=None: known[Path(path).name])

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
        assert_is_the_exam(find_views(source))


def test_a_packed_file_holds_both_views(tmp_path):
    packed = np.stack([pixels(0), pixels(1)], axis=-1)
    nib.save(nib.Nifti1Image(packed, np.eye(4)), tmp_path / "exam.nii.gz")
    for source in (tmp_path / "exam.nii.gz", tmp_path, [tmp_path / "exam.nii.gz"]):
        assert_is_the_exam(find_views(source))


def test_files_in_a_zip_go_by_the_zips_path(exam):
    path = exam / "exam.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for view in ("frontal", "lateral"):
            archive.write(exam / f"{view}.nii.gz", f"{view}.nii.gz")
    assert find_views(path)["lateral"].path == f"{path}/lateral.nii.gz"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("third.dcm", "damaged")
    with pytest.raises(ValueError, match=r"exam.zip: .* got 3 \(.*exam.zip/third.dcm"):
        find_views(path)


def test_folders_may_be_nested_once_below_a_chain_of_single_ones(exam):
    for view in ("frontal", "lateral"):
        folder = exam / "patient" / "study" / f"series of {view}"
        folder.mkdir(parents=True)
        (exam / f"{view}.nii.gz").rename(folder / f"{view}.nii.gz")
    assert_is_the_exam(find_views(exam))
    (exam / "other").mkdir()
    with pytest.raises(ValueError, match="got 0"):
        find_views(exam)


def test_hidden_files_and_files_that_are_no_images_are_ignored(exam):
    (exam / ".hidden.dcm").write_bytes(b"x")
    (exam / "notes.txt").write_text("frontal.dcm")
    (exam / "acquisition.json").write_text("{}")
    (exam / "__MACOSX").mkdir()
    (exam / "__MACOSX" / "frontal.nii.gz").write_bytes(b"x")
    write_report(exam / "dose.dcm")
    write_report(exam / "dose without suffix")
    assert_is_the_exam(find_views(exam))


@pytest.mark.parametrize("name", ["damaged.dcm", "damaged"])
def test_a_damaged_file_that_claims_to_be_dicom_is_an_error(exam, name):
    (exam / "lateral.nii.gz").unlink()
    (exam / name).write_bytes(b"\0" * 128 + b"DICM" + b"damaged" * 9 if name == "damaged" else b"damaged" * 40)
    with pytest.raises(ValueError, match=f"{name}: "):
        find_views(exam)


def test_pictures_are_found_by_content_and_told_apart_by_name(tmp_path):
    for seed, name in enumerate(("IM1_PA.x", "chest-lat2.jpg")):
        Image.fromarray((pixels(seed) * 50).astype(np.uint8)).save(tmp_path / name, format="PNG")
    found = find_views(tmp_path)
    assert [Path(radiograph.path).name for radiograph in found.values()] == ["IM1_PA.x", "chest-lat2.jpg"]
    assert found["frontal"].orientation is None  # only a NIfTI file's arrangement is known without being stated


@pytest.mark.parametrize("count", [0, 1, 3, 20])
def test_anything_but_two_radiographs_is_refused_with_their_names(stub, count):
    folder = stub(**{f"image{i:02d}": {} for i in range(count)})
    with pytest.raises(ValueError, match=f"an exam is two radiographs, .* got {count}") as refusal:
        find_views(folder)
    assert all(f"image{i:02d}.dcm" in str(refusal.value) for i in range(min(count, 6)))
    assert "image06" not in str(refusal.value)


def test_more_files_than_two_are_not_even_read(tmp_path, monkeypatch):
    monkeypatch.setattr(views, "read_radiographs", None)
    for name in "abc":
        (tmp_path / f"{name}.dcm").write_bytes(b"x")
    with pytest.raises(ValueError, match="got 3"):
        find_views(tmp_path)


def test_the_file_tells_its_view_before_its_name_does(stub):
    found = find_views(stub(frontal={"view": "lateral"}, two={"view": "frontal"}))
    assert found["lateral"].path.endswith("frontal.dcm") and found["frontal"].path.endswith("two.dcm")
    assert "taken as the lateral view, though its name says frontal" in found["lateral"].warnings[0]
    assert found["frontal"].warnings == ()


@pytest.mark.parametrize("name", ["image1", "pat01", "paper", "ap_lateral", "plateral"])
def test_a_view_that_nothing_tells_is_asked_for_by_name(stub, name):
    with pytest.raises(ValueError, match=f"{name}.dcm: neither the file nor its name.* --frontal and --lateral"):
        find_views(stub(**{name: {}, "z": {"view": "lateral"}}))


@pytest.mark.parametrize("view", ["frontal", "lateral"])
def test_two_views_of_a_kind_are_refused(stub, view):
    with pytest.raises(ValueError, match=f"a.dcm, .*b.dcm: both are {view} views"):
        find_views(stub(a={"view": view}, b={"view": view}))


def test_told_views_that_the_files_contradict_are_refused(stub):
    folder = stub(a={"view": "frontal"}, b={"view": "lateral"})
    with pytest.raises(ValueError, match="b.dcm: given as the frontal view, but by its own account a lateral one"):
        find_views({"frontal": folder / "b.dcm", "lateral": folder / "a.dcm"})


def test_told_views_that_only_the_names_contradict_are_warned_of(stub):
    folder = stub(lateral={}, b={})
    found = find_views({"frontal": folder / "lateral.dcm", "lateral": folder / "b.dcm"})
    assert "taken as the frontal view, though its name says lateral" in found["frontal"].warnings[0]


@pytest.mark.parametrize(
    "mapping", [{"frontal": "a"}, {"frontal": "a", "lateral": None}, {"ap": "a", "lateral": "b"}, {}]
)
def test_a_mapping_names_both_views_and_nothing_else(mapping):
    with pytest.raises(ValueError, match="give a file as --frontal and one as --lateral, got {"):
        find_views(mapping)


def test_a_packed_file_is_no_single_view(tmp_path):
    nib.save(nib.Nifti1Image(np.stack([pixels(0), pixels(1)], axis=-1), np.eye(4)), tmp_path / "both.nii")
    with pytest.raises(ValueError, match="both.nii: holds 2 radiographs; give it alone, not as the frontal view"):
        find_views({"frontal": tmp_path / "both.nii", "lateral": tmp_path / "both.nii"})


def test_the_same_image_twice_is_refused(stub):
    folder = stub(ap={"seed": 3}, lat={"seed": 3})
    with pytest.raises(ValueError, match="ap.dcm, .*lat.dcm: the same image twice"):
        find_views(folder)
    with pytest.raises(ValueError, match="the same image twice"):
        find_views({"frontal": folder / "ap.dcm", "lateral": folder / "ap.dcm"})


@pytest.mark.parametrize(
    ("attribute", "first", "second", "are_two"),
    [
        ("PatientID", "1", "2", True),
        ("PatientID", "1", "", False),
        ("PatientID", " 17", "17 ", False),
        ("PatientName", "Doe^Jane", "Doe^John", True),
        ("PatientName", "DOE^JANE^^", "Doe^Jane", False),
        ("PatientBirthDate", "19700101", "19700102", True),
        ("PatientBirthDate", "19700101", None, False),
    ],
)
def test_two_patients_are_refused_without_repeating_who_they_are(stub, attribute, first, second, are_two):
    folder = stub(ap={"header": header(**{attribute: first})}, lat={"header": header(**{attribute: second})})
    if not are_two:
        assert len(find_views(folder)) == 2
        return
    with pytest.raises(ValueError, match=f"two patients, by {attribute}") as refusal:
        find_views(folder)
    assert str(first) not in str(refusal.value).replace(str(folder), "")


def test_two_studies_are_warned_of_once(stub):
    folder = stub(ap={"header": header(StudyInstanceUID="1.2")}, lat={"header": header(StudyInstanceUID="1.3")})
    warnings = [warning for radiograph in find_views(folder).values() for warning in radiograph.warnings]
    assert len(warnings) == 1 and "from two studies" in warnings[0]


def test_what_the_reader_warned_of_is_kept(stub):
    found = find_views(stub(ap={"warnings": ("clipped",)}, lat={}))
    assert found["frontal"].warnings == ("clipped",)


def test_the_frame_reaches_the_reader(tmp_path, monkeypatch):
    asked = []

    def read(path, frame):
        asked.append(frame)
        return [film(path, seed=len(asked))]

    monkeypatch.setattr(views, "read_radiographs", read)
    for name in ("ap.dcm", "lat.dcm"):
        (tmp_path / name).write_bytes(b"x")
    find_views(tmp_path, frame=3)
    find_views({"frontal": tmp_path / "ap.dcm", "lateral": tmp_path / "lat.dcm"}, frame=4)
    assert asked == [3, 3, 4, 4]


def demo():
    return read_case(DEMO).image.numpy(), read_geometry(DEMO / "geometry.json")


def test_two_views_of_one_body_agree():
    assert disagreements(*demo()) == []


def test_swapped_views_are_noticed_by_the_width_of_the_shadow_on_any_affine_scale():
    image, geometry = demo()
    for scaled in (image, 300 * image + 900):
        (warning,) = disagreements(scaled[::-1], geometry)
        assert "as wide as the lateral one's" in warning and "are the views swapped?" in warning


@pytest.mark.parametrize("pixels_too_high", [-12, 10])
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
