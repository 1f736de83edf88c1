"""Error intervals through the configurations: the scale is trained, intervals are fitted, a reconstruction has them."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from torch import nn

from scripts.metrics.coverage import coverage_curves, measure_intervals, quantile_crps

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"


def run(kind: str, names: list[str], tiny: Path, **options) -> None:
    files = [str(CONFIGS / name) for name in names] + [str(tiny)]
    cpu = "$torch.device('cpu')"
    workflow = ConfigWorkflow(files, workflow_type=kind, logging_file=False, device=cpu, **options)
    workflow.initialize()
    workflow.run()


@pytest.fixture(scope="module")
def trained(dataset_dir, tiny, tmp_path_factory) -> tuple[Path, dict]:
    """A folder with a network's weights, the scale of its errors, and intervals; and the options that name them."""
    folder = tmp_path_factory.mktemp("intervals")
    files = [str(CONFIGS / "inference.json"), str(tiny)]
    network = ConfigParser(ConfigParser.load_config_files(files)).get_parsed_content("network_def")
    for parameter in network.parameters():
        if not parameter.any():  # an untrained network answers zero
            nn.init.normal_(parameter, std=0.02)
    torch.save(network.state_dict(), folder / "model.pt")
    weights = str(folder / "model.pt")
    options = {"scale_def#hidden": 8, "weights": weights, "scale_weights": str(folder / "scale" / "model.pt")}
    run(
        "inference", ["inference.json", "error_scale.json"], tiny, dataset_dir=str(dataset_dir), learning_steps=20,
        voxels=500, **options,
    )  # fmt: skip
    run(
        "inference", ["inference.json", "intervals.json"], tiny, dataset_dir=str(dataset_dir), fit_split="train",
        split="val", output_dir=str(folder / "fit"), **options,
    )  # fmt: skip
    return folder, options | {"intervals": str(folder / "fit" / "intervals.json")}


def test_the_study_fits_and_measures(trained):
    folder, _ = trained
    assert sorted(p.name for p in (folder / "fit").iterdir()) == [
        "cases.csv", "intervals.json", "reliability.png", "summary.csv", "summary.json", "summary.md",
    ]  # fmt: skip
    valid_for = json.loads((folder / "fit" / "intervals.json").read_text())["valid_for"]
    assert valid_for["steps"] == 3 and valid_for["samples"] == 1
    assert len(valid_for["weights_sha256"]) == len(valid_for["scale_weights_sha256"]) == 64
    record = json.loads((folder / "fit" / "summary.json").read_text())
    assert record["fit_split"] == "train" and record["split"] == "val"


def test_a_reconstruction_has_its_interval_and_standard_deviation(trained, dataset_dir, tiny, tmp_path):
    _, options = trained
    run(
        "inference", ["inference.json"], tiny, input=str(dataset_dir / "cases" / "d"), output_dir=str(tmp_path),
        outputs="nifti", interval=0.9, reference=None, grid_factor=1, **options,
    )  # fmt: skip
    lower, ct, upper, std = (
        nib.load(tmp_path / "d" / f"{name}.nii.gz").get_fdata() for name in ("lower", "ct", "upper", "std")
    )
    assert (lower <= upper).all() and (lower < upper).any() and (std > 0).all()
    assert lower.shape == ct.shape and lower.min() >= -1024 and upper.max() <= 1500
    record = json.loads((tmp_path / "d" / "result.json").read_text())
    assert record["interval"] == 0.9 and len(record["intervals_sha256"]) == 64


def test_intervals_of_another_sampling_are_not_used(trained, dataset_dir, tiny, tmp_path):
    _, options = trained
    common = {
        "input": str(dataset_dir / "cases" / "d"), "outputs": "nifti", "reference": None, "steps": 1,
        "grid_factor": 1, **options,
    }  # fmt: skip
    run("inference", ["inference.json"], tiny, output_dir=str(tmp_path), **common)
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == ["ct.nii.gz", "result.json"]
    assert json.loads((tmp_path / "d" / "result.json").read_text())["intervals_sha256"] is None
    with pytest.raises(RuntimeError) as found:
        run("inference", ["inference.json"], tiny, output_dir=str(tmp_path / "again"), interval=0.9, **common)
    assert "--interval 0.9" in str(found.value.__cause__) and "intervals.json" in str(found.value.__cause__)


def test_intervals_of_both_views_are_not_used_for_one_and_those_of_one_are_fitted_on_it(
    trained, dataset_dir, tiny, tmp_path
):
    _, options = trained
    one = {"views": "frontal", "one_view": True, **options}
    common = {"input": str(dataset_dir / "cases" / "d"), "outputs": "nifti", "reference": None, "grid_factor": 1}
    run("inference", ["inference.json"], tiny, output_dir=str(tmp_path / "both"), **common, **one)
    assert not (tmp_path / "both" / "d" / "std.nii.gz").exists()
    fitting = {"dataset_dir": str(dataset_dir), "fit_split": "train", "split": "val", "output_dir": str(tmp_path)}
    run("inference", ["inference.json", "intervals.json"], tiny, **(one | fitting | {"intervals": None}))
    own = one | {"intervals": str(tmp_path / "intervals.json")}
    run("inference", ["inference.json"], tiny, output_dir=str(tmp_path / "one"), **common, **own)
    assert (tmp_path / "one" / "d" / "std.nii.gz").exists()
    widths = [json.loads(Path(o["intervals"]).read_text())["quantiles"] for o in (options, own)]
    assert widths[0] != widths[1]


def test_measures_of_exact_quantiles():
    """Of a normal truth: nominal coverage, width 2 z sigma, and the closed form of the CRPS, sigma / sqrt(pi)."""
    random, sigma = np.random.default_rng(0), 20.0
    hu = random.uniform(-1000, 1000, 40_000)
    truth = hu + sigma * random.standard_normal(hu.size)
    normal = torch.distributions.Normal(0.0, 1.0)

    def quantile(p: float) -> np.ndarray:
        return hu + sigma * float(normal.icdf(torch.tensor(p)))

    def bounds(level: float) -> tuple[np.ndarray, np.ndarray]:
        return quantile((1 - level) / 2), quantile((1 + level) / 2)

    grid = (np.arange(200) + 0.5) / 200
    row = measure_intervals(bounds, quantile, np.abs(truth - hu), hu, truth, grid)
    assert row["rank_correlation"] == pytest.approx(1)
    assert [row[f"coverage_{p}"] for p in (50, 80, 90, 95)] == pytest.approx([0.5, 0.8, 0.9, 0.95], abs=0.01)
    assert row["width_90_hu"] == pytest.approx(2 * 1.6449 * sigma, rel=1e-3)
    assert quantile_crps(quantile, truth, grid) == pytest.approx(sigma / np.sqrt(np.pi), rel=0.01)
    regions = {"predicted": hu > 500, "missed": truth > hu + 2 * sigma}
    curves = coverage_curves(bounds, truth, regions, (0.3, 0.9, 0.99))
    assert curves["predicted"] == pytest.approx([0.3, 0.9, 0.99], abs=0.015)
    tail = 1 - normal.cdf(torch.tensor(2.0)), 1 - normal.cdf(torch.tensor(2.5758))
    assert curves["missed"] == pytest.approx([0, 0, 1 - float(tail[1] / tail[0])], abs=0.03)
