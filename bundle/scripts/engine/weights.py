"""Loading weights strictly: an untrained or wrongly matched network never reconstructs anything."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def load_weights(network: nn.Module, path: str | Path) -> nn.Module:
    """Fill ``network`` from a raw ``state_dict`` file and put it into evaluation mode.

    Raises:
        ValueError: no such file, not a state_dict, or weights of another network or geometry; the message says which.
    """
    return _filled(network, Path(path), _read_state(network, Path(path))).eval()


def start_from(network: nn.Module, path: str | Path | None, any_geometry: bool = False) -> nn.Module:
    """``network`` with the weights of ``path`` to train on from, or as it is where that is None.

    Args:
        network: to train.
        path: of a raw ``state_dict``.
        any_geometry: take weights of another grid or exam too, where the tensors fit: training adapts them. On a grid
            of half the side an iteration costs an eighth, so a training may start there.

    Raises:
        ValueError: as for :func:`load_weights`.
    """
    if path is None:
        return network
    state = _read_state(network, Path(path))
    if any_geometry and "geometry" in state:
        state = {**state, "geometry": network.state_dict()["geometry"]}
    return _filled(network, Path(path), state).train()


def _read_state(network: nn.Module, path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise ValueError(f"{path}: no weights; train them with train.json, or give the file with --weights")
    device = next(network.parameters()).device
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(f"{path}: not a weights file that torch can load safely ({error})") from error
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ValueError(f"{path}: weights are a state_dict of tensors, got {type(state).__name__}")
    return state


def _filled(network: nn.Module, path: Path, state: dict[str, torch.Tensor]) -> nn.Module:
    _check_match(path, network.state_dict(), state)
    network.load_state_dict(state)
    return network


def freeze(network: nn.Module, parts: str | Sequence[str]) -> nn.Module:
    """``network`` with ``parts`` that no longer learn, statistics of batch normalisation included.

    Args:
        network: to train on.
        parts: paths of submodules, e.g. ``conditioner.encoder``, as a list or as one text with commas; may be empty.

    Raises:
        ValueError: the network has no such part, or none is left to learn.
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
                layer.track_running_stats = False  # its statistics stay as they are, and evaluation uses them
    if not learning(network):
        raise ValueError(f"--frozen: {parts!r} leaves nothing to learn; freeze less")
    return network


def learning(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that an optimizer is to change: all but the frozen ones."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _check_match(path: Path, expected: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> None:
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    other_shape = [k for k in expected.keys() & state.keys() if expected[k].shape != state[k].shape]
    if missing or extra or other_shape:
        raise ValueError(
            f"{path}: weights of another network: {len(missing)} tensors missing {missing[:2]}, {len(extra)} unknown "
            f"{extra[:2]}, {len(other_shape)} of another shape {sorted(other_shape)[:2]}; use the configuration they "
            "were trained with"
        )
    ours, theirs = expected.get("geometry"), state.get("geometry")
    if ours is not None and theirs is not None and not torch.equal(ours.cpu().double(), theirs.cpu().double()):
        raise ValueError(
            f"{path}: weights were trained for geometry {theirs.tolist()}, the configuration says {ours.tolist()} "
            "(source to isocentre and detector in mm, pixels, pitch, volume shape, spacing, source sides)"
        )
    learned = {k: v for k, v in state.items() if k != "geometry"}  # a parallel beam's distances are infinite
    broken = [k for k, v in learned.items() if v.is_floating_point() and not torch.isfinite(v).all()]
    if broken:
        raise ValueError(f"{path}: {len(broken)} tensors hold NaN or infinity, e.g. {broken[0]}; train again")
