import csv
import json
import math
import os
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser
from tests.refusal import refused

import scripts.io.case as case_module
from scripts.cases import phantoms
from scripts.cases.ct import CtVolume
from scripts.cases.downloads import decathlon_scans, tcia_scans
from scripts.cases.phantoms import phantom_scans
from scripts.cases.prepare import main, prepare
from scripts.cases.scans import find_scans
from scripts.cases.standard import Settings, prepare_volume, radiographs
from scripts.geometry import preset
from scripts.io.case import read_case
from scripts.io.errors import SomeFailed, stated_cause
from scripts.io.nifti import read_volume
from scripts.phantom.torso import torso

CONFIGS = Path(__file__).resolve().parents[2] / "bundle" / "configs"
SETTINGS = Settings(preset("carm", (32, 32, 32), 6.0, 48), 3.0)
SPACING_MM = 4.0


@pytest.fixture(scope="module")
def ct():
    """A small chest in a field of view of 24 x 18 x 18 cm, off the origin, in RAS order."""
    phantom = torso(3, (60, 45, 45), 7.5, centre_mm=160.0)
    affine = np.diag([SPACING_MM] * 3 + [1.0])
    affine[:3, 3] = [-300.0, 40.0, 1000.0]
    return CtVolume(phantom.hu.numpy(), affine, phantom.labels.numpy())


@pytest.fixture(scope="module")
def prepared_ct(ct):
    """The chest, prepared."""
    return prepare_volume(ct, SETTINGS)


@dataclass
class StubScan:
    """A scan in memory that counts how often it was read."""

    name: str
    ct: CtVolume | Exception
    patient: str = ""
    source: str = "memory"
    digest: str = ""
    reads: list = field(default_factory=list)

    def read(self):
        self.reads.append(self.name)
        if isinstance(self.ct, BaseException):
            raise self.ct
        return self.ct

    def sha256(self):
        return self.digest


def stubs(ct, *names):
    return [StubScan(name, ct, patient=name) for name in names]


def save(folder, name, ct):
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.round(ct.hu).astype(np.int16), ct.affine), folder / f"{name}.nii.gz")


def stored_as(ct, order, flips):
    """The same CT with its axes in another order and direction, in memory and affine alike."""
    image = nib.Nifti1Image(ct.hu, ct.affine)
    return nib.as_closest_canonical(image).as_reoriented(np.array(list(zip(order, flips, strict=True))))


ORIENTATIONS = [(order, flips) for order in permutations(range(3)) for flips in ((1, 1, 1), (-1, 1, -1), (-1, -1, -1))]


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS[:: max(len(ORIENTATIONS) // 6, 1)])
def test_the_prepared_case_does_not_depend_on_how_the_ct_is_stored(ct, prepared_ct, order, flips):
    expected = prepared_ct
    image = stored_as(ct, order, flips)
    found = prepare_volume(CtVolume(np.asarray(image.dataobj), image.affine), SETTINGS)
    np.testing.assert_allclose(found.ct.voxels, expected.ct.voxels, atol=1)
    np.testing.assert_allclose(found.ct.affine, expected.ct.affine, atol=1e-6)
    np.testing.assert_allclose(found.source.voxels, expected.source.voxels, atol=1)
    np.testing.assert_allclose(found.line_integrals, expected.line_integrals, atol=1e-2)


def centre_of_mass_mm(volume, above_hu):
    index = np.argwhere(volume.voxels > above_hu)
    weights = volume.voxels[tuple(index.T)].astype(float) - above_hu
    return nib.affines.apply_affine(volume.affine, (index * weights[:, None]).sum(0) / weights.sum())


def with_metal(ct, index):
    hu = ct.hu.copy()
    hu[tuple(slice(i - 1, i + 2) for i in index)] = 12000
    return CtVolume(hu, ct.affine)


@pytest.mark.parametrize("index", [(24, 20, 22), (36, 24, 14)])
@pytest.mark.parametrize("spacing_mm", [3.0, 2.5])  # 6 mm voxels: block average, or interpolation
def test_a_marker_at_a_known_point_stays_there_in_millimetres(ct, index, spacing_mm):
    prepared = prepare_volume(with_metal(ct, index), Settings(SETTINGS.geometry, spacing_mm))
    expected = nib.affines.apply_affine(ct.affine, index)
    np.testing.assert_allclose(centre_of_mass_mm(prepared.ct, 2000), expected, atol=1.0)
    np.testing.assert_allclose(centre_of_mass_mm(prepared.source, 2000), expected, atol=0.5)


def test_metal_is_not_clipped_and_shows_in_both_radiographs(ct, prepared_ct):
    index = (30, 22, 22)
    plain, metal = prepared_ct, prepare_volume(with_metal(ct, index), SETTINGS)
    assert metal.ct.voxels.max() > 8000
    brighter = (metal.line_integrals - plain.line_integrals).max(axis=(1, 2))
    thickness_mm = 3 * SPACING_MM
    assert (brighter > 0.5 * 12 * 0.02059 * thickness_mm).all()


def test_the_radiographs_are_those_of_the_stored_volume(prepared_ct):
    expected = radiographs(prepared_ct.ct.voxels, SETTINGS)
    np.testing.assert_array_equal(prepared_ct.line_integrals, expected)


def test_the_standard_volume_is_the_block_mean_of_the_source(prepared_ct):
    """Both lie on one grid, so a random view of the source with no deformation is the standard view."""
    shift = nib.affines.apply_affine(np.linalg.inv(prepared_ct.source.affine), prepared_ct.ct.affine[:3, 3]) - 0.5
    start = np.round(shift).astype(int)
    np.testing.assert_allclose(shift, start, atol=1e-3)
    first = np.maximum(np.ceil(-start / 2), 0).astype(int)
    block = prepared_ct.source.voxels[tuple(slice(s + 2 * f, s + 2 * f + 8) for s, f in zip(start, first, strict=True))]
    means = block.reshape(4, 2, 4, 2, 4, 2).mean(axis=(1, 3, 5))
    inner = prepared_ct.ct.voxels[tuple(slice(f, f + 4) for f in first)]
    np.testing.assert_allclose(inner, means, atol=1.1)


def test_the_standard_volume_is_centred_on_the_body(prepared_ct):
    body = np.argwhere(prepared_ct.source.voxels > -500)
    centre = nib.affines.apply_affine(prepared_ct.source.affine, (body.min(0) + body.max(0)) / 2)
    isocentre = nib.affines.apply_affine(prepared_ct.ct.affine, (np.array(prepared_ct.ct.voxels.shape) - 1) / 2)
    np.testing.assert_allclose(isocentre, centre, atol=SETTINGS.source_spacing_mm)


def test_padding_outside_the_scanner_is_air(ct):
    padded = ct.hu.copy()
    padded[:6], padded[-6:] = -3024, -2000
    expected = np.where(padded < -1024, -1000, ct.hu)
    found = prepare_volume(CtVolume(padded, ct.affine), SETTINGS)
    np.testing.assert_array_equal(found.ct.voxels, prepare_volume(CtVolume(expected, ct.affine), SETTINGS).ct.voxels)


def test_labels_stay_on_the_tissue_they_name(prepared_ct):
    assert prepared_ct.labels.voxels.shape == prepared_ct.ct.voxels.shape
    lung = prepared_ct.labels.voxels == 4
    assert lung.sum() > 100 and np.median(prepared_ct.ct.voxels[lung]) < -600


def test_an_output_folder_holds_whole_cases_and_both_tables(tmp_path, ct):
    prepare(stubs(ct, "a", "b"), tmp_path, SETTINGS, val=0, test=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cases", "manifest.csv", "settings.json", "splits.json"]
    case = read_case(tmp_path / "cases" / "a")
    assert case.geometry == SETTINGS.geometry and tuple(case.ct.shape) == (1, 32, 32, 32)
    source, affine = read_volume(tmp_path / "cases" / "a" / "source.nii.gz")
    assert source.ndim == 3 and max(source.shape) * 3.0 <= 450 and affine[0, 0] == 3.0
    splits = json.loads((tmp_path / "splits.json").read_text())
    assert sorted(splits["train"] + splits["test"]) == ["a", "b"] and len(splits["test"]) == 1
    with (tmp_path / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["case"], r["status"], r["shape"], r["orientation"]) for r in rows] == [
        ("a", "ok", "60x45x45", "RAS"),
        ("b", "ok", "60x45x45", "RAS"),
    ]


def test_a_finished_case_is_not_read_again_and_keeps_its_split(tmp_path, ct):
    prepare(stubs(ct, "a"), tmp_path, SETTINGS, val=0, test=1)
    again = stubs(ct, "a", "b")
    prepare(again, tmp_path, SETTINGS, val=0, test=0, seed=5)
    assert [scan.reads for scan in again] == [[], ["b"]]
    assert json.loads((tmp_path / "splits.json").read_text()) == {"train": ["b"], "val": [], "test": ["a"]}


def test_a_case_whose_ct_has_changed_is_prepared_again_keeps_its_split_and_is_named(tmp_path, ct, caplog):
    prepare([StubScan("a", ct, "a", digest="1"), StubScan("b", ct, "b", digest="1")], tmp_path, SETTINGS, val=0, test=2)
    denser = CtVolume(np.where(ct.hu > -400, ct.hu + 100, ct.hu), ct.affine)
    again = [StubScan("a", denser, "a", digest="2"), StubScan("b", ct, "b", digest="1")]
    rows = prepare(again, tmp_path, SETTINGS, val=0, test=0)
    assert [scan.reads for scan in again] == [["a"], []]
    assert [(row["status"], row["sha256"]) for row in rows] == [("ok", "2"), ("ok", "1")]
    assert read_case(tmp_path / "cases" / "a").ct.mean() > read_case(tmp_path / "cases" / "b").ct.mean()
    assert json.loads((tmp_path / "splits.json").read_text())["test"] == ["a", "b"]
    (line,) = caplog.messages
    assert line.startswith("a: ") and "has changed" in line


def test_a_case_whose_new_ct_is_bad_has_failed_until_its_ct_is_back(tmp_path, ct):
    before = StubScan("a", ct, digest="1")
    prepare([before], tmp_path, SETTINGS, val=0, test=0)
    (row,) = prepare([StubScan("a", ValueError("slice 7 is missing"), digest="2")], tmp_path, SETTINGS, val=0, test=0)
    assert (row["status"], row["reason"]) == ("failed", "slice 7 is missing")
    assert json.loads((tmp_path / "splits.json").read_text())["train"] == []
    (row,) = prepare([before], tmp_path, SETTINGS, val=0, test=0)
    assert row["status"] == "ok" and before.reads == ["a"]
    assert json.loads((tmp_path / "splits.json").read_text())["train"] == ["a"]


def test_other_settings_in_the_same_folder_are_refused_by_name(tmp_path):
    prepare([], tmp_path, SETTINGS)
    other = Settings(preset("x2ct", (32, 32, 32), 6.0, 48), 4.0)
    with pytest.raises(ValueError, match="isocentre_mm .*785.0, now 541.0.*spacing_mm .*3.0, now 4"):
        prepare([], tmp_path, other)


def test_an_interrupted_run_leaves_no_partial_case_and_can_be_resumed(tmp_path, ct, monkeypatch):
    scans, write_volume = stubs(ct, "a", "b", "c"), case_module.write_volume

    def interrupt(path, *volume):
        if path.parent.name.endswith("-b") and path.name == "source.nii.gz":
            raise KeyboardInterrupt
        write_volume(path, *volume)

    monkeypatch.setattr(case_module, "write_volume", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(scans, tmp_path, SETTINGS, val=1, test=1)
    before = {row["case"]: row["split"] for row in csv.DictReader((tmp_path / "manifest.csv").open())}
    assert sorted(before) == ["a", "b", "c"] and os.listdir(tmp_path / "cases") == ["a"]
    monkeypatch.undo()
    rows = prepare(scans, tmp_path, SETTINGS, val=0, test=0)
    assert {row["case"]: row["split"] for row in rows} == before
    assert [len(scan.reads) for scan in scans] == [1, 2, 1] and len(os.listdir(tmp_path / "cases")) == 3


def test_one_bad_scan_does_not_lose_the_others(tmp_path, ct, capsys):
    scans = [*stubs(ct, "good"), *stubs(ValueError("slice 7 is missing"), "bad"), *stubs(OSError("disk"), "worse")]
    with pytest.raises(SomeFailed) as end:
        main(lambda: scans, tmp_path, SETTINGS, val=0, test=0)
    assert "2 of 3 scans failed:\n  bad: slice 7 is missing\n  worse: OSError: disk" in str(end.value)
    assert "1 of 3 cases" in capsys.readouterr().out
    assert json.loads((tmp_path / "splits.json").read_text())["train"] == ["good"]
    assert os.listdir(tmp_path / "cases") == ["good"]


def test_mistakes_are_refused_before_the_first_scan(tmp_path):
    with refused(ValueError, "output folder", "--output_dir"):
        main(lambda: [], None, SETTINGS)
    with refused(ValueError, "no CT", "--input"):
        main(lambda: find_scans(tmp_path), tmp_path / "out", SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_a_phantom_is_the_same_patient_in_any_batch():
    few, many = phantom_scans(2, 19, 5.0, 0.1), phantom_scans(30, 0, 5.0, 0.1)
    assert few == many[19:21]
    assert sum(scan.metal for scan in many) == 3


def test_a_phantom_of_another_size_is_the_same_patient_on_a_scaled_grid():
    (adult,), (child,) = phantom_scans(1, 5, 5.0, 0.0), phantom_scans(1, 5, 2.5, 0.0, body_scale=0.5)
    assert (child.name, child.patient) == ("phantom_00005_x0.5", adult.name)
    small, large = child.read(), adult.read()
    u, v, w = ((a - b) // 2 for a, b in zip(small.hu.shape, large.hu.shape, strict=True))
    same = small.hu[u : u + large.hu.shape[0], v : v + large.hu.shape[1], w : w + large.hu.shape[2]]
    assert np.allclose(same, large.hu, atol=0.1)
    assert np.allclose(np.diag(small.affine)[:3], np.diag(large.affine)[:3] / 2)


@pytest.mark.parametrize("scale", [0.0, 0.2, 2.0, math.nan])
def test_a_size_that_no_patient_has_is_refused(scale):
    with refused(ValueError, "0.3", "1.3", "body_scale", "got"):
        phantom_scans(1, 0, 5.0, 0.1, scale)


def test_public_collections_say_what_to_do_when_they_are_not_there(tmp_path):
    for find in (lambda f: decathlon_scans(f, "Task06_Lung"), lambda f: tcia_scans(f, "LIDC-IDRI")):
        with pytest.raises(ValueError, match="--download true"):
            find(tmp_path / "absent")


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_the_command_runs_from_any_working_directory_and_names_the_failed_scan(monai_bundle, tmp_path, ct, workers):
    save(tmp_path / "in", "good", ct)
    save(tmp_path / "in", "bad", CtVolume(np.full((9, 9, 9), 7.0), np.eye(4)))
    options = {"input": "in", "output_dir": "out", "workers": workers, "volume_shape": "[16,16,16]"}
    end = monai_bundle("run", tmp_path, config_file=CONFIGS / "prepare.json", **options)
    assert end.wait() == 1, end.output
    assert "prepare: 1 of 2 scans failed:\n  bad: in/bad.nii.gz: every voxel is 7.0" in end.output
    assert read_case(tmp_path / "out" / "cases" / "good").geometry == preset("carm", (16, 16, 16), 5.0, 128)


def composed(overlay, **changes):
    """The configuration that the command would run."""
    parser = ConfigParser(ConfigParser.load_config_files([CONFIGS / "prepare.json", CONFIGS / "data" / overlay]))
    parser.update(changes)
    return parser


def test_the_phantom_overlay_replaces_where_the_scans_come_from(tmp_path, monkeypatch):
    monkeypatch.setattr(phantoms, "PHANTOM_SIZE_MM", (480.0, 320.0, 200.0))  # finding a whole outline takes seconds
    sizes = {"source_spacing_mm": 20.0, "volume_spacing_mm": 20.0, "volume_shape": [16, 16, 16], "detector_pixels": 16}
    composed("phantom.json", output_dir=str(tmp_path / "out"), count=1, **sizes).get_parsed_content("run")
    assert os.listdir(tmp_path / "out" / "cases") == ["phantom_00000"]
    assert (tmp_path / "out" / "cases" / "phantom_00000" / "labels.nii.gz").is_file()


@pytest.mark.parametrize(
    ("overlay", "files", "expected"),
    [
        ("msd.json", ["Task06_Lung/imagesTr/lung_001", "Task06_Lung/labelsTr/lung_001"], ["imagesTr_lung_001"]),
        ("ctspine1k.json", ["volumes/s1", "masks/s1_seg"], ["volumes_s1"]),
        ("ctpelvic1k.json", ["dataset1_a_data", "dataset1_a_mask_4label", "dataset2_b_data"], ["dataset1_a_data"]),
        ("lidc.json", ["LIDC-IDRI-0001"], ["LIDC-IDRI-0001"]),
    ],
)
def test_a_collection_overlay_finds_its_scans_in_a_downloaded_folder(tmp_path, overlay, files, expected):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.nii.gz").touch()
    parser = composed(overlay, input=str(tmp_path), output_dir=str(tmp_path / "out"))
    assert [scan.name for scan in parser.get_parsed_content("scans")()] == expected
    assert parser.get_parsed_content("settings").geometry.volume_shape == (64, 64, 64)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"count": "many"}, "--count takes a whole number, got 'many'"),
        ({"body_scale": "small"}, "--body_scale takes a number, got 'small'"),
        ({"workers": "all"}, "--workers takes a whole number, got 'all'"),
        ({"val": "ten"}, "--val takes a number, got 'ten'"),
    ],
)
def test_words_where_numbers_belong_are_refused_with_one_message(tmp_path, option, message):
    changes = {"output_dir": str(tmp_path / "out"), "count": 1, **option}
    with pytest.raises(RuntimeError) as caught:
        composed("phantom.json", **changes).get_parsed_content("run")
    assert str(stated_cause(caught.value)) == message
