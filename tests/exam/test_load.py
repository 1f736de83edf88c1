"""Exams from any source to network units, with everything that is known about them."""

import json
import shutil
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from pydicom.uid import ComputedRadiographyImageStorage, XRayAngiographicImageStorage
from tests.exam.bad_exams import change
from tests.refusal import refused

from scripts.dicom.write_radiograph import FORMS, simulated_header, write_dx
from scripts.exam.exam import exam_of, to_meta
from scripts.exam.film_values import match_quantiles
from scripts.exam.load import FilmOptions, LoadExamd
from scripts.exam.views import BOTH, ViewChoice
from scripts.geometry import VIEWS, preset, read_geometry
from scripts.intensity import RADIOGRAPH_SCALE
from scripts.io.case import read_case

DEMO = Path(__file__).parents[2] / "bundle" / "docs" / "demo"
GEOMETRY = read_geometry(DEMO / "geometry.json")
CASE = read_case(DEMO)


class DemoReference:
    """Knows the demo's own distribution of values."""

    def adapted(self, view, image, covered):
        own = CASE.line_integrals[VIEWS.index(view)].numpy()[covered]
        return match_quantiles(image, covered, np.quantile(own, np.linspace(0, 1, 401)))

    def warnings(self, image, views):
        return [f"seen {image.shape}, {' and '.join(views)}"]


def load(source, reference=None, choice=BOTH, **options):
    image = LoadExamd("image", GEOMETRY, FilmOptions(**options), reference, choice)({"image": source})["image"]
    return image.as_tensor() / RADIOGRAPH_SCALE, exam_of(image)


@pytest.fixture
def exam(tmp_path):
    return films(tmp_path / "exam")


def films(folder, form="processing"):
    """A folder with the demo's radiographs as DICOM."""
    folder.mkdir()
    header = simulated_header("demo", "exam")
    for view, pixels in zip(VIEWS, CASE.line_integrals.numpy(), strict=True):
        write_dx(folder / f"{view}.dcm", pixels, view, GEOMETRY, header, FORMS[form])
    return folder


def test_a_case_is_scaled_by_the_fixed_constant_and_carries_name_affine_and_digests():
    image, exam = load(str(DEMO))
    torch.testing.assert_close(image, CASE.line_integrals)
    assert exam.name == "demo"
    np.testing.assert_array_equal(exam.affine, GEOMETRY.volume_affine())
    assert {Path(p).name for p in exam.files} == {"frontal.nii.gz", "lateral.nii.gz", "geometry.json"}
    assert exam.warnings == ()


def test_a_case_with_a_missing_view_is_refused(tmp_path):
    shutil.copytree(DEMO, tmp_path / "case")
    (tmp_path / "case" / "lateral.nii.gz").unlink()
    with pytest.raises(ValueError, match="lateral view is missing"):
        load(str(tmp_path / "case"))


def test_dicom_radiographs_of_a_simulated_exam_are_its_line_integrals_up_to_the_rounding_of_counts(exam):
    image, found = load(str(exam), air_value=60000)
    error = (image - CASE.line_integrals).abs()
    assert (error <= torch.exp(CASE.line_integrals) / 60000 + 1e-5).all()
    assert found.inputs["frontal"].film.intensity == "counts"
    assert found.inputs["lateral"].acquisition.orientation == "PF"
    assert found.headers["frontal"].PatientID == "demo"
    assert found.films["frontal"].shape == (256, 256)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("sop_class", [ComputedRadiographyImageStorage, XRayAngiographicImageStorage])
def test_counts_that_only_an_option_tells_are_the_line_integrals_of_files_that_tell_them(exam, sop_class, photometric):
    expected = load(str(exam))[0]
    untold = dict.fromkeys(
        ["PresentationIntentType", "PixelIntensityRelationship", "PixelIntensityRelationshipSign"], None
    )
    for view in VIEWS:
        modality = "CR" if sop_class == ComputedRadiographyImageStorage else "XA"
        changes = {"SOPClassUID": sop_class, "Modality": modality, "PhotometricInterpretation": photometric}
        change(exam / f"{view}.dcm", **changes, **untold)
    image, found = load(str(exam), intensity="counts")
    torch.testing.assert_close(image, expected)
    assert not any("display" in warning or "bone" in warning for warning in found.warnings)


def test_a_dicom_film_told_to_hold_line_integrals_has_no_orientation_but_its_own(exam):
    change(exam / "frontal.dcm", PatientOrientation=None)
    with refused(ValueError, "Give --orientation (frontal)"):
        load(str(exam), intensity="line_integral")


def test_folder_zip_list_mapping_and_nested_folders_are_one_exam(exam, tmp_path):
    files = {view: str(exam / f"{view}.dcm") for view in VIEWS}
    with zipfile.ZipFile(tmp_path / "exam.zip", "w") as archive:
        for path in files.values():
            archive.write(path, Path(path).name)
    for view, path in files.items():
        (tmp_path / "nested" / view).mkdir(parents=True)
        shutil.copy(path, tmp_path / "nested" / view / "IMG0001")
    expected = load(str(exam))[0]
    for source in (str(tmp_path / "exam.zip"), list(files.values()), files, str(tmp_path / "nested")):
        assert torch.equal(load(source)[0], expected)


def test_a_packed_file_of_line_integrals_needs_its_distances_told(tmp_path):
    pitch_mm = GEOMETRY.detector_spacing_mm
    packed = np.moveaxis(CASE.line_integrals.numpy(), 0, -1)
    nib.save(nib.Nifti1Image(packed, np.diag([pitch_mm, pitch_mm, 1, 1])), tmp_path / "packed.nii.gz")
    with refused(ValueError, "never guessed", "--source_to_isocentre_mm", "--source_to_detector_mm"):
        load(str(tmp_path / "packed.nii.gz"))
    told = {
        "source_to_isocentre_mm": 785.0,
        "source_to_detector_mm": 1200.0,
        "source_side": {"frontal": "anterior", "lateral": "right"},
    }
    image, _ = load(str(tmp_path / "packed.nii.gz"), acquisition=told)
    torch.testing.assert_close(image, CASE.line_integrals, atol=1e-5, rtol=0)


def test_a_film_without_absolute_values_gets_those_of_the_reference(tmp_path):
    exam = films(tmp_path / "exam", "presentation")
    image, found = load(str(exam), DemoReference())
    assert (image - CASE.line_integrals).abs().mean() < 0.02
    assert "absolute attenuation is lost" in found.inputs["frontal"].steps[-1]
    assert "seen (2, 256, 256), frontal and lateral" in found.warnings


@pytest.mark.parametrize("form", ["processing", "presentation"])
@pytest.mark.parametrize("view", VIEWS)
def test_of_two_films_one_is_read_as_it_is_alone_and_the_other_channel_is_zero(tmp_path, form, view):
    exam, number = films(tmp_path / "exam", form), VIEWS.index(view)
    (exam / "acquisition.json").write_text(json.dumps({"angle_deg": {VIEWS[1 - number]: 45}}))
    choice = ViewChoice((view,), True)
    both = load(str(exam), DemoReference(), air_value=60000 if form == "processing" else None, choice=choice)
    (exam / f"{VIEWS[1 - number]}.dcm").unlink()
    alone = load(str(exam), DemoReference(), air_value=60000 if form == "processing" else None, choice=choice)
    assert torch.equal(both[0], alone[0]) and to_meta(both[1])["exam"] == to_meta(alone[1])["exam"]
    image, found = both
    assert not image[1 - number].any()
    assert (image[number] - CASE.line_integrals[number]).abs().mean() < 0.03
    assert found.views == tuple(found.inputs) == tuple(found.headers) == tuple(found.films) == (view,)
    assert [Path(path).name for path in found.files] == [f"{view}.dcm"]
    assert found.warnings[0].startswith(f"reconstructed from the {view} view alone: where things lie from ")
    assert found.warnings[-1] == f"seen (2, 256, 256), {view}"


@pytest.mark.parametrize("isocentre_mm", [785.0, 740.0])
@pytest.mark.parametrize("view", VIEWS)
def test_of_a_case_one_view_may_be_missing_if_the_other_is_used(tmp_path, view, isocentre_mm):
    case, other = Path(shutil.copytree(DEMO, tmp_path / "demo")), VIEWS[1 - VIEWS.index(view)]
    values = json.loads((DEMO / "geometry.json").read_text()) | {"source_to_isocentre_mm": isocentre_mm}
    (case / "geometry.json").write_text(json.dumps(values))
    expected = load(str(case))[0]
    expected[VIEWS.index(other)] = 0
    (case / f"{other}.nii.gz").unlink()
    files = {view: str(case / f"{view}.nii.gz"), "geometry_file": str(case / "geometry.json")}
    for source in (str(case), files):
        image, found = load(source, choice=ViewChoice((view,), True))
        assert torch.equal(image, expected) and found.name == "demo"
        assert {Path(p).name for p in found.files} == {f"{view}.nii.gz", "geometry.json"}
    with refused(ValueError, f"{other}.nii.gz", f"{other} view", "missing", "--views"):
        load(str(case), choice=ViewChoice(one_view=True))


def test_pictures_need_their_geometry_and_then_give_the_same_as_dicom(tmp_path):
    (tmp_path / "exam").mkdir()
    for view, pixels in zip(VIEWS, CASE.line_integrals.numpy(), strict=True):
        grey = np.rint(pixels[::-1, ::-1].T / pixels.max() * 65535).astype(np.uint16)
        Image.fromarray(grey).save(tmp_path / "exam" / f"{view}.png")
    with pytest.raises(ValueError, match="(?s)--pixel_spacing_mm.*--orientation"):
        load(str(tmp_path / "exam"), DemoReference())
    told = {
        "source_to_isocentre_mm": 785.0,
        "source_to_detector_mm": 1200.0,
        "pixel_spacing_mm": GEOMETRY.detector_spacing_mm,
        "orientation": {"frontal": "LF", "lateral": "PF"},
        "source_side": {"frontal": "anterior", "lateral": "right"},
    }
    (tmp_path / "exam" / "acquisition.json").write_text(json.dumps(told))
    image, found = load(str(tmp_path / "exam"), DemoReference())
    assert (image - CASE.line_integrals).abs().mean() < 0.02
    assert found.options["acquisition"]["pixel_spacing_mm"] == GEOMETRY.detector_spacing_mm


def test_a_dental_film_is_refused_for_its_size(tmp_path):
    """31 mm x 41 mm of jaw, stated as a frontal film."""
    film = np.tile(np.linspace(0, 255, 620, dtype=np.uint8), (820, 1))
    for view in VIEWS:
        Image.fromarray(film.T if view == "lateral" else film).save(tmp_path / f"{view}.png")
    told = {"source_to_isocentre_mm": 785.0, "source_to_detector_mm": 1200.0, "pixel_spacing_mm": 0.05}
    sides = {
        "orientation": {"frontal": "LF", "lateral": "PF"},
        "source_side": {"frontal": "anterior", "lateral": "right"},
    }
    with refused(ValueError, "frontal.png", "mm square", "40%"):
        load(str(tmp_path), DemoReference(), acquisition=told | sides)


def test_an_option_wins_over_the_file_beside_the_films(exam):
    (exam / "acquisition.json").write_text('{"source_to_isocentre_mm": 800, "rotation_deg": 1}')
    _, found = load(str(exam), acquisition={"source_to_isocentre_mm": 790, "rotation_deg": None})
    assert found.inputs["frontal"].acquisition.source_to_isocentre_mm == 790
    assert found.inputs["frontal"].acquisition.rotation_deg == 1


def test_an_option_of_one_view_leaves_the_other_one_to_the_file_beside_the_films(exam):
    (exam / "acquisition.json").write_text('{"source_side": {"frontal": "posterior", "lateral": "left"}}')
    _, found = load(str(exam), acquisition={"source_side": {"frontal": "anterior"}})
    assert [found.inputs[view].acquisition.source_side for view in VIEWS] == ["anterior", "left"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"intensity": "line_integral"}, ["as line_integral", "--intensity"]),
        ({"air_value": 5}, ["as counts", "-ln(I / 5)", "--air_value"]),
        ({"air_value": 1e60}, ["as counts", "-ln(I / 1e+60)", "--air_value"]),
    ],
)
def test_pixels_that_options_turn_into_no_line_integrals_of_a_body_are_refused(exam, options, named):
    with refused(ValueError, "frontal.dcm", "within [-0.5, 100.0], got [", *named):
        load(str(exam), **options)


def test_a_collimator_that_leaves_next_to_nothing_is_ignored_and_said(exam):
    edges = dict(
        zip(("LeftVertical", "RightVertical", "UpperHorizontal", "LowerHorizontal"), (90, 100) * 2, strict=True)
    )
    changes = {f"Collimator{side}Edge": place for side, place in edges.items()}
    change(exam / "lateral.dcm", CollimatorShape="RECTANGULAR", **changes)
    _, found = load(str(exam))
    (warning,) = (warning for warning in found.warnings if "they are ignored" in warning)
    assert "lateral.dcm: by its header" in warning
    assert found.inputs["lateral"].masked < 0.05


def test_the_acquisition_is_heard_wherever_the_films_may_lie(exam, tmp_path):
    (exam / "acquisition.json").write_text('{"source_to_isocentre_mm": 800}')
    shutil.make_archive(tmp_path / "flat", "zip", exam)
    shutil.make_archive(tmp_path / "study", "zip", tmp_path, "exam")
    shutil.copytree(exam, tmp_path / "above" / "patient" / "study")
    (tmp_path / "above" / "patient" / "study" / "acquisition.json").rename(tmp_path / "above" / "acquisition.json")
    for view in VIEWS:
        (tmp_path / "nested" / view).mkdir(parents=True)
        shutil.copy(exam / f"{view}.dcm", tmp_path / "nested" / view)
    shutil.copy(exam / "acquisition.json", tmp_path / "nested" / "lateral")
    for source in ("exam", "flat.zip", "study.zip", "above", "nested"):
        _, found = load(str(tmp_path / source))
        assert [found.inputs[view].acquisition.source_to_isocentre_mm for view in VIEWS] == [800, 800], source


def test_a_bad_acquisition_file_in_a_zip_goes_by_the_zips_path(exam, tmp_path):
    (exam / "acquisition.json").write_text("[]")
    shutil.make_archive(tmp_path / "packed", "zip", exam)
    with refused(ValueError, "packed.zip/acquisition.json", "object", "got list"):
        load(str(tmp_path / "packed.zip"))


def test_two_acquisition_files_are_refused_whatever_they_say(exam):
    for folder in (exam, exam / "old"):
        folder.mkdir(exist_ok=True)
        (folder / "acquisition.json").write_text("{}")
    with refused(ValueError, "exam/acquisition.json", "old/acquisition.json", "got 2"):
        load(str(exam))


@pytest.mark.parametrize("text", ["[]", "{", '{"sid": 3}'])
def test_a_bad_acquisition_file_is_refused(exam, text):
    (exam / "acquisition.json").write_text(text)
    with pytest.raises(ValueError, match="acquisition"):
        load(str(exam))


@pytest.mark.parametrize(("reference", "adapt"), [(None, True), (DemoReference(), False)])
def test_a_film_without_absolute_values_is_refused_if_it_may_not_be_adapted(tmp_path, reference, adapt):
    with refused(ValueError, "frontal.dcm", "absolute scale"):
        load(str(films(tmp_path / "exam", "presentation")), reference, adapt_intensity=adapt)


def test_a_case_of_another_geometry_is_resampled_and_says_what_that_cannot_undo(tmp_path):
    shutil.copytree(DEMO, tmp_path / "case")
    values = json.loads((DEMO / "geometry.json").read_text())
    (tmp_path / "case" / "geometry.json").write_text(json.dumps({**values, "source_to_isocentre_mm": 740.0}))
    image, found = load(str(tmp_path / "case"))
    assert image.shape == CASE.line_integrals.shape
    assert "resampled" in found.inputs["frontal"].steps[0]


def test_a_geometry_far_from_the_networks_is_refused(tmp_path):
    shutil.copytree(DEMO, tmp_path / "case")
    values = json.loads(preset("x2ct", (128, 128, 128), 2.5, 256).to_json())
    values["detector_spacing_mm"] = GEOMETRY.detector_spacing_mm
    values |= {"frontal_source": "posterior", "lateral_source": "left"}
    (tmp_path / "case" / "geometry.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="case: .* mm"):
        load(str(tmp_path / "case"))


def test_an_unknown_meaning_of_pixels_is_refused():
    with pytest.raises(ValueError, match="--intensity: .*counts.* got 'linear'"):
        FilmOptions(intensity="linear")
