"""The calibration study, on a diffusion model whose posterior is known, and by its configuration."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from tests.refusal import refused
from torch import nn

from scripts.diffusion.samplers import DDPM, DPMSolverPP2M
from scripts.diffusion.schedules import linear_alphas_cumprod
from scripts.inference.reconstruct import ReconstructionInferer
from scripts.intensity import hu_to_network, network_to_hu
from scripts.io.errors import SomeFailed
from scripts.studies.calibrate import CalibrationStudy

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
SCHEDULE = linear_alphas_cumprod()
METHODS = ("raw", "tempered")
N = 32
STD = 0.1 + 0.1 * torch.rand(1, N, N, 2, generator=torch.Generator().manual_seed(99))
"""Of the truth given the radiographs, in network range; every voxel has its own."""


def case(name: str, seed: int) -> dict:
    """A truth drawn around a mean that the radiographs tell."""
    generator = torch.Generator().manual_seed(seed)
    mean = 0.5 * torch.rand(2, N, N, generator=generator) - 0.25
    truth = mean.permute(1, 2, 0)[None] + STD * torch.randn(STD.shape, generator=generator)
    return {"name": name, "line_integrals": mean / 0.25, "hu": network_to_hu(truth)}


class Posterior(nn.Module):
    """The exact denoiser of N(mean, STD²), or of one narrower by ``confidence``; NaN for the cases in ``broken``."""

    def __init__(self, confidence: float = 1.0, broken: tuple[dict, ...] = ()) -> None:
        super().__init__()
        self.volume_shape, self.variance = [1, N, N, 2], (STD / confidence) ** 2
        self.broken = [case["line_integrals"] * 0.25 for case in broken]

    def condition(self, image):
        nan = torch.tensor([math.nan if any(torch.equal(i, b) for b in self.broken) else 0.0 for i in image])
        return [image.permute(0, 2, 3, 1)[:, None] + nan.view(-1, 1, 1, 1, 1)]

    def first_estimate(self, condition):
        return torch.zeros(len(condition[0]), *self.volume_shape)

    def predict_x0(self, x, t, condition, estimate):
        alpha_bar, mean = SCHEDULE[t[0]], condition[0]
        gain = alpha_bar.sqrt() * self.variance / (alpha_bar * self.variance + 1 - alpha_bar)
        return (mean + gain * (x - alpha_bar.sqrt() * mean)).float()


def left_half(hu: np.ndarray) -> np.ndarray:
    body = np.zeros(hu.shape, bool)
    body[: N // 2] = True
    return body


CASES = {"val": [case("v0", 0), case("v1", 1)], "test": [case(f"x{i}", 10 + i) for i in range(3)]}


def study(folder, network, sampler=DPMSolverPP2M(), steps=20, failures=(), fit_split="val", draw=None):  # noqa: B008
    inferer = ReconstructionInferer(sampler, SCHEDULE, steps, power=3.0, samples=39, sample_batch=13)
    splits = (fit_split, CASES["val"], "test", CASES["test"])
    outputs = (left_half, folder, {"seed": 0}, draw)
    return CalibrationStudy(network, inferer, torch.device("cpu"), *splits, dict(failures), *outputs)


def results(folder) -> tuple[dict, dict]:
    """The record, and the means of all metrics by method and region."""
    record = json.loads((folder / "summary.json").read_text())
    means = {
        (entry["method"], entry["estimate"]): {name: value["mean"] for name, value in entry["metrics"].items()}
        for entry in record["methods"]
    }
    return record, means


def covered(metrics: dict, kind: str = "coverage") -> list[float]:
    return [metrics[f"{kind}_{level}"] for level in (50, 80, 90, 95)]


NOMINAL = pytest.approx([0.5, 0.8, 0.9, 0.95], abs=0.03)


def test_samples_of_the_exact_posterior_are_calibrated_as_they_are(tmp_path, capsys):
    study(tmp_path, Posterior())()
    record, means = results(tmp_path)
    assert record["temperature"] == pytest.approx(1, abs=0.05)
    assert list(record["temperature_of_each_fitted_case_alone"]) == ["v0", "v1"] and record["cases"] == 3
    for region in ("body", "everywhere"):
        for method in METHODS:
            assert covered(means[method, region]) == NOMINAL
            assert covered(means[method, region], "samples_coverage") == NOMINAL
        assert means["raw", region]["rank_correlation"] > 0.1
    assert "| metric | raw, body | tempered, body | raw, everywhere | tempered, everywhere |" in capsys.readouterr().out


@pytest.mark.parametrize("confidence", [2.0, 0.5])
def test_a_temperature_fitted_on_one_split_repairs_wrong_confidence_on_another(tmp_path, confidence):
    study(tmp_path, Posterior(confidence))()
    record, means = results(tmp_path)
    raw, tempered = means["raw", "body"], means["tempered", "body"]
    assert record["temperature"] == pytest.approx(math.sqrt(confidence**2 + 1 / 39), rel=0.08)
    assert raw["calibration_error"] > 0.15 and covered(tempered) == NOMINAL
    assert tempered["calibration_error"] < 0.02 and tempered["own_temperature"] == pytest.approx(1, abs=0.05)
    assert tempered["crps_hu"] < raw["crps_hu"] and tempered["nll"] < raw["nll"]
    assert tempered["mae_hu"] == raw["mae_hu"]


@pytest.mark.parametrize("sampler", [DPMSolverPP2M(), DDPM()], ids=repr)
def test_few_steps_are_over_confident_even_with_the_exact_denoiser(tmp_path, sampler):
    # The last step of a sampler is the mean of what is still open at its timestep, and not a draw from it.
    study(tmp_path, Posterior(), sampler, steps=2)()
    record, means = results(tmp_path)
    assert record["temperature"] > 2 and means["raw", "body"]["coverage_90"] < 0.6
    assert covered(means["tempered", "body"]) == NOMINAL


def test_a_lost_case_fails_the_run_and_costs_no_other(tmp_path):
    network = Posterior(broken=(CASES["val"][1], CASES["test"][0]))
    with pytest.raises(SomeFailed) as caught:
        study(tmp_path, network, failures={"x9": "x9: no CT"})()
    lost = str(caught.value).splitlines()
    assert lost[:2] == ["3 of 6 cases failed:", "x9: no CT"]
    assert [line.split(":")[0] for line in lost[2:]] == ["v1", "x0"] and "NaN or infinity" in lost[2]
    rows = list(csv.DictReader((tmp_path / "cases.csv").open()))
    assert [(row["case"], row["estimate"], row["method"]) for row in rows] == [
        (name, region, method) for name in ("x1", "x2") for region in ("body", "everywhere") for method in METHODS
    ]
    record, _ = results(tmp_path)
    assert list(record["temperature_of_each_fitted_case_alone"]) == ["v0"] and list(record["failures"]) == lost_names(
        lost
    )


def lost_names(lost: list[str]) -> list[str]:
    return [line.split(":")[0] for line in lost[1:]]


@pytest.mark.parametrize("split", ["val", "test"])
def test_without_a_case_of_either_split_nothing_is_written(tmp_path, split):
    with refused(ValueError, f"split '{split}'", "0: ", "NaN"):
        study(tmp_path / "out", Posterior(broken=tuple(CASES[split])))()
    assert not (tmp_path / "out").exists()


def test_samples_that_are_all_the_same_have_no_temperature(tmp_path):
    with refused(ValueError, "temperature", "'val'", "the same"):
        study(tmp_path, Posterior(confidence=1e9))()


def test_the_measured_cases_are_not_fitted_on(tmp_path):
    with refused(ValueError, "'test'", "--fit_split"):
        study(tmp_path, Posterior(), fit_split="test")


def test_the_picture_gets_the_coverages_in_the_body_without_and_with_the_temperature(tmp_path):
    drawn = []
    study(tmp_path, Posterior(2.0), draw=lambda *arguments: drawn.append(arguments))()
    ((path, levels, curves, title),) = drawn
    assert path == tmp_path / "reliability.png" and "3 test cases" in title
    assert {name: np.shape(curve) for name, curve in curves.items()} == dict.fromkeys(METHODS, (3, 20))
    raw, tempered = (np.abs(np.mean(curves[method], axis=0) - levels).max() for method in METHODS)
    assert tempered < 0.03 and raw > 0.2


def test_truth_and_samples_are_compared_in_the_range_of_the_network():
    metal = case("m", 5)
    metal["hu"] = metal["hu"] + 5000
    voxels = study(Path(), Posterior())._voxels(metal)["body"]
    assert voxels.truth.max() == pytest.approx(1500) and voxels.samples.shape == (39, N * N)
    assert torch.equal(voxels.truth, network_to_hu(hu_to_network(metal["hu"]))[0, : N // 2].flatten())


def test_the_configuration_calibrates_a_network_on_prepared_cases(dataset_dir, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.excepthook", lambda *_: None)
    files = [str(CONFIGS / name) for name in ("inference.json", "methods/icm.json", "calibrate.json")] + [str(tiny)]
    network = ConfigParser(ConfigParser.load_config_files(files)).get_parsed_content("network_def")
    for parameter in network.parameters():
        if not parameter.any():  # an untrained network answers zero, whatever the noise
            nn.init.normal_(parameter, std=0.1)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    workflow = ConfigWorkflow(
        files, workflow_type="inference", logging_file=False, dataset_dir=str(dataset_dir), fit_split="train",
        split="val", weights=str(tmp_path / "model.pt"), samples=5, output_dir=str(tmp_path / "out"), steps=2,
        sampler="ddpm", device="$torch.device('cpu')",
    )  # fmt: skip
    workflow.initialize()
    assert workflow.check_properties() == []
    workflow.run()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "cases.csv", "reliability.png", "summary.csv", "summary.json", "summary.md",
    ]  # fmt: skip
    record, means = results(tmp_path / "out")
    assert list(record["temperature_of_each_fitted_case_alone"]) == ["a", "b", "c"] and record["cases"] == 2
    assert record["samples"] == 5 and record["sampler"] == "DDPM()" and len(record["weights_sha256"]) == 64
    assert means["raw", "body"]["samples_coverage_50"] is not None
    assert means["raw", "body"]["samples_coverage_80"] is None
