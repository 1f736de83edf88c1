"""A reconstruction's folder: what is in it, and that it is there whole or not at all."""

import json
import math

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from tests.refusal import refused

from scripts import BUNDLE_ROOT
from scripts.exam.acquisition import acquisitions_of
from scripts.exam.exam import Exam, ViewInput, to_meta
from scripts.geometry import VIEWS, preset
from scripts.intensity import hu_to_mu, radiograph_to_network
from scripts.io.digest import sha256
from scripts.io.errors import stated_cause
from scripts.io.nifti import write_volume
from scripts.io.text import strict_json
from scripts.physics.separable import SeparableProjector
from scripts.results.record import provenance
from scripts.results.save import SaveReconstructions, warnings_of
from scripts.results.writers import (
    DrawFigure,
    WriteDicom,
    WriteLightReport,
    WriteNifti,
    WriteParametricMap,
    WriteReport,
    chosen,
    chosen_report,
)

GEOMETRY = preset("carm", (16, 16, 16), 20.0, 24)
PROJECTOR = SeparableProjector(GEOMETRY)
MADE = {"bundle": {"name": "x", "version": "1.0.0"}, "weights_sha256": "0" * 64}


def exam(hu, name="patient one", **found):
    if "truth" in found:
        found["truth_sha256"] = sha256(found["truth"])
    known = Exam(**{"name": name, "views": VIEWS, "affine": GEOMETRY.volume_affine(), "files": {}} | found)
    image = radiograph_to_network(PROJECTOR(hu_to_mu(hu[None, None]))[0])
    given = torch.tensor([view in known.views for view in VIEWS])
    return MetaTensor(image * given[:, None, None], meta=to_meta(known))


def body():
    hu = torch.full((16, 16, 16), -1000.0)
    hu[4:12, 4:12, 4:12] = 40.0
    return hu


def samples(*volumes):
    return MetaTensor(torch.stack(volumes), affine=GEOMETRY.volume_affine())


def test_a_perfect_reconstruction_reprojects_to_its_input(tmp_path):
    folder = SaveReconstructions(tmp_path, PROJECTOR, {}, [WriteNifti()]).save(exam(body()), samples(body()), 1.0)
    record = json.loads((folder / "result.json").read_text())
    assert record["reprojection_error"]["frontal"] < 1e-5
    assert record["reprojection_error"]["lateral"] < 1e-5
    assert record["warnings"] == []
    np.testing.assert_array_equal(nib.load(folder / "ct.nii.gz").get_fdata(), body().numpy())


def test_mean_and_standard_deviation_are_over_the_samples_in_hu(tmp_path):
    a, b = body(), body() + 100
    folder = SaveReconstructions(tmp_path, PROJECTOR, {}, [WriteNifti()]).save(exam(body()), samples(a, b), 1.0)
    np.testing.assert_allclose(nib.load(folder / "ct.nii.gz").get_fdata(), body().numpy() + 50)
    np.testing.assert_allclose(nib.load(folder / "std.nii.gz").get_fdata(), 100 / np.sqrt(2), rtol=1e-5)


def test_support_is_saved_as_a_share_and_reported_in_per_cent(tmp_path):
    shown = {}

    def write_page(folder, record, images, volumes, affine):
        shown.update(volumes)

    def share(image, hu):
        return np.clip(hu.numpy() / 100 * float(image.max() > 0), 0, 1)

    writers = [WriteNifti(), WriteReport(write_page)]
    folder = SaveReconstructions(tmp_path, PROJECTOR, {}, writers, support=share).save(
        exam(body()), samples(body(), body() + 20), 1.0
    )
    expected = np.where(body().numpy() > 0, 0.5, 0)
    np.testing.assert_allclose(nib.load(folder / "support.nii.gz").get_fdata(), expected, atol=1e-6)
    np.testing.assert_allclose(shown["support"], 100 * expected, atol=1e-4)


def test_a_failed_save_leaves_nothing_and_keeps_the_earlier_result(tmp_path):
    def broken_draw(*_):
        raise RuntimeError("out of ink")

    good = SaveReconstructions(tmp_path, PROJECTOR, {"run": 1})
    good.save(exam(body()), samples(body()), 1.0)
    with refused(RuntimeError, "out of ink"):
        broken = SaveReconstructions(tmp_path, PROJECTOR, {"run": 2}, [DrawFigure(broken_draw)])
        broken.save(exam(body()), samples(body()), 1.0)
    assert [p.name for p in tmp_path.iterdir()] == ["patient_one"]
    assert json.loads((tmp_path / "patient_one" / "result.json").read_text())["run"] == 1


def test_nan_is_refused_before_anything_is_written(tmp_path):
    with refused(ValueError, "patient_one", "NaN"):
        SaveReconstructions(tmp_path, PROJECTOR, {}).save(exam(body()), samples(body() * float("nan")), 1.0)
    assert not list(tmp_path.iterdir())


def test_a_poor_reprojection_and_disagreeing_samples_are_warned_of():
    spread = torch.stack([torch.zeros(2, 2, 2), torch.full((2, 2, 2), 500.0)])
    assert warnings_of(spread.std(dim=0), {"frontal": 0.03, "lateral": 0.2}) == [
        "the lateral re-projection differs from the input by 20.0% (relative L2; limit 4%); detail is not taken "
        "from films that no body explains: check their geometry, and what they leave out",
        "the samples disagree by 354 HU on average",
    ]
    assert warnings_of(None, {"frontal": 0.03, "lateral": 0.03}) == []


def test_where_the_truth_is_known_the_result_is_measured_against_it(tmp_path):
    write_volume(tmp_path / "ct.nii.gz", body().numpy().astype(np.int16), GEOMETRY.volume_affine())
    image = exam(body(), truth=str(tmp_path / "ct.nii.gz"))
    folder = SaveReconstructions(tmp_path, PROJECTOR, {}).save(image, samples(body() + 10), 1.0)
    metrics = json.loads((folder / "result.json").read_text())["metrics"]
    assert metrics["mae_hu"] == pytest.approx(10, abs=1e-2)
    assert metrics["mae_bone_hu"] is None and metrics["bone_dice"] is None


@pytest.mark.parametrize("is_known", [False, True])
def test_the_figure_gets_the_truth_where_it_is_known(tmp_path, is_known):
    write_volume(tmp_path / "ct.nii.gz", body().numpy().astype(np.int16), GEOMETRY.volume_affine())
    truths = []
    save = SaveReconstructions(tmp_path, PROJECTOR, {}, [DrawFigure(lambda *a: truths.append(a[-1]))])
    known = {"truth": str(tmp_path / "ct.nii.gz")} if is_known else {}
    save.save(exam(body(), **known), samples(body() + 10), 1.0)
    (truth,) = truths
    assert np.array_equal(truth, body().numpy()) if is_known else truth is None


@pytest.mark.parametrize("view", VIEWS)
def test_of_one_view_the_record_says_so_and_measures_that_one(tmp_path, view):
    write_volume(tmp_path / "ct.nii.gz", body().numpy().astype(np.int16), GEOMETRY.volume_affine())
    image = exam(body(), views=[view], truth=str(tmp_path / "ct.nii.gz"))
    folder = SaveReconstructions(tmp_path, PROJECTOR, {}).save(image, samples(body()), 1.0)
    record = json.loads((folder / "result.json").read_text())
    assert record["views"] == [view] and f"the {view} radiograph alone" in record["notice"]
    assert list(record["reprojection_error"]) == [view] and record["reprojection_error"][view] < 1e-5
    other = VIEWS[1 - VIEWS.index(view)]
    assert record["metrics"]["reprojection"] < 1e-3 and record["metrics"][f"reprojection_{other}"] is None
    assert record["warnings"] == []


def test_the_temperature_widens_the_standard_deviation_and_nothing_else(tmp_path):
    for name, temperature in (("raw", 1.0), ("wide", 2.5)):
        save = SaveReconstructions(tmp_path / name, PROJECTOR, {}, [WriteNifti()], temperature)
        save.save(exam(body()), samples(body(), body() + 100), 1.0)
    raw, wide = (nib.load(tmp_path / name / "patient_one" / "std.nii.gz").get_fdata() for name in ("raw", "wide"))
    np.testing.assert_allclose(wide, 2.5 * raw)
    cts = [nib.load(tmp_path / name / "patient_one" / "ct.nii.gz").get_fdata() for name in ("raw", "wide")]
    np.testing.assert_array_equal(*cts)


@pytest.mark.parametrize(
    ("settings", "found", "is_kept"),
    [
        ({"seed": 1, "device": "cpu"}, {}, True),
        ({"seed": 1, "device": "cuda"}, {}, True),
        ({"seed": 2, "device": "cpu"}, {}, False),
        ({"seed": 1, "device": "cpu"}, {"files": {"a": "other bytes"}}, False),
        ({"seed": 1, "device": "cpu"}, {"options": {"air_value": 3}}, False),
        ({"seed": 1, "device": "cpu"}, {"views": ["frontal"]}, False),
    ],
)
def test_an_earlier_result_is_found_again_only_with_the_same_inputs_and_settings(tmp_path, settings, found, is_kept):
    SaveReconstructions(tmp_path, PROJECTOR, {"seed": 1, "device": "cpu"}).save(exam(body()), samples(body()), 1.0)
    record = SaveReconstructions(tmp_path, PROJECTOR, settings).found(exam(body(), **found))
    assert (record is not None) == is_kept


def test_infinite_distances_are_strict_json_and_are_found_again(tmp_path):
    geometry = preset("parallel", (16, 16, 16), 20.0, 24)
    saver = SaveReconstructions(tmp_path, SeparableProjector(geometry), {"device": "cpu"})
    frontal = ViewInput(acquisitions_of(geometry)["frontal"], 0.0, 1.0, ("resampled",))
    options = {"acquisition": {"source_to_isocentre_mm": math.inf}}
    image = exam(body(), inputs={"frontal": frontal}, options=options)
    folder = saver.save(image, samples(body()), 1.0)
    record = json.loads((folder / "result.json").read_text(), parse_constant=pytest.fail)
    for stated in (record["geometry"], record["inputs"]["frontal"], record["options"]["acquisition"]):
        assert stated["source_to_isocentre_mm"] == "inf"
    found = saver.found(image)
    assert found.inputs == {"frontal": frontal}
    assert json.loads(strict_json(found.to_dict())) == record


@pytest.mark.parametrize("damage", ["", "[]", "{}", None])
def test_a_damaged_record_counts_as_none(tmp_path, damage):
    saver = SaveReconstructions(tmp_path, PROJECTOR, {})
    path = saver.save(exam(body()), samples(body()), 1.0) / "result.json"
    without_seconds = json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "seconds"})
    path.write_text(without_seconds if damage is None else damage)
    assert saver.found(exam(body())) is None


def test_the_record_states_its_entries_in_this_order(tmp_path):
    saver = SaveReconstructions(tmp_path, PROJECTOR, {"bundle": {"name": "x"}, "software": {}})
    record = json.loads((saver.save(exam(body()), samples(body()), 1.0) / "result.json").read_text())
    settings = [
        "inputs_sha256",
        "truth_sha256",
        "options",
        "views",
        "geometry",
        "std_temperature",
        "interval",
        "writers",
    ]
    outcome = ["inputs", "seconds", "reprojection_error", "reprojection_error_is", "metrics", "warnings"]
    assert list(record) == ["notice", "exam", *settings, "bundle", "software", *outcome, "created", "files"]


def test_an_earlier_result_is_not_found_once_the_truth_is_another_or_gone(tmp_path):
    truth, saver = tmp_path / "ct.nii.gz", SaveReconstructions(tmp_path, PROJECTOR, {})
    write_volume(truth, body().numpy().astype(np.int16), GEOMETRY.volume_affine())
    saver.save(exam(body(), truth=str(truth)), samples(body()), 1.0)
    assert saver.found(exam(body(), truth=str(truth))) is not None
    assert saver.found(exam(body())) is None
    write_volume(truth, body().numpy().astype(np.int16) + 1, GEOMETRY.volume_affine())
    assert saver.found(exam(body(), truth=str(truth))) is None


def test_a_result_without_what_a_further_writer_makes_is_not_found(tmp_path):
    SaveReconstructions(tmp_path, PROJECTOR, {}).save(exam(body()), samples(body()), 1.0)
    assert SaveReconstructions(tmp_path, PROJECTOR, {}, [WriteNifti()]).found(exam(body())) is None


def lose(path):
    path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [lose, cut])
@pytest.mark.parametrize("name", ["ct.nii.gz", "std.nii.gz", "dicom/ct"])
def test_a_result_is_found_only_while_every_file_of_its_writers_is_there_whole(tmp_path, name, damage):
    saver = SaveReconstructions(tmp_path, PROJECTOR, MADE, [WriteNifti(), WriteDicom()])
    folder = saver.save(exam(body()), samples(body(), body()), 1.0)
    (folder / "notes.txt").write_text("a reader's own file")
    assert saver.found(exam(body())) is not None
    damage(folder / name if (folder / name).is_file() else next((folder / name).iterdir()))
    assert saver.found(exam(body())) is None


def test_writers_are_chosen_by_name():
    nifti = WriteNifti()
    assert chosen({"nifti": nifti, "figure": None}, "nifti") == chosen({"nifti": nifti}, ["nifti"]) == [nifti]
    with refused(ValueError, "'png'", "nifti"):
        chosen({"nifti": nifti}, "nifti, png")


def test_writers_come_in_an_order_in_which_each_finds_the_files_that_it_needs():
    writers = {"dicom": WriteDicom(), "parametric_map": WriteParametricMap(lambda *_: None, lambda: None)}
    assert chosen(writers, "parametric_map,dicom") == list(writers.values())
    with refused(ValueError, "--outputs: parametric_map", "add dicom"):
        chosen(writers, "parametric_map")


def test_one_report_is_chosen_by_name_and_a_result_with_the_other_is_not_found(tmp_path):
    reports = {"full": WriteReport(lambda *_: None), "light": WriteLightReport(lambda *_: None)}
    full, light = (SaveReconstructions(tmp_path, PROJECTOR, {}, [chosen_report(reports, name)]) for name in reports)
    full.save(exam(body()), samples(body()), 1.0)
    assert full.found(exam(body())) is not None
    assert light.found(exam(body())) is None
    with refused(ValueError, "--report", "'small'", "full, light"):
        chosen_report(reports, "small")


def test_the_stated_cause_is_our_error_between_a_librarys_and_monais_wrappers():
    library, ours, wrapper, outer = OSError("bad byte"), ValueError("do this"), RuntimeError("a"), RuntimeError("b")
    ours.__cause__, wrapper.__cause__, outer.__cause__ = library, ours, wrapper
    assert stated_cause(outer) is ours
    assert stated_cause(ours) is ours
    assert stated_cause(library) is None


def test_several_samples_of_a_network_without_a_sampler_are_refused(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"weights")
    with refused(ValueError, "--samples 5", "single answer"):
        provenance(BUNDLE_ROOT, tmp_path / "model.pt", sampler=None, samples=5)
    assert provenance(BUNDLE_ROOT, tmp_path / "model.pt", sampler=None, samples=1)["samples"] == 1
