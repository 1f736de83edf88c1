"""Refinement of volumes by the upsampler of a super-resolving network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from scripts.inference.network import SuperResolvingNetwork
from scripts.inference.precision import mixed_precision
from scripts.inference.tiles import in_tiles
from scripts.inference.weights import filled, read_state
from scripts.io.options import require_whole

BASE = "base."
"""Prefix of the weights of the network that a stage stands on."""
logger = logging.getLogger(__name__)


class Refine:
    """Passes of a super-resolving network's upsampler over a volume, computed in tiles.

    Args:
        network: network with the upsampler.
        tile: side of the tiles, in voxels of the coarse volume.
        amp: whether to evaluate the networks in bfloat16.
        mirror: whether the upsampler sees everything mirrored; its volumes are mirrored back. This is another answer of
            similar quality, whose mistakes differ.

    Raises:
        ValueError: ``tile`` is no positive whole number.
    """

    def __init__(self, network: SuperResolvingNetwork, tile: int = 64, amp: bool = False, mirror: bool = False) -> None:
        require_whole(tile=tile)
        if tile < 1:
            raise ValueError(f"--tile must be at least 1, got {tile}")
        self.network, self.tile, self.amp, self.mirror = network, tile, amp, mirror

    @torch.no_grad()
    def __call__(self, volume: Tensor, image: Tensor) -> Tensor:
        """Refine ``volume``, where the first pass starts, by the radiographs ``image [B, 2, N, N]``.

        Returns:
            Volumes ``[B, 1, U, V, W]`` in [-1, 1].

        Raises:
            ValueError: the network cannot be computed in tiles of this side.
        """
        upsampler = self.network.upsampler
        if self.tile % upsampler.stride:
            raise ValueError(f"--tile must be a multiple of {upsampler.stride}, got {self.tile}")
        for _ in range(self.network.passes):
            with mixed_precision(image.device, self.amp):
                evidence = self.network.evidence(image, volume)
                evidence = self.network.mirrored(evidence) if self.mirror else evidence
                volume = in_tiles(
                    upsampler, evidence, self.tile, upsampler.halo, upsampler.factor, upsampler.stride
                ).float()
            volume = volume.flip(2) if self.mirror else volume
        return volume.clamp(-1.0, 1.0)


def load_stage(build: Callable[..., nn.Module], base: nn.Module, path: str | Path) -> nn.Module | None:
    """Build a stage on top of a loaded network, or return None if it was trained on top of another one.

    Args:
        build: called as ``build(base=base)``; builds the stage.
        base: the loaded network.
        path: weights of the stage. The file also holds some or all of those of its base, by which it is recognised.

    Raises:
        ValueError: the file is missing or damaged, or holds weights of another stage.
    """
    path = Path(path)
    state = read_state(base, path, "--refining_weights")
    if not any(name.startswith(BASE) for name in state):
        raise ValueError(
            f"{path}: no weights of a stage, since it holds none named {BASE}*; give those of a "
            "refining stage with --refining_weights, or '' to interpolate"
        )
    ours = {BASE + name: value for name, value in base.state_dict().items()}
    if not _agree(state, ours):
        logger.info("%s: trained on top of another network; the volume is interpolated instead", path)
        return None
    own = {name: value for name, value in state.items() if not name.startswith(BASE)}
    stage = build(base=base).to(next(base.parameters()).device)
    return filled(stage, path, own | ours).eval()


def _agree(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    """Return whether there are tensors of the same name, and all of them are equal up to their type."""
    shared = some.keys() & others.keys()
    return bool(shared) and all(torch.equal(some[name].to(others[name]), others[name]) for name in shared)
