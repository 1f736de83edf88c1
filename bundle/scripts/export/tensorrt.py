"""Acceleration of the denoiser by TensorRT, if available."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from monai.networks import trt_compile
from torch import nn

from scripts.io.digest import sha256

PACKAGES = ("tensorrt", "polygraphy", "onnx", "cuda")


def missing_for_tensorrt() -> str | None:
    """Return the reason why this machine cannot use TensorRT, or None if it can."""
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    absent = [name for name in PACKAGES if find_spec(name) is None]
    return f"{', '.join(absent)} not installed" if absent else None


def with_tensorrt(
    network: nn.Module, weights: str | Path, submodule: str, precision: str = "fp16", max_batch: int = 1
) -> nn.Module:
    """Run ``submodule`` of ``network`` as a TensorRT engine and return the network, unchanged without TensorRT.

    The first call builds the engine, which takes minutes, and saves it next to the weights; its name includes their
    digest. If that fails, or a batch is larger than planned, MONAI logs it and PyTorch computes.

    Args:
        network: network with its weights, on the GPU, in evaluation mode; inputs must be float32 (no autocast).
        weights: file of the weights.
        submodule: name of the submodule; its ``forward`` takes tensors and lists of tensors, all with the batch first.
        precision: ``fp32``, ``tf32``, ``fp16`` or ``bf16``.
        max_batch: largest batch that the engine is planned for.
    """
    reason = missing_for_tensorrt()
    if reason is not None:
        print(f"TensorRT is not used, {reason}: PyTorch computes", flush=True)
        return network
    args = {
        "precision": precision,
        "dynamic_batchsize": [1, max_batch, max_batch],
        "fallback": True,
        # torch's newer exporter supports attention over 4D tensors only.
        "export_args": {"dynamo": False},
    }
    path = f"{weights}.{sha256(weights)[:12]}.{precision}-{max_batch}"
    return trt_compile(network, path, args=args, submodule=submodule)


def requested_precision(network: nn.Module, submodule: str, precision: str) -> str | None:
    """Return ``precision`` if :func:`with_tensorrt` requested an engine, which is built only at the first call."""
    return precision if hasattr(network.get_submodule(submodule), "_trt_compiler") else None
