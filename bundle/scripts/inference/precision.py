"""The arithmetic that a network is evaluated in."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


def mixed_precision(device: torch.device, enabled: bool) -> AbstractContextManager:
    """bfloat16 autocast on any device; MONAI's engines only offer CUDA's."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def bfloat16_pays(device: torch.device) -> bool:
    """Whether a device computes bfloat16 convolutions natively; a CPU that does not takes hundreds of times as long.

    oneDNN decides for a CPU. The question is private to PyTorch: where it is missing, the answer is no.
    """
    supported_by_cpu = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    return device.type != "cpu" or bool(supported_by_cpu())
