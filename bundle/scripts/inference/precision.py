"""Numerical precision in which a network is evaluated."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


def mixed_precision(device: torch.device, enabled: bool) -> AbstractContextManager:
    """Return bfloat16 autocast for any device; MONAI's engines support only CUDA's."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def bfloat16_pays(device: torch.device | str) -> bool:
    """Return whether a device computes bfloat16 convolutions natively; other CPUs take hundreds of times as long.

    For a CPU, oneDNN decides. PyTorch's query is private: if it is missing, the answer is no.
    """
    supported_by_cpu = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    return torch.device(device).type != "cpu" or bool(supported_by_cpu())
