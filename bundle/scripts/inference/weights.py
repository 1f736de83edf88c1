"""Strict loading of weights, so that no untrained or mismatched network reconstructs anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from scripts.io.tensors import read_tensors

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def load_weights(network: nn.Module, path: str | Path, option: str = "--weights") -> nn.Module:
    """Load a raw ``state_dict`` file into ``network`` and set evaluation mode.

    Args:
        network: network to fill.
        path: the file.
        option: option that names the file, for errors.

    Raises:
        ValueError: the file is missing, not a state_dict, or holds weights of another network or geometry; the message
            says which.
    """
    return filled(network, Path(path), read_state(network, Path(path), option)).eval()


def read_state(network: nn.Module, path: Path, option: str = "--weights") -> dict[str, torch.Tensor]:
    """Read the tensors of a raw ``state_dict`` file to the network's device.

    Raises:
        ValueError: the file is missing, damaged, or not a state_dict of dense tensors of real numbers.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no weights; train them, or give the file with {option}")
    try:
        state = read_tensors(path, next(network.parameters()).device)
    except ValueError as error:
        raise ValueError(f"{error}; copy the weights again, or give others with {option}") from error
    for name, value in state.items():
        if not _is_plain(value):
            raise ValueError(
                f"{path}: weights must be dense tensors of real numbers, but {name!r} is {_kind(value)}; "
                "save the state_dict of a network that is not quantised"
            )
    return state


def _is_plain(value: Any) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and not (value.is_quantized or value.is_complex() or value.is_meta or value.is_nested)
    )


def _kind(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return f"a {type(value).__name__}"
    return f"{value.dtype} in layout {value.layout} on {value.device}"


def filled(network: nn.Module, path: Path, state: dict[str, torch.Tensor]) -> nn.Module:
    """Load the tensors read from ``path`` into ``network`` and return it.

    Raises:
        ValueError: the tensors belong to another network or geometry, or are not finite.
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
    other_type = [k for k in expected if state[k].dtype not in _accepted(expected[k].dtype)]
    if other_type:
        k = other_type[0]
        raise ValueError(
            f"{path}: {len(other_type)} tensors of another type, e.g. {k}: {state[k].dtype} in place of "
            f"{expected[k].dtype}; save the state_dict of a network that is not quantised"
        )
    for k in filter(is_geometry, expected):
        ours, theirs = expected[k], state[k]
        if not torch.equal(ours.cpu().double(), theirs.cpu().double()):
            raise ValueError(
                f"{path}: weights were trained for {k} {theirs.tolist()}, but the configuration has {ours.tolist()} "
                "(source to isocentre and detector in mm, pixels, pitch, volume shape, spacing, source sides)"
            )
    learned = [k for k in state if not is_geometry(k)]  # the distances of a parallel beam are infinite
    broken = [k for k in learned if not torch.isfinite(state[k].to(expected[k].dtype)).all()]
    if broken:
        raise ValueError(f"{path}: {len(broken)} tensors hold NaN or infinity, e.g. {broken[0]}; train again")


def is_geometry(name: str) -> bool:
    """Return whether a tensor of a ``state_dict`` is the geometry of a network or of one of its parts."""
    return name.rpartition(".")[2] == "geometry"


def _accepted(dtype: torch.dtype) -> tuple[torch.dtype, ...]:
    """Return the types in a file that may be loaded into a tensor of ``dtype``."""
    return FLOATS if dtype in FLOATS else (dtype,)
