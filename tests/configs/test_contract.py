"""What MONAI's own tools check of a bundle, run as its command line runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

BUNDLE = Path(__file__).parents[2] / "bundle"
CONFIGS = BUNDLE / "configs"
SCHEMA = Path(__file__).parents[3] / "shared" / "schema" / "meta_schema_20240725.json"
FILES = ("--meta_file", "configs/metadata.json", "--config_file", "configs/inference.json")


def monai_bundle(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "monai.bundle", *map(str, arguments)],
        cwd=BUNDLE,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_metadata_meets_the_schema():
    if not SCHEMA.is_file():
        pytest.skip(f"{SCHEMA} is not here; MONAI's verify_metadata would download the schema")
    assert "verified with no error" in monai_bundle(
        "verify_metadata", "--meta_file", "configs/metadata.json", "--filepath", SCHEMA
    )


def test_network_meets_its_declared_input_and_output():
    assert "verified with no error" in monai_bundle("verify_net_in_out", "--net_id", "network_def", *FILES)


def test_exported_program_turns_radiographs_into_the_eager_networks_volume(tmp_path):
    weights = BUNDLE / "models" / "model.pt"
    where = ("--filepath", tmp_path / "model.ts", "--ckpt_file", weights)
    monai_bundle("ckpt_export", "--net_id", "network_def", *where, *FILES)
    parser = ConfigParser(ConfigParser.load_config_file(CONFIGS / "inference.json"))
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(weights, weights_only=True))
    image = torch.rand(1, 2, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        eager, exported = network.eval()(image), torch.jit.load(str(tmp_path / "model.ts"))(image)
    assert eager.shape == (1, 1, 64, 64, 64)
    assert ((exported - eager).norm() / eager.norm()).item() <= 1e-4


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
