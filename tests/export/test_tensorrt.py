"""Without TensorRT nothing changes but one line is printed; MONAI's half of the way to an engine works on the CPU."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.trt_compiler import TrtCompiler

from scripts.diffusion.parametrisation import X0
from scripts.diffusion.schedules import linear_alphas_cumprod
from scripts.export import tensorrt
from scripts.export.tensorrt import with_tensorrt
from scripts.geometry import preset
from scripts.networks.diffux2ct import diffux2ct

GEOMETRY = preset("carm", (8, 16, 8), 20.0, 16)


@pytest.fixture
def network():
    sizes = {"channels": (8, 16), "plane_channels": (4, 6, 8), "condition_channels": (3, 5), "heads": 2, "window": 2}
    return diffux2ct(GEOMETRY, X0(), linear_alphas_cumprod(), **sizes).eval()


@pytest.fixture
def compiled(monkeypatch, network, tmp_path):
    """What MONAI is asked to compile where TensorRT is installed."""
    calls = []
    monkeypatch.setattr(tensorrt, "missing_for_tensorrt", lambda: None)
    monkeypatch.setattr(tensorrt, "trt_compile", lambda *args, **kwargs: calls.append((args, kwargs)) or args[0])
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"weights")
    assert with_tensorrt(network, weights, "denoiser", "fp16", max_batch=4) is network
    return calls[0]


def test_without_a_gpu_or_the_packages_the_network_is_returned_as_it_was_and_one_line_says_why(
    network, monkeypatch, capsys
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert with_tensorrt(network, "model.pt", "denoiser") is network
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: None if name in ("tensorrt", "polygraphy") else name)
    assert with_tensorrt(network, "model.pt", "denoiser") is network
    assert capsys.readouterr().out.splitlines() == [
        "TensorRT is not used, torch sees no CUDA device: PyTorch computes",
        "TensorRT is not used, tensorrt, polygraphy not installed: PyTorch computes",
    ]
    assert not hasattr(network.denoiser, "_trt_compiler")


def test_an_engine_belongs_to_the_weights_the_precision_and_the_batch(compiled, network, tmp_path):
    (of, base_path), keywords = compiled
    assert of is network
    assert keywords["submodule"] == "denoiser"
    digest = hashlib.sha256(b"weights").hexdigest()[:12]
    assert base_path == f"{tmp_path / 'model.pt'}.{digest}.fp16-4"


@torch.no_grad()
def test_what_monai_hands_to_tensorrt_computes_what_the_denoiser_computes(compiled, network, tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.nn.init.normal_(network.denoiser.head[-1].weight)
    plan = tmp_path / "plan"
    compiler = TrtCompiler(network.denoiser, str(plan), **compiled[1]["args"])
    monkeypatch.setattr(compiler, "_onnx_to_trt", lambda path: Path(path).read_bytes())
    x, timesteps = torch.randn(2, 1, 8, 16, 8), torch.tensor([999, 3])
    condition = network.condition(torch.rand(2, 2, 16, 16))
    expected = network.denoise(x, timesteps, condition, x)
    given = compiler._inputs_to_dict((x, timesteps, condition))
    compiler._build_and_save(network.denoiser, {**compiler.defaults, **given})
    inputs = {"x": x, "timesteps": timesteps, **{f"condition_{i}": c for i, c in enumerate(condition)}}
    session = onnxruntime.InferenceSession(plan)
    found = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0]
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
    assert [[low[0], high[0]] for low, _, high in compiler.profiles[0].values()] == [[1, 4]] * len(inputs)
