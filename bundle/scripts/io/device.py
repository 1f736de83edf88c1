"""Selection of the device named by the user."""

from __future__ import annotations

import torch


def device_of(name: str | torch.device) -> torch.device:
    """Return the device called ``name``, e.g. ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        ValueError: there is no such kind of device, or this machine lacks it.
    """
    text = str(name)
    try:
        device = torch.device(text)
    except RuntimeError:
        raise ValueError(f"--device: {text!r} is not a device; give cpu, cuda or cuda:N") from None
    present = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    count = present.get(device.type, 0)
    if (device.index or 0) >= count:
        raise ValueError(
            f"--device: {text} is not available, torch {torch.__version__} sees {count} devices of this kind; "
            "give --device cpu, or install the drivers and a matching PyTorch"
        )
    return device
