"""Export of a diffusion network to ONNX: one file for the conditions before a sampler's loop, one for its step."""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from scripts.geometry import BiplanarGeometry
from scripts.intensity import NETWORK_HU_RANGE, RADIOGRAPH_SCALE
from scripts.io.atomic import whole_folder
from scripts.io.text import strict_json

CONDITIONER, DENOISER, NOISE, FACTS = "conditioner.onnx", "denoiser.onnx", "noise.npy", "onnx.json"
OPSET = 18
TRACED_BATCH, CHECKED_BATCHES = 2, (1, 3)
"""Batch sizes: only this dimension is dynamic, so a network traced with one size is checked with others."""
TOLERANCE = 1e-4
"""Highest relative L2 difference between ONNX Runtime and PyTorch."""


class DiffusionNetwork(Protocol):
    """Diffusion network with the interface that the export needs."""

    image_shape: Sequence[int]
    volume_shape: Sequence[int]
    reads: int
    parametrisation: object
    alphas_cumprod: Tensor
    timesteps: Tensor
    noise: Tensor

    def condition(self, image: Tensor) -> list[Tensor]:
        """Return everything the denoiser needs from the radiographs."""

    def first_estimate(self, condition: list[Tensor]) -> Tensor:
        """Return the estimate before the first step."""

    def predict_x0(self, x: Tensor, timesteps: Tensor, condition: list[Tensor], estimate: Tensor) -> Tensor:
        """Return the denoised volume."""


class _Conditioner(nn.Module):
    """Module that calls ``network.condition`` and puts the first estimate first if the network uses one."""

    def __init__(self, network: DiffusionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        condition = self.network.condition(image)
        return (self.network.first_estimate(condition), *condition) if carries(self.network) else tuple(condition)


class _Denoiser(nn.Module):
    """Module that calls ``network.predict_x0``."""

    def __init__(self, network: DiffusionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, timesteps: Tensor, *known: Tensor) -> Tensor:
        estimate, condition = (known[0], known[1:]) if carries(self.network) else (x, known)
        return self.network.predict_x0(x, timesteps, list(condition), estimate)


def carries(network: DiffusionNetwork) -> bool:
    """Return whether a diffusion network uses an estimate, i.e. its denoiser reads more than x_t."""
    return network.reads > 1


def export_onnx(
    network: DiffusionNetwork, geometry: BiplanarGeometry, output: str | Path | None, provenance: Mapping[str, Any]
) -> None:
    """Write a folder with everything a sampler needs, atomically.

    ``conditioner.onnx`` maps ``image [B, 2, N, N]`` to the conditions, ``denoiser.onnx`` maps ``x [B, 1, U, V, W]``,
    ``timesteps [B]`` int64 and the conditions to ``x0`` in [-1, 1], including the parametrisation. With a network that
    carries an estimate, both also have ``estimate``: the ``x0`` of the previous step, initially the conditioner's.
    ``noise.npy [1, 1, U, V, W]`` is the start of the network's own reconstruction; ``onnx.json`` describes all files.

    Args:
        network: diffusion network on the CPU in evaluation mode, with ``condition``, ``predict_x0`` and the buffers
            ``alphas_cumprod``, ``timesteps`` and ``noise``.
        geometry: the exam it was trained for.
        output: a new or empty folder, or an earlier export, which is replaced.
        provenance: provenance of the weights, stored in ``onnx.json``.

    Raises:
        ValueError: the folder is missing or holds something else, the network is not a diffusion network, a package is
            not installed, or ONNX Runtime and PyTorch disagree.
    """
    if output is None:
        raise ValueError("output folder: none given; add --output_dir DIR")
    folder = Path(output)
    if not hasattr(network, "predict_x0"):
        raise ValueError(
            f"ONNX export: takes a diffusion network on its own, got {type(network).__name__}; export others as "
            "TorchScript with monai.bundle ckpt_export"
        )
    absent = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if absent:
        raise ValueError(f"ONNX export: {' and '.join(absent)} not installed; pip install {' '.join(absent)}")
    parts = {CONDITIONER: _Conditioner(network).eval(), DENOISER: _Denoiser(network).eval()}
    with whole_folder(folder, FACTS) as partial, torch.no_grad():
        example = _example(network, TRACED_BATCH)
        for name, part in parts.items():
            print(f"ONNX export: {name}", flush=True)
            _trace(part, *example[name], partial / name)
        differences = {name: _largest_difference(network, partial / name) for name in parts}
        np.save(partial / NOISE, network.noise.numpy())
        facts = {
            **provenance,
            "files": {name: _signature(*example[name]) for name in parts},
            "noise": NOISE,
            "alphas_cumprod": network.alphas_cumprod.tolist(),
            "timesteps": network.timesteps.tolist(),
            "parametrisation": f"{type(network.parametrisation).__name__}, applied: the output is x0",
            "geometry": json.loads(geometry.to_json()),
            "image_per_line_integral": RADIOGRAPH_SCALE,
            "hu_of_minus_one_and_one": NETWORK_HU_RANGE,
            "relative_difference_from_pytorch": differences,
        }
        (partial / FACTS).write_text(strict_json(facts))
    for name, difference in differences.items():
        size = (folder / name).stat().st_size / 1e6
        print(f"{folder / name}: {size:.1f} MB, ONNX Runtime differs from PyTorch by {difference:.1e} (relative L2)")


def _example(network: DiffusionNetwork, batch: int) -> dict[str, tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Return random inputs of each file and PyTorch's outputs for them, both by name."""
    generator = torch.Generator().manual_seed(batch)
    image = torch.rand(batch, *network.image_shape, generator=generator)
    x = torch.randn(batch, *network.volume_shape, generator=generator)
    timesteps = torch.linspace(len(network.alphas_cumprod) - 1, 0, batch).long()
    condition = network.condition(image)
    estimate = network.first_estimate(condition)
    known = {"estimate": estimate} if carries(network) else {}
    known |= {f"condition_{i}": tensor for i, tensor in enumerate(condition)}
    x0 = network.predict_x0(x, timesteps, condition, estimate)
    return {
        CONDITIONER: ({"image": image}, known),
        DENOISER: ({"x": x, "timesteps": timesteps} | known, {"x0": x0}),
    }


def _trace(part: nn.Module, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor], path: Path) -> None:
    with warnings.catch_warnings():
        # The shapes that the network asserts are fixed. Only this exporter, though deprecated, supports attention with
        # a separate dimension for windows; the new one says "only 4D query, key, and value are supported".
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            part,
            tuple(inputs.values()),
            path,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: {0: "batch"} for name in (*inputs, *outputs)},
            opset_version=OPSET,
            dynamo=False,
        )


def _largest_difference(network: DiffusionNetwork, path: Path) -> float:
    """Return the largest relative L2 difference between ONNX Runtime and PyTorch over all outputs and batches.

    Raises:
        ValueError: the difference exceeds the tolerance or is NaN.
    """
    session = importlib.import_module("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    found = []
    for batch in CHECKED_BATCHES:
        inputs, expected = _example(network, batch)[path.name]
        outputs = session.run(list(expected), {name: tensor.numpy() for name, tensor in inputs.items()})
        found += [_relative(torch.from_numpy(o), e) for o, e in zip(outputs, expected.values(), strict=True)]
    if not all(difference <= TOLERANCE for difference in found):
        raise ValueError(
            f"{path.name}: ONNX Runtime differs from PyTorch by {max(found):.1e} (relative L2), at most {TOLERANCE} is "
            "accepted; nothing was written, try the versions in requirements-export.txt"
        )
    return max(found)


def _relative(output: Tensor, expected: Tensor) -> float:
    difference, size = (output - expected).norm().item(), expected.norm().item()
    return difference / size if size else difference


def _signature(inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> dict[str, dict[str, Sequence[Any]]]:
    def shape(tensor: Tensor) -> list[Any]:
        return ["batch", *tensor.shape[1:]]

    return {
        "inputs": {name: shape(tensor) for name, tensor in inputs.items()},
        "outputs": {name: shape(tensor) for name, tensor in outputs.items()},
    }
