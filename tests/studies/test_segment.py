"""The segmentation study: segmenters whose answers are known, and a network trained on the phantom's labels."""

import csv
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import run
from monai.losses import DiceCELoss
from monai.networks.nets import VNet
from scipy.ndimage import gaussian_filter
from tests.refusal import refused
from torch import nn

from scripts.geometry import preset
from scripts.intensity import NETWORK_HU_RANGE, hu_to_mu
from scripts.io.case import Volume, write_case
from scripts.io.errors import stated_cause
from scripts.io.nifti import read_volume, write_volume
from scripts.phantom.canvas import Label
from scripts.phantom.torso import torso
from scripts.physics.separable import SeparableProjector
from scripts.studies.segmenters import load_segmenter

CONFIG = Path(__file__).parents[2] / "bundle" / "configs" / "segmentation.json"
SHAPE, SPACING_MM = (32, 32, 32), 10.0
GEOMETRY = preset("carm", SHAPE, SPACING_MM, 16)
CASES = ["x0", "x1"]
HU_RANGE = (-1000.0, 1000.0)
CPU = torch.device("cpu")
BONES = ("VERTEBRA", "RIB", "PELVIS", "STERNUM", "SCAPULA", "CLAVICLE", "FEMUR")
MEANINGS = {"lung": [int(Label.LUNG)], "bone": [int(Label[name]) for name in BONES]}
MEANINGS["trunk"] = sorted({int(label) for label in Label if label > 0} - set(sum(MEANINGS.values(), [])))
TRAINED_MAP = {
    "labels": {str(i + 1): name for i, name in enumerate(MEANINGS)},
    "dataset_labels": MEANINGS,
    "hu_range": HU_RANGE,
    "spacing_mm": SPACING_MM,
}
LADDER_MAP = {"labels": {"1": "soft", "2": "hard"}, "hu_range": HU_RANGE, "spacing_mm": SPACING_MM}


def ladder() -> nn.Conv3d:
    """Knows tissues by HU alone: class 1 in (-400, 400), class 2 above, 0 below."""
    network = nn.Conv3d(1, 3, 1)
    network.weight.data = torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1, 1, 1)
    network.bias.data = torch.tensor([0.0, -0.3, -1.0])
    return network.eval()


def save(folder: Path, network: nn.Module, label_map: dict) -> Path:
    """A TorchScript file and the label map beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.jit.script(network).save(folder / "segmenter.ts")
    (folder / "segmenter.json").write_text(json.dumps(label_map))
    return folder / "segmenter.ts"


def train(network: nn.Module, iterations: int, rate: float) -> nn.Module:
    """Learn lung, bone and trunk from eight phantoms, two per iteration."""
    phantoms = [torso(seed, SHAPE, SPACING_MM, centre_mm=100.0) for seed in range(10, 18)]
    low, high = HU_RANGE
    image = torch.stack([((p.hu - low) / (high - low)).clamp(0, 1) for p in phantoms])[:, None]
    classes = torch.stack([p.labels for p in phantoms])[:, None]
    target = sum((i + 1) * np.isin(classes, ids) for i, ids in enumerate(MEANINGS.values()))
    target, loss = torch.as_tensor(target).float(), DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.Adam(network.parameters(), rate)
    for i in range(iterations):
        optimizer.zero_grad()
        pair = slice(2 * i % len(image), 2 * i % len(image) + 2)
        loss(network(image[pair]), target[pair]).backward()
        optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Two phantoms with labels, as test split."""
    folder, projector = tmp_path_factory.mktemp("data"), SeparableProjector(GEOMETRY)
    for seed, name in enumerate(CASES):
        phantom, affine = torso(seed, SHAPE, SPACING_MM, centre_mm=100.0), GEOMETRY.volume_affine()
        ct = Volume(phantom.hu.round().numpy().astype(np.int16), affine)
        image = projector(hu_to_mu(phantom.hu)[None, None])[0].numpy()
        write_case(folder / "cases" / name, GEOMETRY, image, ct, ct, Volume(phantom.labels.numpy(), affine), {})
    (folder / "splits.json").write_text(json.dumps({"train": [], "val": [], "test": CASES}))
    return folder


@pytest.fixture(scope="module")
def volumes(dataset, tmp_path_factory) -> dict[str, str]:
    """Folders of reconstructions by three methods: one is perfect, one blurs, one finds no patient."""
    folder = tmp_path_factory.mktemp("volumes")
    methods = {
        "perfect": lambda hu: hu.clip(*NETWORK_HU_RANGE),
        "blurred": lambda hu: gaussian_filter(hu, 1.5),
        "empty": lambda hu: np.full_like(hu, -1000),
    }
    for method, change in methods.items():
        (folder / method).mkdir()
        for case in CASES:
            hu, affine = read_volume(dataset / "cases" / case / "ct.nii.gz")
            write_volume(folder / method / f"{case}.nii.gz", change(hu).astype(np.int16), affine)
    return {method: str(folder / method) for method in methods}


@pytest.fixture(scope="module")
def hu_segmenter(tmp_path_factory) -> Path:
    """The ladder as a file."""
    return save(tmp_path_factory.mktemp("ladder"), ladder(), LADDER_MAP)


@pytest.fixture(autouse=True)
def excepthook(monkeypatch):
    """The run replaces it."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


def study(**overrides) -> None:
    """``segmentation.json`` in this process."""
    overrides = {name: str(value) if isinstance(value, Path) else value for name, value in overrides.items()}
    run(config_file=str(CONFIG), logging_file=False, device="$torch.device('cpu')", **overrides)


def refusal(**overrides) -> str:
    with pytest.raises((RuntimeError, ValueError)) as caught:
        study(**overrides)
    return str(stated_cause(caught.value))


def read_cases(folder: Path) -> dict[tuple[str, str, str], dict[str, float]]:
    """Metrics by method, comparison and case, in the file's order; an empty cell is NaN."""
    rows = list(csv.DictReader((folder / "cases.csv").open()))
    keys = [(row.pop("method"), row.pop("estimate"), row.pop("case")) for row in rows]
    return {k: {n: float(v or "nan") for n, v in row.items()} for k, row in zip(keys, rows, strict=True)}


def test_a_segmenter_scores_the_reconstructions_after_its_own_score_on_the_truth(
    tmp_path, dataset, volumes, monai_bundle
):
    soft = sorted({int(label) for label in Label if label > 0} - set(MEANINGS["lung"] + MEANINGS["bone"]))
    meanings = {"soft": soft, "hard": MEANINGS["bone"]}
    label_map = LADDER_MAP | {"dataset_labels": meanings, "hu_range": (-1000.0, 650.0)}  # hard above 155 HU
    path, output_dir = save(tmp_path / "ladder", ladder(), label_map), tmp_path / "out"
    options = {"dataset_dir": dataset, "split": "test", "segmenter": path, "labels": path.with_suffix(".json")}
    options |= {"volumes": volumes, "output_dir": output_dir, "device": "$torch.device('cpu')"}
    done = monai_bundle("run", tmp_path, config_file=CONFIG, **options)
    assert done.wait() == 0, done.output
    assert "| metric | oracle, against labels | perfect, against the true CT | perfect, against labels |" in done.output
    assert "oracle: measured on 2 of 2 cases" in done.output
    assert sorted(p.name for p in output_dir.iterdir()) == ["cases.csv", "summary.csv", "summary.json", "summary.md"]

    rows = read_cases(output_dir)
    assert list(rows)[:2] == [("oracle", "against labels", case) for case in CASES]
    for case in CASES:
        oracle, perfect, blurred, empty = (rows[m, "against labels", case] for m in ("oracle", *volumes))
        assert oracle["dice_soft"] > 0.8 and oracle["dice_hard"] > 0.4
        assert perfect == oracle and blurred["dice"] < oracle["dice"] and empty["dice"] == 0
        perfect, blurred, empty = (rows[method, "against the true CT", case] for method in volumes)
        for name in meanings:
            assert (perfect[f"dice_{name}"], perfect[f"hd95_{name}_mm"]) == (1, 0)
            assert 0 <= blurred[f"dice_{name}"] < 1 and math.isnan(empty[f"hd95_{name}_mm"])
        assert (perfect["missed"], empty["missed"], empty["invented"]) == (0, 2, 0)

    record = json.loads((output_dir / "summary.json").read_text())
    assert record["methods"][0]["method"] == "oracle" and record["structures"]["hard"] == [2]
    assert len(record["segmenter_sha256"]) == 64 and record["split"] == "test"
    assert "hd95_<structure>_mm" in (output_dir / "summary.md").read_text()


@pytest.mark.slow
def test_the_papers_vnet_learns_the_phantoms_large_structures(tmp_path, dataset, volumes):
    torch.manual_seed(0)
    path = save(tmp_path, train(VNet(3, 1, 4), 100, 3e-3), TRAINED_MAP)
    study(dataset_dir=dataset, segmenter=path, volumes={"perfect": volumes["perfect"]}, output_dir=tmp_path / "out")
    rows = read_cases(tmp_path / "out")
    for case in CASES:
        oracle = rows["oracle", "against labels", case]
        assert oracle["dice_lung"] > 0.6 and oracle["dice_trunk"] > 0.8
        assert rows["perfect", "against the true CT", case]["dice"] == 1


@pytest.mark.parametrize("meanings, labelled, oracle", [
    ({"hard": [6]}, ["x0", "x1"], "measured on 2 of 2 cases"),
    ({"hard": [6]}, ["x1"], "measured on 1 of 2 cases"),
    ({"hard": [6]}, [], "not measured: no case has labels.nii.gz"),
    ({}, ["x0", "x1"], "not measured: the label map has no dataset_labels"),
])  # fmt: skip
def test_the_oracle_is_measured_where_there_are_labels_and_meanings(
    tmp_path, capsys, dataset, volumes, meanings, labelled, oracle
):
    for case in CASES:
        (tmp_path / "cases" / case).mkdir(parents=True)
        for file in (dataset / "cases" / case).iterdir():
            if case in labelled or file.name != "labels.nii.gz":
                (tmp_path / "cases" / case / file.name).symlink_to(file)
    (tmp_path / "splits.json").symlink_to(dataset / "splits.json")
    path = save(tmp_path / "ladder", ladder(), LADDER_MAP | {"dataset_labels": meanings})
    methods = {"perfect": volumes["perfect"]}
    study(dataset_dir=tmp_path, segmenter=path, volumes=methods, output_dir=tmp_path / "out")
    assert f"oracle: {oracle}" in capsys.readouterr().out
    assert f"- oracle: {oracle}" in (tmp_path / "out" / "summary.md").read_text()
    rows = read_cases(tmp_path / "out")
    known = labelled if meanings else []
    for case in CASES:
        assert math.isnan(rows["oracle", "against labels", case]["dice_hard"]) == (case not in known)
        assert math.isnan(rows["oracle", "against labels", case]["dice_soft"])
    assert [case for _, against, case in rows if against == "against the true CT"] == CASES
    assert [case for method, against, case in rows if (method, against) == ("perfect", "against labels")] == known


def spoilt(folder: Path, volumes: dict, change) -> dict[str, str]:
    """Copies of the perfect volumes, with a change to those of case x1: a function of (path, hu, affine)."""
    (folder / "made").mkdir()
    for case in CASES:
        hu, affine = read_volume(Path(volumes["perfect"]) / f"{case}.nii.gz")
        path = folder / "made" / f"{case}.nii.gz"
        write_volume(path, hu, affine)
        if case == "x1":
            change(path, hu, affine)
    return {"made": str(folder / "made")}


@pytest.mark.parametrize("change, message", [
    (lambda path, hu, affine: path.unlink(), "x1.nii.gz: no reconstruction of case 'x1' by 'made'; evaluate"),
    (lambda path, hu, affine: write_volume(path, hu[:-1], affine), r"x1.nii.gz: shape \(31, 32, 32\) and affine"),
    (lambda path, hu, affine: write_volume(path, hu, affine * 1.1), "x1.nii.gz: shape .* and affine .* but the case's"),
    (lambda path, hu, affine: write_volume(path, hu * np.nan, affine), "x1.nii.gz: 32768 voxels are NaN or infinite"),
    (lambda path, hu, affine: path.write_bytes(b""), "x1.nii.gz: not a readable NIfTI file"),
])  # fmt: skip
def test_a_case_that_a_method_lacks_counts_for_none_and_costs_no_other(
    tmp_path, dataset, volumes, hu_segmenter, change, message
):
    methods = {"perfect": volumes["perfect"]} | spoilt(tmp_path, volumes, change)
    lost = refusal(dataset_dir=dataset, segmenter=hu_segmenter, volumes=methods, output_dir=tmp_path / "out")
    assert re.match(f"1 of 2 cases failed:\n.*{message}", lost)
    assert {case for *_, case in read_cases(tmp_path / "out")} == {"x0"}
    assert list(json.loads((tmp_path / "out" / "summary.json").read_text())["failures"]) == ["x1"]


def test_without_any_measured_case_nothing_is_written(tmp_path, dataset, hu_segmenter):
    options = {"dataset_dir": dataset, "segmenter": hu_segmenter, "output_dir": tmp_path / "out"}
    message = refusal(volumes={"none": str(tmp_path)}, **options)
    assert message.startswith("no case could be measured:\n") and message.count("no reconstruction of case") == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("overrides, message", [
    ({"segmenter": None}, "segmenter: none given; add --segmenter"),
    ({"segmenter": "/nowhere/net.ts"}, "/nowhere/net.ts: no such file or folder"),
    ({"labels": "/nowhere/labels.json"}, "/nowhere/labels.json: no label map"),
    ({"volumes": {}}, "got {}; add --volumes"),
    ({"volumes": "/nowhere"}, "got '/nowhere'"),
    ({"volumes": {"m": "/nowhere"}}, "/nowhere: no such folder"),
    ({"volumes": {"oracle": "/nowhere"}}, "volumes: 'oracle'"),
    ({"dataset_dir": "/nowhere"}, "/nowhere/splits.json: not found"),
])  # fmt: skip
def test_bad_input_is_refused_before_anything_is_written(tmp_path, dataset, volumes, hu_segmenter, overrides, message):
    options = {"dataset_dir": dataset, "segmenter": hu_segmenter, "volumes": volumes, "output_dir": tmp_path / "out"}
    assert message in refusal(**options | overrides)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text, message", [
    ("{", "not a JSON label map"),
    ("[]", "dataset_labels, hu_range, labels, spacing_mm, window, got list"),
    ('{"lable": {}}', r"with the keys .*, got \['lable'\]"),
    ('{"labels": ["lung"]}', r"labels .*got \['lung'\]"),
    ('{"labels": {"0": "background"}}', "labels .*class numbers"),
    ('{"labels": {"lung": 1}}', "labels .*got {'lung': 1}"),
    ('{"labels": {"1": "a"}, "dataset_labels": {"a": 4}}', "dataset_labels .*got {'a': 4}"),
    ('{"labels": {"1": "a"}, "dataset_labels": {"b": [4]}}', "dataset_labels .*'b', .*choose from a"),
    ('{"hu_range": [100, -100]}', r"hu_range .*\[low, high\] .*got \[100, -100\]"),
    ('{"hu_range": 100}', r"hu_range .*\[low, high\] .*got 100"),
    ('{"spacing_mm": "2"}', "spacing_mm .*positive .*got '2'"),
    ('{"window": [64, 64]}', r"window .*three .*got \[64, 64\]"),
    ('{"labels": {"1": "a"}}', "segmenter.ts: .*hu_range and spacing_mm"),
    ('{"hu_range": [0, 1], "spacing_mm": 1}', "segmenter.ts: .*lacks labels"),
])  # fmt: skip
def test_a_label_map_that_cannot_be_meant_is_refused(tmp_path, hu_segmenter, text, message):
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        load_segmenter(hu_segmenter, tmp_path / "labels.json", CPU)
    assert "labels.json" in str(caught.value) or "segmenter.ts" in str(caught.value)


def test_a_damaged_segmenter_is_refused(tmp_path):
    path, network = tmp_path / "segmenter.ts", ladder()
    save(tmp_path, network, LADDER_MAP)
    whole, value = path.read_bytes(), network.weight.detach().numpy().tobytes()
    path.write_bytes(whole.replace(value, bytes([value[0] ^ 1]) + value[1:]))
    with refused(ValueError, "segmenter.ts", "damaged", "checksum"):
        load_segmenter(path, None, CPU)


def test_a_file_that_is_no_torchscript_is_refused(tmp_path):
    torch.save(ladder().state_dict(), tmp_path / "segmenter.ts")
    (tmp_path / "segmenter.json").write_text(json.dumps(LADDER_MAP))
    with refused(ValueError, "segmenter.ts", "damaged", "TorchScript", "export"):
        load_segmenter(tmp_path / "segmenter.ts", None, CPU)


def test_a_network_that_does_not_fit_its_label_map_is_refused(tmp_path):
    path = save(tmp_path, ladder(), LADDER_MAP | {"labels": {"7": "lung"}})
    with refused(ValueError, "(1, 1, 12, 10, 11)", "(1, 3, ", "class 7"):
        load_segmenter(path, None, CPU)(*blocks())
    save(tmp_path, nn.Conv3d(2, 3, 1), LADDER_MAP)
    with refused(ValueError, "(1, 1, 12, 10, 11)", "fails", "channels"):
        load_segmenter(path, None, CPU)(*blocks())


def blocks(spacing_mm: float = 10.0) -> tuple[np.ndarray, np.ndarray]:
    """HU ``[12, 10, 11]`` of a block in a block in air, and an affine away from the origin."""
    hu = np.full((12, 10, 11), -1000.0, dtype=np.float32)
    hu[2:10, 1:9, 0:9], hu[4:8, 3:6, 4:7] = 0.0, 900.0
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = (-30.0, 12.5, 400.0)
    return hu, affine


def steps(hu: np.ndarray) -> np.ndarray:
    """What the ladder answers on the volume's own grid."""
    return (hu > -400).astype(int) + (hu > 400)


@pytest.mark.parametrize("spacing_mm", [10.0, 5.0, 10 / 3])
def test_the_volume_is_segmented_at_the_networks_spacing_and_the_classes_come_back_on_its_grid(tmp_path, spacing_mm):
    segment = load_segmenter(save(tmp_path, ladder(), LADDER_MAP | {"spacing_mm": spacing_mm}), None, CPU)
    hu, affine = blocks()
    classes = segment(hu, affine)
    assert classes.dtype == np.int16
    np.testing.assert_array_equal(classes, steps(hu))


def test_a_coarser_network_sees_a_smoothed_volume(tmp_path):
    segment = load_segmenter(save(tmp_path, ladder(), LADDER_MAP | {"spacing_mm": 20.0}), None, CPU)
    stripes = np.full((15, 15, 15), -600.0, dtype=np.float32)
    stripes[::2] = 600.0  # just the ones that one sample per coarse voxel would hit
    assert (segment(stripes, blocks()[1])[2:-2] == 1).all()


def test_a_window_gives_what_the_whole_volume_gives(tmp_path):
    hu, affine = blocks()
    for name, extra in (("whole", {}), ("window", {"window": [8, 8, 8]})):
        segment = load_segmenter(save(tmp_path / name, ladder(), LADDER_MAP | extra), None, CPU)
        np.testing.assert_array_equal(segment(hu, affine), steps(hu))


def test_classes_of_one_name_are_one_structure_and_the_background_is_none(tmp_path):
    label_map = LADDER_MAP | {"labels": {"0": "background", "1": "lung", "2": "lung", "3": "left  hip"}}
    description = load_segmenter(save(tmp_path, ladder(), label_map), None, CPU).description
    assert description.labels == {"lung": (1, 2), "left_hip": (3,)}


def bundle(folder: Path, **changes) -> Path:
    """A MONAI bundle around the ladder, whose preprocessing turns, resamples and crops."""
    inference = {
        "imports": ["$import math"],
        "bundle_root": ".",
        "device": "$torch.device('cuda:0')",
        "network_def": {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": "$2 + 1", "kernel_size": 1},
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "LPS"},
                {"_target_": "Spacingd", "keys": "image", "pixdim": [5.0, 5.0, "$10 / math.sqrt(4)"]},
                {
                    "_target_": "ScaleIntensityRanged",
                    "keys": "image",
                    "a_min": -1000,
                    "a_max": 1000,
                    "b_min": 0,
                    "b_max": 1,
                    "clip": True,
                },
                {"_target_": "CropForegroundd", "keys": "image", "source_key": "image", "allow_smaller": True},
                {"_target_": "EnsureTyped", "keys": "image", "device": "@device"},
            ],
        },
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16]},
    }
    names = {"0": "background", "1": "soft", "2": "hard"}
    metadata = {"network_data_format": {"outputs": {"pred": {"channel_def": names}}}}
    files = {"configs/inference.json": inference, "configs/metadata.json": metadata} | changes
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    (folder / "models").mkdir()
    torch.save(ladder().state_dict(), folder / "models" / "model.pt")
    return folder


def test_a_bundle_segments_with_its_own_preprocessing_weights_and_names(tmp_path):
    segment = load_segmenter(bundle(tmp_path / "bundle"), None, CPU)
    assert segment.description.labels == {"soft": (1,), "hard": (2,)}
    assert len(segment.record["segmenter_sha256"]) == 64
    hu, affine = blocks()
    np.testing.assert_array_equal(segment(hu, affine), steps(hu))


def test_a_bundles_label_map_adds_meanings_and_may_rename(tmp_path):
    folder = bundle(tmp_path / "bundle")
    (tmp_path / "map.json").write_text('{"dataset_labels": {"hard": [6, 7]}}')
    assert load_segmenter(folder, tmp_path / "map.json", CPU).description.dataset_labels == {"hard": (6, 7)}
    (tmp_path / "map.json").write_text('{"labels": {"2": "bone"}}')
    assert load_segmenter(folder, tmp_path / "map.json", CPU).description.labels == {"bone": (2,)}


INFERENCE = "configs/inference.json"


@pytest.mark.parametrize("changes, message", [
    ({INFERENCE: None}, "bundle: .*MONAI bundle, .*configs/inference.json"),
    ({INFERENCE: {"network_def": None}}, "network_def, preprocessing, inferer; missing: .'prep"),
    ({INFERENCE: {"network_def": {"_target_": "scripts.nets.Net"}, "preprocessing": None, "inferer": None}},
     r"inference.json: .*scripts.nets.*TorchScript"),
    ({"configs/metadata.json": {}}, "metadata.json: network_data_format .*--labels"),
    ({"configs/metadata.json": None}, "metadata.json: unreadable"),
])  # fmt: skip
def test_a_folder_that_is_no_usable_bundle_is_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        load_segmenter(bundle(tmp_path / "bundle", **changes), None, CPU)


def test_a_bundle_that_wants_another_key_is_refused(tmp_path):
    folder = bundle(tmp_path / "bundle")
    config = (folder / INFERENCE).read_text()
    (folder / INFERENCE).write_text(config.replace('"keys": "image"', '"keys": "ct"'))
    with refused(ValueError, "bundle: ", "preprocessing", "'image'", "`ct`"):
        load_segmenter(folder, None, CPU)(*blocks())


def test_a_bundle_without_its_weights_is_refused(tmp_path):
    folder = bundle(tmp_path / "bundle")
    (folder / "models" / "model.pt").unlink()
    with refused(ValueError, "model.pt", "no weights", "download"):
        load_segmenter(folder, None, CPU)
