"""inference.json as a user runs it: two radiographs in, a CT out, and bad input refused."""

import csv
import functools
import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from scripts.dicom.read_ct import read_series
from scripts.dicom.write_radiograph import FORMS, simulated_header, write_dx
from scripts.geometry import VIEWS, read_geometry
from scripts.io.case import read_case
from scripts.io.digest import sha256
from scripts.io.errors import stated_cause
from scripts.phantom.torso import torso

BUNDLE = Path(__file__).parents[2] / "bundle"
CONFIG = BUNDLE / "configs" / "inference.json"
DEMO = BUNDLE / "docs" / "demo"


@pytest.fixture
def command_line(monai_bundle, tmp_path):
    """Runs inference through MONAI's command line, from a folder of its own."""
    return functools.partial(monai_bundle, "run", tmp_path, config_file=CONFIG)


def infer(output_dir, **options):
    """Run inference here, in one step and on the network's grid unless told; returns the demo case's volume in HU."""
    options = {"input": str(DEMO), "outputs": "nifti", "steps": 1, "grid_factor": 1, **options}
    workflow = ConfigWorkflow(str(CONFIG), workflow_type="inference", output_dir=str(output_dir), **options)
    workflow.initialize()
    workflow.run()
    return nib.load(output_dir / "demo" / "ct.nii.gz").get_fdata()


@pytest.fixture(scope="module")
def demo_output(tmp_path_factory):
    """The output folder of the demo case."""
    folder = tmp_path_factory.mktemp("demo")
    infer(folder)
    return folder


@pytest.fixture
def demo_hu(demo_output):
    """The volume of the demo case."""
    return nib.load(demo_output / "demo" / "ct.nii.gz").get_fdata()


def refused(tmp_path, **options):
    """The message of the ValueError that inference ends with, having written nothing."""
    with pytest.raises(Exception) as caught:
        infer(tmp_path / "out", **options)
    cause = stated_cause(caught.value)
    assert cause is not None, repr(caught.value)
    assert not list((tmp_path / "out").glob("**/*.*")), "something was written"
    return str(cause)


@pytest.fixture
def case(tmp_path):
    """A copy of the demo case to damage."""
    return Path(shutil.copytree(DEMO, tmp_path / "case"))


def test_an_exam_is_never_replaced_by_its_own_result(tmp_path):
    shutil.copytree(DEMO, tmp_path / "demo")
    before = {path.name: sha256(path) for path in (tmp_path / "demo").iterdir()}
    with pytest.raises(Exception) as caught:
        infer(tmp_path, input=str(tmp_path / "demo"))
    assert "demo: exists and holds no result.json, so it is not replaced" in str(stated_cause(caught.value))
    assert {path.name: sha256(path) for path in (tmp_path / "demo").iterdir()} == before


def test_demo_runs_from_any_working_directory_and_leaves_ct_spread_picture_and_record(command_line, tmp_path):
    done = command_line(input=DEMO, output_dir=tmp_path / "out", steps=1, samples=2, seed=7)
    assert done.wait() == 0, done.output[-2000:]
    folder = tmp_path / "out" / "demo"
    files = ["ct.nii.gz", "dicom", "figure.png", "report.html", "result.json", "std.nii.gz", "thumbnail.jpg"]
    assert sorted(p.name for p in folder.iterdir()) == files
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["demo", "index.html", "summary.csv"]
    ct, std = nib.load(folder / "ct.nii.gz"), nib.load(folder / "std.nii.gz")
    assert ct.shape == std.shape == (128, 128, 128)
    assert ct.get_data_dtype() == np.int16
    assert nib.aff2axcodes(ct.affine) == ("R", "A", "S")
    np.testing.assert_allclose(np.diag(ct.affine), [2.5, 2.5, 2.5, 1])
    np.testing.assert_allclose(ct.affine @ [63.5, 63.5, 63.5, 1], [0, 0, 0, 1], atol=1e-5)
    assert -1024 <= ct.get_fdata().min() < -900, "air around the patient"
    assert std.get_fdata().max() > 0
    record = json.loads((folder / "result.json").read_text())
    assert "NOT FOR DIAGNOSTIC USE" in record["notice"]
    assert record["seed"] == 7 and record["steps"] == 1 and record["samples"] == 2
    assert record["sampler"] == "DPMSolverPP2M()"
    assert record["geometry"]["source_to_isocentre_mm"] == 785.0
    assert len(record["weights_sha256"]) == 64
    assert {Path(p).name for p in record["inputs_sha256"]} == {"frontal.nii.gz", "lateral.nii.gz", "geometry.json"}


def test_same_seed_gives_the_same_volume_and_another_seed_another(tmp_path, demo_hu):
    again, other = (infer(tmp_path / str(seed), seed=seed) for seed in (0, 3))
    assert np.array_equal(demo_hu, again)
    assert not np.array_equal(demo_hu, other)


def test_consistency_meets_the_films_and_is_stated_and_without_steps_it_changes_nothing(tmp_path):
    options = {"stage1_def#network#_target_": "scripts.networks.correcting.SelfCorrecting"}
    usual = infer(tmp_path / "off", **options)
    off = json.loads((tmp_path / "off" / "demo" / "result.json").read_text())
    assert not [name for name in off if "consistency" in name and off[name] is not None]
    none = infer(tmp_path / "none", consistency=0.02, consistency_steps=0, **options)
    assert np.array_equal(none, usual)
    infer(tmp_path / "on", consistency=0.02, **options)
    on = json.loads((tmp_path / "on" / "demo" / "result.json").read_text())
    assert (on["consistency"], on["consistency_steps"]) == (0.02, 8)
    assert all(on["reprojection_error"][view] < off["reprojection_error"][view] / 2 for view in VIEWS)


def test_the_grid_is_the_network_s_or_finer_and_the_finer_one_meets_the_films(tmp_path, demo_output, demo_hu):
    fine = infer(tmp_path, grid_factor=2)
    assert demo_hu.shape == (64, 64, 64) and fine.shape == (128, 128, 128)
    means = fine.reshape(64, 2, 64, 2, 64, 2).mean((1, 3, 5))
    phantom = torso(9004, (64, 64, 64), 5.0).hu.numpy()
    error, finer_error = (np.abs(hu - phantom).mean() for hu in (demo_hu, means))
    assert finer_error < error - 4 and error < 75, "the refined volume is nearer to the patient"
    with_network, finer = (
        json.loads((folder / "demo" / "result.json").read_text()) for folder in (demo_output, tmp_path)
    )
    assert (with_network["grid_factor"], finer["grid_factor"]) == (1, 2)
    assert finer["geometry"]["volume_shape"] == [128, 128, 128]
    assert all(finer["reprojection_error"][view] < 0.02 for view in VIEWS)


@pytest.mark.parametrize("factor", [2, 4])
def test_the_finer_grid_is_refined_by_the_shipped_stage_which_is_recorded(tmp_path, factor):
    refined = infer(tmp_path / "refined", grid_factor=factor)
    interpolated = infer(tmp_path / "interpolated", grid_factor=factor, refining_weights="")
    assert refined.shape == interpolated.shape == (64 * factor,) * 3
    assert 5 < np.abs(refined - interpolated).mean() < 50
    stage = sha256(BUNDLE / "models" / "auxiliary" / "refining.pt")
    folders = tmp_path / "refined", tmp_path / "interpolated"
    records = [json.loads((folder / "demo" / "result.json").read_text()) for folder in folders]
    assert records[0]["refining_sha256"] == stage and "refining_sha256" not in records[1]
    assert records[0]["passes"] == 6 and "passes" not in records[1]


@pytest.mark.parametrize(("passes", "fitted"), [(6, True), (2, False)])
def test_errors_are_predicted_only_for_the_passes_that_they_were_fitted_for(passes, fitted):
    config = ConfigParser()
    config.read_config(CONFIG)
    config.update({"passes": passes, "device": torch.device("cpu")})
    assert (config.get_parsed_content("predicted_error") is not None) == fitted


def test_other_weights_are_not_refined_by_the_shipped_stage(tmp_path):
    state = torch.load(BUNDLE / "models" / "model.pt", weights_only=True)
    learnt = {name: 1.01 * value for name, value in state.items() if value.dtype == torch.float16}
    torch.save(state | learnt, tmp_path / "other.pt")
    infer(tmp_path, grid_factor=2, weights=str(tmp_path / "other.pt"), reference="", film_check="")
    assert "refining_sha256" not in json.loads((tmp_path / "demo" / "result.json").read_text())


@pytest.mark.parametrize("factor", [0, -2, 1.5, "two", 50])
def test_a_grid_that_cannot_be_is_refused(tmp_path, factor):
    assert str(factor) in (message := refused(tmp_path, grid_factor=factor)) or "voxels" in message


def test_highdicom_is_needed_only_for_the_map_that_it_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("scripts.dicom.write_parametric_map.has_highdicom", False)
    assert "pip install highdicom" in refused(tmp_path, outputs="dicom,parametric_map")
    infer(tmp_path, outputs="nifti,dicom")


@pytest.mark.parametrize("temperature", [0, -2, "nan", "warm"])
def test_a_temperature_that_is_no_factor_is_refused(tmp_path, temperature):
    assert "--std_temperature" in refused(tmp_path, std_temperature=temperature)


def test_intervals_do_not_hold_for_consistent_volumes(tmp_path):
    assert "no --consistency" in refused(tmp_path, steps=2, consistency=0.02, interval=0.9)


@pytest.mark.parametrize("level", [0, 0.01, 0.999, 1.5, "wide"])
def test_a_level_without_an_interval_is_refused(tmp_path, level):
    assert str(level) in refused(tmp_path, interval=level)


def test_one_pair_of_files_gives_the_volume_of_their_case_folder(tmp_path, demo_hu):
    files = {"frontal": "frontal.nii.gz", "lateral": "lateral.nii.gz", "geometry_file": "geometry.json"}
    from_pair = infer(tmp_path, input=None, **{option: str(DEMO / file) for option, file in files.items()})
    assert np.array_equal(demo_hu, from_pair)


def films(folder):
    """Both radiographs of the demo case as DICOM."""
    folder.mkdir()
    header = simulated_header("demo", "exam")
    image, geometry = read_case(DEMO).line_integrals.numpy(), read_geometry(DEMO / "geometry.json")
    for view, pixels in zip(VIEWS, image, strict=True):
        write_dx(folder / f"{view}.dcm", pixels, view, geometry, header, FORMS["processing"])
    return folder


def test_one_view_on_the_command_line_is_reported_as_such(command_line, tmp_path):
    options = {"views": "frontal", "one_view": "true", "air_value": 60000}
    path = films(tmp_path / "exam") / "frontal.dcm"
    done = command_line(frontal=path, output_dir=tmp_path / "out", **options)
    assert done.wait() == 0, done.output[-2000:]
    folder = tmp_path / "out" / "exam"
    record = json.loads((folder / "result.json").read_text())
    assert record["views"] == ["frontal"] and list(record["reprojection_error"]) == ["frontal"]
    assert "the frontal radiograph alone" in record["notice"]
    assert record["warnings"][0].startswith("reconstructed from the frontal view alone: where things lie from front to")
    assert [Path(file).name for file in record["inputs_sha256"]] == ["frontal.dcm"]
    page = (folder / "report.html").read_text()
    assert "Lateral radiograph: not given." in page and "Frontal film as read" in page
    ct = pydicom.dcmread(next((folder / "dicom" / "ct").glob("*.dcm")))
    (source,) = ct.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == pydicom.dcmread(path).SOPInstanceUID
    assert ct.SeriesDescription == "SYNTHETIC CT from 1 X-ray (frontal), NOT FOR DIAGNOSTIC USE"
    (row,) = csv.DictReader((tmp_path / "out" / "summary.csv").open())
    assert row["status"] == "done" and row["reprojection_lateral"] == "" and float(row["reprojection_frontal"]) > 0


@pytest.mark.parametrize("view", [pytest.param("frontal", marks=pytest.mark.slow), "lateral"])
def test_a_view_of_an_exam_with_both_gives_bit_for_bit_the_volume_of_that_view_alone(tmp_path, view):
    demo, options = films(tmp_path / "demo"), {"views": view, "one_view": True, "air_value": 60000}
    of_both = infer(tmp_path / "a", input=str(demo), **options)
    assert np.array_equal(of_both, infer(tmp_path / "b", input=None, **{view: str(demo / f"{view}.dcm")}, **options))


@pytest.mark.slow
def test_other_views_make_another_result_beside_the_first(tmp_path):
    def run(**options):
        infer(tmp_path, one_view=True, **options)
        (row,) = csv.DictReader((tmp_path / "summary.csv").open())
        return row["status"], json.loads((tmp_path / row["folder"] / "result.json").read_text())["views"]

    assert run() == ("done", list(VIEWS))
    assert run(views="lateral") == ("done", ["lateral"])
    assert run(views=["lateral"]) == ("kept", ["lateral"])
    assert run(views="frontal") == ("done", ["frontal"])
    assert run() == ("kept", list(VIEWS))


def test_an_exam_whose_output_is_its_own_folder_is_the_same_exam_ever_after(tmp_path):
    demo = films(tmp_path / "demo")
    first, again = (infer(demo, input=str(demo), air_value=60000, seed=seed) for seed in (0, 0))
    (row,) = csv.DictReader((demo / "summary.csv").open())
    assert row["status"] == "kept" and np.array_equal(first, again)


@pytest.mark.slow
def test_every_sampler_is_chosen_by_name(tmp_path):
    ddpm, ddim = (infer(tmp_path / name, sampler=name, steps=2) for name in ("ddpm", "ddim"))
    assert not np.array_equal(ddpm, ddim)
    names = {"ddpm": "DDPM()", "ddim": "DDIM(eta=0.0)"}  # the third is the default
    records = {name: json.loads((tmp_path / name / "demo" / "result.json").read_text()) for name in names}
    assert {name: record["sampler"] for name, record in records.items()} == names


def test_one_broken_case_among_several_is_named_and_does_not_lose_the_others(tmp_path, case):
    (case / "lateral.nii.gz").unlink()
    shutil.copytree(DEMO, tmp_path / "cases" / "demo")
    case.rename(tmp_path / "cases" / "broken")
    with pytest.raises(RuntimeError) as caught:
        infer(tmp_path / "out", input=str(tmp_path / "cases"))
    assert re.match(r"1 of 2 exams failed(.|\n)*lateral.nii.gz.*missing", str(stated_cause(caught.value)))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["demo", "index.html", "summary.csv"]


@pytest.mark.slow
def test_another_reference_makes_another_result(tmp_path, demo_output):
    shutil.copytree(demo_output, tmp_path, dirs_exist_ok=True)
    record = json.loads((tmp_path / "demo" / "result.json").read_text())
    assert record["reference_sha256"] == sha256(BUNDLE / "models" / "radiographs.json")
    infer(tmp_path, reference="")
    assert json.loads((tmp_path / "demo" / "result.json").read_text())["reference_sha256"] is None


def test_support_by_the_films_is_written_with_the_digest_of_the_mean_it_refers_to(tmp_path):
    infer(tmp_path, support="true", intervals="")
    support = nib.load(tmp_path / "demo" / "support.nii.gz").get_fdata()
    assert support.shape == (64, 64, 64) and 0 <= support.min() < 0.2 < 0.8 < support.max() <= 1
    record = json.loads((tmp_path / "demo" / "result.json").read_text())
    assert record["mean_volume_sha256"] == sha256(BUNDLE / "models" / "auxiliary" / "mean_volume.nii.gz")


def test_a_new_result_replaces_the_old_one_whole(tmp_path):
    infer(tmp_path, samples=2)
    infer(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["demo", "index.html", "summary.csv"]
    assert not (tmp_path / "demo" / "std.nii.gz").exists()


def damage_nan(case):
    image = nib.load(case / "frontal.nii.gz")
    pixels = image.get_fdata(dtype=np.float32)
    pixels[3, 4] = np.nan
    nib.save(nib.Nifti1Image(pixels, image.affine), case / "frontal.nii.gz")


def damage_constant(case):
    image = nib.load(case / "lateral.nii.gz")
    nib.save(nib.Nifti1Image(np.full(image.shape, 2.0, np.float32), image.affine), case / "lateral.nii.gz")


def damage_size(case):
    image = nib.load(case / "lateral.nii.gz")
    nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32)[:64, :64], image.affine), case / "lateral.nii.gz")


def damage_pitch(case):
    image = nib.load(case / "frontal.nii.gz")
    affine = image.affine.copy()
    affine[:2, :2] *= 0.5
    nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32), affine), case / "frontal.nii.gz")


def damage_geometry(case):
    values = json.loads((case / "geometry.json").read_text())
    (case / "geometry.json").write_text(json.dumps({**values, "source_to_isocentre_mm": 300.0}))


def damage_swap_for_copy(case):
    shutil.copy(case / "frontal.nii.gz", case / "lateral.nii.gz")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: (c / "lateral.nii.gz").unlink(), r"lateral\.nii\.gz.*missing"),
        (lambda c: (c / "geometry.json").unlink(), "never guessed.*--source_to_detector_mm"),
        (lambda c: (c / "frontal.nii.gz").write_bytes(b"not an image"), r"frontal\.nii\.gz"),
        (damage_nan, r"frontal\.nii\.gz.*(NaN|finite)"),
        (damage_constant, r"lateral\.nii\.gz.*constant"),
        (damage_size, r"lateral\.nii\.gz.*64 x 64"),
        (damage_pitch, r"frontal\.nii\.gz.*detector_spacing_mm"),
        (damage_geometry, r"film: shows \d+% of"),
        (damage_swap_for_copy, "identical"),
    ],
)
def test_bad_case_is_refused_with_one_clear_error(tmp_path, case, damage, message):
    damage(case)
    assert re.search(message, refused(tmp_path, input=str(case)))


def test_two_dicom_radiographs_become_a_ct_series_of_the_same_study(command_line, tmp_path, demo_hu):
    header, exam = simulated_header("Müller^Änne", "exam"), tmp_path / "exam"
    exam.mkdir()
    image, geometry = read_case(DEMO).line_integrals.numpy(), read_geometry(DEMO / "geometry.json")
    for view, pixels in zip(VIEWS, image, strict=True):
        write_dx(exam / f"{view}.dcm", pixels, view, geometry, header, FORMS["processing"])
    outputs = "nifti,dicom,report"
    done = command_line(
        input=exam, output_dir=tmp_path / "out", air_value=60000, outputs=outputs, steps=1, grid_factor=1
    )
    assert done.wait() == 0, done.output[-2000:]
    folder = tmp_path / "out" / "exam"
    slices = [pydicom.dcmread(path) for path in sorted((folder / "dicom" / "ct").glob("*.dcm"))]
    assert len(slices) == 64
    assert {s.StudyInstanceUID for s in slices} == {header.StudyInstanceUID}
    assert {str(s.PatientID) for s in slices} == {"Müller^Änne"}
    hu, affine = read_series(sorted((folder / "dicom" / "ct").glob("*.dcm")))
    nifti = nib.load(folder / "ct.nii.gz")
    in_nifti_axes = nib.Nifti1Image(hu, affine).as_reoriented(nib.io_orientation(affine))
    np.testing.assert_array_equal(in_nifti_axes.get_fdata(), nifti.get_fdata())
    np.testing.assert_allclose(in_nifti_axes.affine, nifti.affine, atol=1e-3)
    assert "NOT FOR DIAGNOSTIC USE" in (folder / "report.html").read_text()
    assert np.abs(nifti.get_fdata() - demo_hu).mean() < 5, "but for the rounding of counts, the demo's own volume"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "euler"}, "unknown sampler 'euler'; choose one of ddim, ddpm, dpmpp_2m"),
        ({"steps": 0}, "steps must be between 1 and"),
        ({"steps": 1001}, "got 1001"),
        ({"samples": 0}, "must be at least 1, got 0"),
        ({"steps": "two"}, "--steps takes a whole number, got 'two'"),
        ({"samples": 2.5}, "--samples takes a whole number, got 2.5"),
        ({"consistency": "low"}, "--consistency takes a number, got 'low'"),
        ({"power": "high"}, "--power takes a number, got 'high'"),
        ({"input": None}, "nothing to reconstruct: give --input, .* the demo is --input .*docs/demo"),
        ({"input": "no/such/folder"}, "no such folder"),
        ({"input": None, "frontal": "f.nii.gz"}, "missing --lateral"),
        ({"views": "frontal"}, "trained with both views and would take a missing one for air, got 'frontal'"),
        ({"views": "top", "one_view": True}, "--views: choose frontal or lateral, or both"),
        ({"input": None, "frontal": "f.nii.gz", "one_view": True}, "missing --lateral; this network also takes one"),
        ({"weights": "no/such/model.pt"}, "no weights"),
        ({"weights": str(DEMO / "geometry.json")}, "damaged, or not written by torch.save"),
        ({"stage1_def#channels": [48, 96, 96]}, "weights of another network"),
        ({"stage1_def#patch": 3}, "must be divisible by 12"),
        ({"geometry#volume_spacing_mm": -1}, "volume_spacing_mm must be a positive number of millimetres, got -1"),
    ],
)
def test_bad_option_is_refused_with_one_clear_error(tmp_path, options, message):
    assert re.search(message, refused(tmp_path, **options))


def test_folders_named_by_date_or_with_signs_are_those_that_were_typed(command_line, tmp_path):
    for name in ("p1", "p1#2"):
        films(tmp_path / name)
    done = command_line(input="p1#2", output_dir="20241129", outputs="nifti", air_value=60000, steps=1)
    assert done.wait() == 0, done.output[-2000:]
    record = json.loads((tmp_path / "20241129" / "p1_2" / "result.json").read_text())
    assert record["exam"] == "p1#2"
    assert set(record["inputs_sha256"]) == {f"p1#2/{view}.dcm" for view in VIEWS}


def test_on_the_command_line_bad_input_is_one_message_and_not_a_traceback(command_line, tmp_path):
    done = command_line(input=tmp_path / "nothing", output_dir=tmp_path / "out")
    assert done.wait() == 1
    assert f"error: {tmp_path / 'nothing'}: no such folder" in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("view", "axis"), [("frontal", -2), ("lateral", -2), ("lateral", -1)])
def test_a_film_the_wrong_way_round_is_named_since_it_does_not_fit_the_other_one(tmp_path, view, axis):
    case = shutil.copytree(DEMO, tmp_path / "demo")
    image = nib.load(case / f"{view}.nii.gz")
    data = np.asarray(image.dataobj)
    flat = data.reshape(data.shape[0], data.shape[1])
    turned = np.flip(flat, axis).reshape(data.shape)
    nib.save(nib.Nifti1Image(turned, image.affine, image.header), case / f"{view}.nii.gz")
    infer(tmp_path / "out", input=str(case), reference="")
    warnings = json.loads((tmp_path / "out" / "demo" / "result.json").read_text())["warnings"]
    words = "mirrored" if axis == -2 else "upside down and mirrored"
    assert any(f"{view} film: looks {words}" in warning for warning in warnings)
