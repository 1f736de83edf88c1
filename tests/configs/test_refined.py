"""The refining stage by its overlay, tiny and on phantoms: trained on a coarse network, then evaluated."""

import json
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow
from tests.fixtures import TINY
from torch import nn

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
REFINED = CONFIGS / "methods" / "refined.json"
SMALL = {
    "stage1_def#window": 2,
    "loss_weights": {"absolute": 1.0, "differences": 0.5},
    "stage2_def#channels": [8, 8],
    "stage2_def#plane_channels": [8, 8],
    "stage2_def#lifted_channels": 4,
    "stage2_def#stem_stride": 1,
    "training_inferer#side": 8,
    "max_epochs": 1,
}


@pytest.fixture
def stage1_weights(workflow, overlay, tmp_path) -> Path:
    """Weights of the coarse network in which every branch contributes."""
    network = workflow(REFINED, *small(overlay)).parser.get_parsed_content("stage1_def")
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    state = {k: v.half() if v.dtype == torch.float32 else v for k, v in network.state_dict().items()}
    torch.save(state, tmp_path / "stage1.pt")
    return tmp_path / "stage1.pt"


def small(overlay) -> list[Path]:
    """Overlays for the tiny geometry, which the overlay of the method replaces, and small networks."""
    return [overlay({"geometry": TINY["geometry"]}), overlay(SMALL)]


def test_the_stage_is_trained_on_a_frozen_coarse_network_and_evaluated(
    workflow, overlay, stage1_weights, dataset_dir, tmp_path
):
    files = [REFINED, *small(overlay)]
    workflow(*files, stage1_weights=str(stage1_weights), output_dir=str(tmp_path / "run")).run()
    before, after = (
        torch.load(stage1_weights, weights_only=True),
        torch.load(tmp_path / "run" / "model.pt", weights_only=True),
    )
    assert all(torch.equal(value, after[f"base.{name}"]) for name, value in before.items())
    assert after["upsampler.head.weight"].any()

    bases = [CONFIGS / "inference.json", CONFIGS / "evaluate.json"]
    folders = {"dataset_dir": str(dataset_dir), "split": "val", "output_dir": str(tmp_path / "evaluation")}
    network = overlay({key: value for key, value in (TINY | SMALL).items() if key.startswith(("stage1", "stage2"))})
    made = ConfigWorkflow(
        [str(file) for file in (*bases, REFINED, small(overlay)[0], network)],
        workflow_type="inference", logging_file=False, weights=str(tmp_path / "run" / "model.pt"), baselines={},
        device="$torch.device('cpu')", **folders,
    )  # fmt: skip
    made.initialize()
    made.run()
    summary = json.loads((tmp_path / "evaluation" / "summary.json").read_text())
    assert summary["methods"][0]["metrics"]["psnr3d_db"]["n"] == 2


def test_without_a_coarse_network_nothing_is_trained(workflow, overlay):
    with pytest.raises(RuntimeError) as error:
        workflow(REFINED, *small(overlay)).run()
    assert "--stage1_weights" in str(error.value.__cause__)
