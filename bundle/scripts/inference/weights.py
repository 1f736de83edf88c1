"""Loading weights strictly: an untrained or wrongly matched network never reconstructs anything."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import nn


def load_weights(network: nn.Module, path: str | Path) -> nn.Module:
    """Fill ``network`` from a raw ``state_dict`` file and put it into evaluation mode.

    Raises:
        ValueError: no such file, not a state_dict, or weights of another network or geometry; the message says which.
    """
    return filled(network, Path(path), read_state(network, Path(path))).eval()


def read_state(network: nn.Module, path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a raw ``state_dict`` file, on the network's device.

    Raises:
        ValueError: no such file, or not a state_dict of tensors.
    """
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


def filled(network: nn.Module, path: Path, state: dict[str, torch.Tensor]) -> nn.Module:
    """``network`` with the tensors that were read from ``path``.

    Raises:
        ValueError: they belong to another network or geometry, or are not finite.
    """
    _check_match(path, network.state_dict(), state)
    network.load_state_dict(state)
    return network


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
