"""Initial and frozen weights of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from scripts.inference.weights import filled, read_state


def start_from(network: nn.Module, path: str | Path | None, any_geometry: bool = False) -> nn.Module:
    """Load initial weights into ``network`` and return it, unchanged if ``path`` is None.

    Args:
        network: network to train.
        path: file of a raw ``state_dict``.
        any_geometry: whether to accept weights of another grid or exam if the tensors fit, since training adapts them.
            On a grid of half the side an iteration costs an eighth, so a training may start there.

    Raises:
        ValueError: as for :func:`load_weights`.
    """
    if path is None:
        return network
    state = read_state(network, Path(path))
    if any_geometry and "geometry" in state:
        state = {**state, "geometry": network.state_dict()["geometry"]}
    return filled(network, Path(path), state).train()


def freeze(network: nn.Module, parts: str | Sequence[str]) -> nn.Module:
    """Freeze ``parts`` of ``network``, including statistics of batch normalisation, and return the network.

    Args:
        network: network to train.
        parts: paths of submodules, e.g. ``conditioner.encoder``, as a list or as one text with commas; may be empty.

    Raises:
        ValueError: the network has no such part, or nothing is left to learn.
    """
    for part in [p.strip() for p in (parts.split(",") if isinstance(parts, str) else parts) if p.strip()]:
        try:
            module = network.get_submodule(part)
        except AttributeError:
            known = ", ".join(dict.fromkeys(name.split(".")[0] for name, _ in network.named_parameters()))
            raise ValueError(
                f"--frozen: the network has no part {part!r}; choose from {known} or their parts"
            ) from None
        module.requires_grad_(False)
        for layer in module.modules():
            if isinstance(layer, _BatchNorm):
                layer.track_running_stats = False  # keep the statistics, which evaluation uses
    if not learning(network):
        raise ValueError(f"--frozen: {parts!r} leaves nothing to learn; freeze less")
    return network


def learning(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters to optimise, i.e. all but the frozen ones."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]
