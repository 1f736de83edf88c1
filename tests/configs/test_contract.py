"""What MONAI's own tools check of a bundle, run as its command line runs them."""

import inspect
import json
import os
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow

from scripts.networks.correcting import SelfCorrecting

BUNDLE = Path(__file__).parents[2] / "bundle"
CONFIGS = BUNDLE / "configs"
SCHEMA = os.environ.get("SCHEMA")


def test_metadata_meets_the_schema(monai_bundle):
    if not SCHEMA:
        pytest.skip("SCHEMA names no local copy of the schema; MONAI's verify_metadata would download it")
    files = {"meta_file": "configs/metadata.json", "filepath": Path(SCHEMA).resolve()}
    done = monai_bundle("verify_metadata", BUNDLE, **files)
    assert done.wait() == 0 and "verified with no error" in done.output, done.output[-3000:]


def test_network_meets_its_declared_input_and_output(monai_bundle):
    files = {"meta_file": "configs/metadata.json", "config_file": "configs/inference.json"}
    done = monai_bundle("verify_net_in_out", BUNDLE, net_id="network_def", **files, **{"stage1_def#steps": 1})
    assert done.wait() == 0 and "verified with no error" in done.output, done.output[-3000:]


def test_no_required_property_of_inference_is_missing():
    workflow = ConfigWorkflow(str(CONFIGS / "inference.json"), workflow_type="inference")
    workflow.initialize()
    assert workflow.check_properties() == []


@pytest.mark.parametrize("key", ["geometry", "parametrisation", "alphas_cumprod", "network_def"])
def test_training_and_inference_describe_the_same_model(key):
    train, inference = (json.loads((CONFIGS / f"{name}.json").read_text()) for name in ("train", "inference"))
    assert train[key] == inference[key]


def test_declared_shapes_are_the_geometrys():
    geometry = json.loads((CONFIGS / "inference.json").read_text())["geometry"]
    declared = json.loads((CONFIGS / "metadata.json").read_text())["network_data_format"]
    assert declared["inputs"]["image"]["spatial_shape"] == [geometry["detector_pixels"]] * 2
    assert declared["outputs"]["pred"]["spatial_shape"] == geometry["volume_shape"]


def test_declared_inputs_of_the_denoiser_are_the_networks_arguments():
    declared = json.loads((CONFIGS / "metadata.json").read_text())["denoiser_data_format"]
    _, *arguments = inspect.signature(SelfCorrecting.forward).parameters
    assert [*declared["inputs"], "condition"] == arguments  # which spares training to compute it twice


def test_versions_declared_are_the_versions_pinned():
    metadata = json.loads((CONFIGS / "metadata.json").read_text())
    pins = dict(line.split("==") for line in (BUNDLE.parent / "requirements.txt").read_text().split())
    assert metadata["monai_version"] == pins["monai"]
    assert metadata["pytorch_version"] == pins["torch"]
    assert metadata["numpy_version"] == pins["numpy"]
    assert metadata["required_packages_version"].items() <= pins.items()
    assert next(iter(metadata["changelog"])) == metadata["version"]


def test_models_folder_holds_exactly_one_weights_file_a_raw_state_dict():
    assert [p.name for p in (BUNDLE / "models").glob("*.pt")] == ["model.pt"]
    state = torch.load(BUNDLE / "models" / "model.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
