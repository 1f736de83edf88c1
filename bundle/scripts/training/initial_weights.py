"""Initial and frozen weights of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from scripts.inference.weights import filled, is_geometry, read_state


def start_from(
    network: nn.Module, path: str | Path | None, any_geometry: bool = False, option: str = "--initial_weights"
) -> nn.Module:
    """Load initial weights into ``network`` and return it, unchanged if ``path`` is None.

    Args:
        network: network to train.
        path: file of a raw ``state_dict``.
        any_geometry: whether to accept weights of another grid or exam if the tensors fit, since training adapts them.
            On a grid of half the side an iteration costs an eighth, so a training may start there.
        option: option that names the file, for errors.

    Raises:
        ValueError: as for :func:`load_weights`.
    """
    if path is None:
        return network
    state = read_state(network, Path(path), option)
    if any_geometry:
        state |= {name: value for name, value in network.state_dict().items() if name in state and is_geometry(name)}
    return filled(network, Path(path), state).train()


def freeze(network: nn.Module, parts: str | Sequence[str]) -> nn.Module:
    """Freeze ``parts`` of ``network`` and return the network; training uses them as evaluation does.

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
        module.requires_grad_(False).register_forward_pre_hook(_evaluate)
    if not learning(network):
        raise ValueError(f"--frozen: {parts!r} leaves nothing to learn; freeze less")
    return network


def _evaluate(module: nn.Module, _: Any) -> None:
    """Keep dropout and batch statistics out of a frozen part, which a trainer sets to training mode with all others."""
    module.eval()


def learning(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters to optimise, i.e. all but the frozen ones."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]
