"""What docs/exports.md says is what happens: the code in it is run here."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from scripts.geometry import preset

BUNDLE = Path(__file__).parents[2] / "bundle"
CONFIGS = BUNDLE / "configs"
CODE, COMMANDS = (
    re.findall(rf"```{language}\n(.*?)```", (BUNDLE / "docs" / "exports.md").read_text(), re.DOTALL)
    for language in ("python", "bash")
)
OFFLINE = "import socket\n\ndef refuse(*_):\n    raise OSError('offline')\n\nsocket.socket.connect = refuse\n"
TINY = {
    "geometry": json.loads(preset("carm", (16, 16, 16), 20.0, 16).to_json())
    | {"_target_": "scripts.geometry.BiplanarGeometry"},
    "stage1_def#channels": [8, 16],
    "stage1_def#plane_channels": [8, 8, 16],
    "stage1_def#condition_channels": [8, 8],
    "stage1_def#stem_stride": 1,
    "stage1_def#steps": 3,
}
ONE_STEP = {"stage1_def#steps": 1}


def code_with(word: str) -> str:
    """The one block of Python in the document that holds ``word``."""
    (block,) = [block for block in CODE if word in block]
    return block


def parsed(*overlays: str, **values) -> ConfigParser:
    """inference.json with overlays and values on top."""
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.json") for name in ("inference", *overlays)])
    parser.update({"device": "$torch.device('cpu')", **values})
    return parser


def test_the_documents_numpy_sampler_reconstructs_what_the_network_does_from_the_exported_files(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    weights, generator = tmp_path / "model.pt", torch.Generator().manual_seed(0)
    state = parsed(**TINY).get_parsed_content("network_def").state_dict()
    random = {k: 0.1 * torch.randn(v.shape, generator=generator) for k, v in state.items() if k != "geometry"}
    torch.save(state | random, weights)
    parser = parsed("export_onnx", **TINY, weights=str(weights), output_dir=str(tmp_path / "onnx"))
    parser.get_parsed_content("run")
    image = torch.rand(2, 2, 16, 16, generator=generator)
    with torch.no_grad():
        expected = parser.get_parsed_content("network")(image).numpy()
    names: dict = {}
    exec(code_with("onnxruntime"), names)
    assert expected.std() > 0.01
    np.testing.assert_allclose(names["reconstruct"](str(tmp_path / "onnx"), image.numpy()), expected, atol=1e-4)


def test_the_documents_three_lines_load_the_trained_network_offline_from_elsewhere(python, tmp_path):
    (tmp_path / "bundle").symlink_to(BUNDLE)
    lines = code_with("monai.bundle.load").strip().splitlines()
    assert sum(bool(line) for line in lines) == 3
    use = [
        "import torch",
        "image = torch.rand(1, 2, 128, 128, generator=torch.Generator().manual_seed(0))",
        "with torch.no_grad(): torch.save(network(image), 'volume.pt')",
        "loaded = network.cpu().state_dict()",
        code_with("create_workflow"),
        "assert not network.training",
        "assert all(torch.equal(loaded[name], value.cpu()) for name, value in network.state_dict().items())",
    ]
    end = python("\n".join([OFFLINE, *lines, *use]), tmp_path)
    assert end.wait() == 0, end.output[-3000:]
    image = torch.rand(1, 2, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = parsed().get_parsed_content("network")(image)
    assert torch.allclose(torch.load(tmp_path / "volume.pt", weights_only=True), expected, atol=1e-4)


def test_the_documents_torchscript_command_writes_the_network_whose_volume_is_the_eager_ones(monai_bundle, tmp_path):
    (tmp_path / "bundle").symlink_to(BUNDLE)
    (command,) = [block for block in COMMANDS if "ckpt_export" in block]
    *program, options = command.replace("\\\n", "").split(maxsplit=5)
    assert program == ["PYTHONPATH=bundle", "python", "-m", "monai.bundle", "ckpt_export"]
    values = dict(option.split() for option in options.split("--")[1:]) | ONE_STEP
    end = monai_bundle("ckpt_export", tmp_path, prelude="import sys\nsys.path.insert(1, 'bundle')", **values)
    assert end.wait() == 0, end.output[-3000:]
    image = torch.rand(1, 2, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        eager = parsed(**ONE_STEP).get_parsed_content("network").cpu()(image)
        exported = torch.jit.load(str(tmp_path / "model.ts"), map_location="cpu")(image)
    assert eager.shape == (1, 1, 64, 64, 64)
    assert ((exported - eager).norm() / eager.norm()).item() <= 1e-4


def test_without_tensorrt_its_overlay_says_so_and_reconstructs_with_the_ordinary_network(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    parser = parsed("inference_trt")
    network = parser.get_parsed_content("evaluator").network
    assert "TensorRT is not used, torch sees no CUDA device: PyTorch computes\n" in capsys.readouterr().out
    assert network is parser.get_parsed_content("trained")
    assert "tensorrt_requested" not in parser.get_parsed_content("provenance")
    network.denoiser._trt_compiler = None
    again = parsed("inference_trt", network=network)
    assert again.get_parsed_content("provenance")["tensorrt_requested"] == "fp16"
