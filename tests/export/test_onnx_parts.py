"""The ONNX files compute what the network computes, or they are not there."""

import json

import numpy as np
import pytest
import torch
from tests.refusal import refused
from torch import Tensor, nn

from scripts.diffusion.bridge import bridge_alphas_cumprod
from scripts.diffusion.parametrisation import X0, V
from scripts.diffusion.schedules import linear_alphas_cumprod
from scripts.export import onnx_parts
from scripts.export.onnx_parts import export_onnx
from scripts.geometry import preset
from scripts.networks.axon import axon_bridge
from scripts.networks.correcting import SelfConsistent, SelfCorrecting
from scripts.networks.diff2ct import diff2ct
from scripts.networks.diffux2ct import diffux2ct
from scripts.networks.lifted import LiftedConditioner

onnxruntime = pytest.importorskip("onnxruntime")
GEOMETRY = preset("carm", (8, 16, 8), 20.0, 16)
SIZES = {"channels": (8, 16), "patch": 2, "heads": 2, "window": 2, "steps": 2}
PLANES = {"plane_channels": (4, 6, 8), "condition_channels": (3, 5), "plane_blocks": 1}


def of_diffux2ct():
    return diffux2ct(GEOMETRY, V(), linear_alphas_cumprod(), **SIZES, **PLANES)


def of_a_correcting_network(network=SelfCorrecting):
    return diffux2ct(
        GEOMETRY, X0(), linear_alphas_cumprod(), **SIZES, **PLANES | {"condition_channels": (4, 6)},
        conditioner=LiftedConditioner, network=network,
    )  # fmt: skip


def of_a_consistent_network():
    return of_a_correcting_network(SelfConsistent)


def of_diff2ct():
    return diff2ct(GEOMETRY, X0(), linear_alphas_cumprod(), condition_channels=6, **SIZES)


def of_axon():
    return axon_bridge(GEOMETRY, bridge_alphas_cumprod(1000), condition_channels=(6, 8), **SIZES)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(
    scope="module",
    params=[of_diffux2ct, of_a_correcting_network, of_a_consistent_network, of_diff2ct, of_axon],
    ids=lambda make: make.__name__,
)
def exported(request, tmp_path_factory):
    """A small network in which every branch speaks, and the folder it was exported to."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = request.param().eval()
        for parameter in network.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
    folder = tmp_path_factory.mktemp("onnx")
    export_onnx(network, GEOMETRY, folder, {"weights_sha256": "0"})
    return network, folder


def session(folder, name):
    return onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("batch", [1, 2, 5])
@torch.no_grad()
def test_onnx_runtime_computes_conditions_and_x0_of_any_batch_as_pytorch_does(exported, batch):
    network, folder = exported
    image, x = normal(batch, 2, 16, 16, seed=1), normal(batch, 1, 8, 16, 8, seed=2)
    timesteps = torch.linspace(0, 999, batch).long()
    condition = network.condition(image)
    estimate = normal(batch, 1, 8, 16, 8, seed=3)
    x0 = network.predict_x0(x, timesteps, condition, estimate)
    first = {"estimate": network.first_estimate(condition)} if isinstance(network, SelfCorrecting) else {}
    expected = first | {f"condition_{i}": tensor for i, tensor in enumerate(condition)}
    names = list(expected)
    theirs = session(folder, "conditioner.onnx").run(names, {"image": image.numpy()})
    for ours, value in zip(expected.values(), theirs, strict=True):
        np.testing.assert_allclose(value, ours.numpy(), atol=1e-4)
    given = {"x": x.numpy(), "timesteps": timesteps.numpy()} | dict(zip(names, theirs, strict=True))
    if first:
        given["estimate"] = estimate.numpy()
    (theirs,) = session(folder, "denoiser.onnx").run(["x0"], given)
    np.testing.assert_allclose(theirs, x0.numpy(), atol=1e-4)


def test_the_record_names_the_inputs_and_outputs_that_the_files_declare(exported):
    network, folder = exported
    assert sorted(path.name for path in folder.iterdir()) == [
        "conditioner.onnx",
        "denoiser.onnx",
        "noise.npy",
        "onnx.json",
    ]
    record = json.loads((folder / "onnx.json").read_text())
    for name, declared in record["files"].items():
        file = session(folder, name)
        assert {i.name: i.shape for i in file.get_inputs()} == declared["inputs"]
        assert [o.name for o in file.get_outputs()] == list(declared["outputs"])
    assert record["alphas_cumprod"] == network.alphas_cumprod.tolist()
    assert record["timesteps"] == network.timesteps.tolist()
    assert record["geometry"]["volume_shape"] == [8, 16, 8]
    np.testing.assert_array_equal(np.load(folder / record["noise"]), network.noise.numpy())


class Counting(nn.Module):
    """Looks like a diffusion network; what it computes depends on the batch, which a trace freezes."""

    image_shape, volume_shape = (2, 4, 4), (1, 2, 2, 2)

    reads = 1

    def __init__(self, freezes: bool):
        super().__init__()
        self.freezes, self.parametrisation = freezes, X0()
        for name, value in (("alphas_cumprod", torch.ones(3)), ("timesteps", torch.ones(1)), ("noise", torch.ones(1))):
            self.register_buffer(name, value)

    def condition(self, image):
        return [image * (torch.ones(len(image)).sum().item() if self.freezes else 2.0)]

    def first_estimate(self, condition):
        return condition[0]

    def predict_x0(self, x, timesteps, condition, estimate):
        return x * timesteps.reshape(-1, 1, 1, 1, 1) + condition[0].mean()


def test_a_file_that_computes_something_else_is_refused_and_an_earlier_export_stays(tmp_path):
    folder = tmp_path / "onnx"
    export_onnx(Counting(freezes=False), GEOMETRY, folder, {})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with refused(ValueError, "conditioner.onnx", "ONNX Runtime", "1.0e"):
        export_onnx(Counting(freezes=True), GEOMETRY, folder, {})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]
    export_onnx(Counting(freezes=False), GEOMETRY, folder, {"again": True})
    assert json.loads((folder / "onnx.json").read_text())["again"]


def test_a_folder_with_other_files_is_never_replaced(tmp_path):
    (tmp_path / "model.pt").touch()
    with refused(ValueError, "onnx.json", "replaced"):
        export_onnx(Counting(freezes=False), GEOMETRY, tmp_path, {})
    with refused(ValueError, "replaced"):
        export_onnx(Counting(freezes=False), GEOMETRY, tmp_path / "model.pt", {})
    with pytest.raises(ValueError, match="add --output_dir DIR"):
        export_onnx(Counting(freezes=False), GEOMETRY, None, {})
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_what_cannot_be_exported_is_said_with_the_remedy(tmp_path, monkeypatch):
    with refused(ValueError, "got Identity", "ckpt_export"):
        export_onnx(nn.Identity(), GEOMETRY, tmp_path / "onnx", {})
    monkeypatch.setattr(onnx_parts, "find_spec", lambda name: None)
    with refused(ValueError, "not installed", "pip install onnx onnxruntime"):
        export_onnx(Counting(freezes=False), GEOMETRY, tmp_path / "onnx", {})
    assert not list(tmp_path.iterdir())
