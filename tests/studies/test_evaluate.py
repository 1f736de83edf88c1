"""The comparison of methods, with methods whose results are known."""

import csv
import json
import math
import sys

import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer
from tests.refusal import refused
from torch import nn

from scripts.geometry import preset
from scripts.inference.measured import prepare_measured
from scripts.intensity import hu_to_mu, hu_to_network
from scripts.io.errors import SomeFailed
from scripts.metrics.perceptual import Backbone, Perceptual, SliceFeatures
from scripts.physics.separable import SeparableProjector
from scripts.studies.evaluate import CompareMethods

SHAPE = (12, 12, 12)
PROJECTOR = SeparableProjector(preset("carm", SHAPE, 25.0, 16))
NAMES = ["case_a", "case_b", "case_c"]


def case(name: str) -> dict:
    hu = -1000 + 1200 * torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(NAMES.index(name)))
    return {"name": name, "line_integrals": PROJECTOR(hu_to_mu(hu[None]))[0], "hu": hu}


class Oracle(nn.Module):
    """Knows the truth of every case by its radiographs, and answers with it plus given errors, one per sample."""

    def __init__(self, errors: tuple[float, ...], nan_for: str = "") -> None:
        super().__init__()
        self.errors, self.nan_for = errors, nan_for

    def forward(self, image):
        return torch.cat([self.answer(one) for one in image])

    def answer(self, image):
        known = min((case(name) for name in NAMES), key=lambda c: (c["line_integrals"] * 0.25 - image).abs().max())
        truth = hu_to_network(known["hu"])
        answers = torch.cat([truth + error for error in self.errors])[None]
        return answers * math.nan if known["name"] == self.nan_for else answers


def evaluate(folder, method, baselines, batch_size=1, failures=(), projector=PROJECTOR, **options):
    comparison = CompareMethods(folder, projector, "oracle", baselines, dict(failures), {"seed": 7}, **options)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader([case(name) for name in NAMES], batch_size=batch_size),
        network=method,
        inferer=SimpleInferer(),
        prepare_batch=prepare_measured,
        val_handlers=[comparison],
        decollate=False,
    )
    evaluator.run()
    return comparison, evaluator


def test_a_coarser_measurement_is_one_of_the_means(tmp_path, monkeypatch):
    """Errors of +-0.2 that alternate from voxel to voxel vanish in means over 2 x 2 x 2 voxels."""
    fine = SeparableProjector(PROJECTOR.geometry.finer(2))
    monkeypatch.setattr(sys.modules[__name__], "SHAPE", fine.geometry.volume_shape)
    monkeypatch.setattr(sys.modules[__name__], "PROJECTOR", fine)

    class Alternating(Oracle):
        def answer(self, image):
            return super().answer(image) + 0.2 * (-1) ** torch.arange(SHAPE[0])

    evaluate(tmp_path, Alternating((0.0,)), {}, projector=fine)[0].finish()
    assert all(float(row["psnr3d_db"]) == pytest.approx(20, rel=1e-4) for row in read_cases(tmp_path))
    evaluate(tmp_path, Alternating((0.0,)), {}, factor=2)[0].finish()
    assert all(float(row["psnr3d_db"]) > 100 for row in read_cases(tmp_path))
    assert all(0 < float(row["reprojection"]) < 0.1 for row in read_cases(tmp_path))


def read_cases(folder):
    return list(csv.DictReader((folder / "cases.csv").open()))


def test_method_and_baseline_stand_side_by_side_on_the_same_cases(tmp_path, capsys):
    comparison, _ = evaluate(tmp_path, Oracle((0.02,)), {"worse": Oracle((0.2,))})
    comparison.finish()
    table = [(row["case"], row["method"], row["estimate"], float(row["psnr3d_db"])) for row in read_cases(tmp_path)]
    good, bad = (pytest.approx(20 * math.log10(2 / e), rel=1e-4) for e in (0.02, 0.2))
    assert table == [(n, m, "single", p) for n in NAMES for m, p in (("oracle", good), ("worse", bad))]
    assert "| metric | oracle | worse |\n" in capsys.readouterr().out
    page = (tmp_path / "summary.md").read_text()
    assert "| psnr3d_db | 40.00 ± 0.000 | 20.00 ± 0.000 |" in page and "- seed: 7" in page and "clipped to" in page


def test_the_first_sample_is_primary_and_the_mean_of_samples_has_its_own_name(tmp_path):
    comparison, evaluator = evaluate(tmp_path, Oracle((0.2, -0.2, 0.03)), {})
    comparison.finish()
    methods = json.loads((tmp_path / "summary.json").read_text())["methods"]
    psnr = {entry["estimate"]: entry["metrics"]["psnr3d_db"]["mean"] for entry in methods}
    assert list(psnr) == ["single", "mean of 3 samples"]
    assert psnr["single"] == pytest.approx(20, rel=1e-4)
    assert psnr["mean of 3 samples"] == pytest.approx(20 * math.log10(2 / 0.01), rel=1e-3)
    seconds = {entry["estimate"]: entry["metrics"]["seconds"]["mean"] for entry in methods}
    assert seconds["mean of 3 samples"] == pytest.approx(3 * seconds["single"])
    assert evaluator.state.metrics["psnr3d_db"] == psnr["single"]


def test_the_batch_size_does_not_matter(tmp_path):
    for batch_size in (1, 2):
        evaluate(tmp_path / str(batch_size), Oracle((0.1,)), {}, batch_size)[0].finish()
    one, two = (read_cases(tmp_path / str(batch_size)) for batch_size in (1, 2))
    assert [r | {"seconds": ""} for r in one] == [r | {"seconds": ""} for r in two]


@pytest.mark.parametrize("method, baseline", [("case_b", ""), ("", "case_b")])
def test_a_case_that_a_method_fails_on_counts_for_none_and_costs_no_other(tmp_path, method, baseline):
    comparison, _ = evaluate(tmp_path, Oracle((0.1,), method), {"other": Oracle((0.2,), baseline)}, batch_size=3)
    with refused(SomeFailed, "1 of 3 cases", "\ncase_b: 1728 of 1728 voxels", "NaN"):
        comparison.finish()
    assert [(r["case"], r["method"]) for r in read_cases(tmp_path)] == [
        ("case_a", "oracle"), ("case_a", "other"), ("case_c", "oracle"), ("case_c", "other"),
    ]  # fmt: skip
    record = json.loads((tmp_path / "summary.json").read_text())
    assert record["cases"] == 2 and list(record["failures"]) == ["case_b"]


def test_cases_lost_beforehand_end_the_run_with_an_error(tmp_path):
    comparison, _ = evaluate(tmp_path, Oracle((0.1,)), {}, failures={"case_x": "x/ct.nii.gz: no such file"})
    with refused(SomeFailed, "1 of 4 cases", "\nx/ct.nii.gz: ", "no such file"):
        comparison.finish()
    assert len(read_cases(tmp_path)) == 3


def test_a_backbone_measures_every_case_and_all_cases_together(tmp_path):
    torch.manual_seed(0)
    maps = Backbone(nn.Conv2d(3, 4, 3))
    comparison, _ = evaluate(
        tmp_path, Oracle((0.0,)), {"worse": Oracle((0.3,))}, lpips=Perceptual(maps), fid=SliceFeatures(maps)
    )
    comparison.finish()
    for row in read_cases(tmp_path):
        assert (float(row["lpips_u"]) < 1e-6) is (row["method"] == "oracle")
    oracle, worse = (m["metrics"] for m in json.loads((tmp_path / "summary.json").read_text())["methods"])
    assert oracle["fid_w"]["mean"] == pytest.approx(0, abs=1e-6) and oracle["fid_w"]["n"] == len(NAMES)
    assert worse["fid_w"]["mean"] > 1e-3 and worse["fid_w"]["std"] is None


def test_without_any_measured_case_nothing_is_written(tmp_path):
    comparison = CompareMethods(tmp_path / "out", PROJECTOR, "oracle", {}, {"a": "a: broken"}, {})
    with refused(ValueError, "no case", "\na: broken"):
        comparison.finish()
    assert not (tmp_path / "out").exists()


def test_a_baseline_may_not_take_the_methods_name(tmp_path):
    with refused(ValueError, "'oracle'", "baseline", "--method"):
        CompareMethods(tmp_path, PROJECTOR, "oracle", {"oracle": Oracle((0.1,))}, {}, {})
