"""``sensitivity.json`` through the real command line, on a direct method with random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from scripts.geometry import preset
from scripts.intensity import hu_to_mu
from scripts.io.case import Volume, write_case
from scripts.phantom.torso import torso
from scripts.physics.separable import SeparableProjector

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
FILES = [str(CONFIGS / f"{name}.json") for name in ("inference", "evaluate", "sensitivity", "methods/direct")]
GEOMETRY = preset("carm", (16, 16, 16), 25.0, 16)
TINY = {
    "geometry": {"_target_": "scripts.geometry.BiplanarGeometry", **json.loads(GEOMETRY.to_json())},
    "network_def": {
        "_target_": "scripts.networks.cnn3d.CNN3D",
        "geometry": "@geometry",
        "channels": [4, 8, 8, 8, 8, 4],
    },
}


@pytest.fixture
def files(tmp_path) -> list[str]:
    """The configuration of a tiny network, its random weights in ``model.pt``, and a case in ``data``."""
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    files = [*FILES, str(tmp_path / "tiny.json")]
    torch.manual_seed(0)
    network = ConfigParser(ConfigParser.load_config_files(files)).get_parsed_content("network_def")
    torch.save(network.state_dict(), tmp_path / "model.pt")
    hu = torso(0, GEOMETRY.volume_shape, GEOMETRY.volume_spacing_mm).hu
    ct = Volume(hu.round().numpy().astype(np.int16), GEOMETRY.volume_affine())
    image = SeparableProjector(GEOMETRY)(hu_to_mu(hu)[None, None])[0].numpy()
    write_case(tmp_path / "data" / "cases" / "x", GEOMETRY, image, ct, ct, None, {})
    (tmp_path / "data" / "splits.json").write_text(json.dumps({"test": ["x"]}))
    return files


def test_the_command_writes_what_each_perturbation_costs(files, tmp_path, monai_bundle):
    options = {"dataset_dir": "data", "weights": "model.pt", "output_dir": "out", "turns_deg": "[3]", "method": "cnn3d"}
    done = monai_bundle("run", tmp_path, config_file=files, **options)
    assert done.wait() == 0, done.output[-2000:]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "cases.csv", "summary.csv", "summary.json", "summary.md",
    ]  # fmt: skip
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    rows = {row["method"]: {key: value["mean"] for key, value in row["metrics"].items()} for row in found["methods"]}
    assert list(rows) == [
        "unperturbed", "lateral view turned by +3 deg", "both views turned by +3 deg", "exposure x 1.2",
        "exposure x 0.833", "gain x 1.05", "gain x 0.95",
    ]  # fmt: skip
    assert all(row["psnr3d_db"] > 0 for row in rows.values())
    assert rows["unperturbed"]["ssim3d_change"] == 0 != rows["gain x 1.05"]["psnr3d_db_change"]
    page = (tmp_path / "out" / "summary.md").read_text()
    assert "| unperturbed | " in page and "| unperturbed | " in done.output
    assert "- split: test" in page and "- method: cnn3d" in page and "- weights_sha256: " in page
