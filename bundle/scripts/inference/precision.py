"""The arithmetic that a network is evaluated in."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from scripts.io.options import as_bool


def mixed_precision(device: torch.device, enabled: bool | str) -> AbstractContextManager:
    """bfloat16 autocast on any device; MONAI's engines only offer CUDA's."""
    return torch.autocast(device.type, torch.bfloat16, enabled=as_bool(enabled))


def bfloat16_pays(device: torch.device) -> bool:
    """Whether a device computes bfloat16 convolutions natively; a CPU that does not takes hundreds of times as long."""
    return device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
