"""No part of a training iteration leaves its device: what was made elsewhere would meet tensors that have no data."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from scripts.data.augment import RandomDeformation, WholeBody
from scripts.data.contrast import RandomContrast
from scripts.data.datasets import RandomViews
from scripts.data.patients import Always, Mixture
from scripts.training import inferers

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
OF_OTHER_STAGES = {"axon_control.json", "axon_super_resolution.json"}
METHODS = sorted(path for path in (CONFIGS / "methods").glob("*.json") if path.name not in OF_OTHER_STAGES)
UPON = {"refined_256": "refined"} | dict.fromkeys(
    ("ablation_axon_displacement", "ablation_axon_replication", "ablation_axon_triplane"), "axon_bridge"
)
"""Overlays that need another one before them."""
META = torch.device("meta")


def configured(*overlays: Path) -> ConfigParser:
    """train.json with overlays, on the device without data."""
    config = ConfigParser()
    config.read_config([str(path) for path in (CONFIGS / "train.json", *overlays)])
    config["device"] = META
    return config


def test_an_iteration_of_train_json_stays_on_its_device(monkeypatch):
    monkeypatch.setattr(inferers, "mixed_precision", lambda device, enabled: nullcontext())
    config = configured()
    network, geometry, prepare, infer, loss = map(
        config.get_parsed_content, ("network", "geometry", "train#prepare_batch", "training_inferer", "loss")
    )
    patients = Mixture([Always(WholeBody.of(torch.zeros(80, 60, 90), 5.0, META))], torch.ones(1))
    views = RandomViews(patients, geometry, RandomDeformation(), RandomContrast(), length=2)
    hu = torch.stack([item["hu"] for item in views.__getitems__([0, 1])])
    image, x0, _, known = prepare({"hu": hu}, META)
    result = loss(infer(image, network, **known), x0)
    result.backward()
    assert result.device == hu.device == META and all(p.grad is None or p.grad.is_meta for p in network.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS, ids=lambda path: path.stem)
def test_every_method_reconstructs_on_its_device(method):
    before = [method.with_stem(UPON[method.stem])] if method.stem in UPON else []
    network = configured(*before, method).get_parsed_content("network_def").to(META).eval()
    with torch.no_grad():
        assert network(torch.empty(1, *getattr(network, "image_shape", (2, 128, 128)), device=META)).is_meta
