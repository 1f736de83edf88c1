"""Interfaces of networks that the inferers use, independent of network classes."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor


class DirectNetwork(Protocol):
    """Network that maps radiographs to volumes in one evaluation."""

    def __call__(self, image: Tensor, /) -> Tensor:
        """Return volumes ``[B, 1, U, V, W]`` for images ``[B, 2, N, N]``."""
        ...


class DenoisingNetwork(Protocol):
    """Diffusion network as called by a trainer."""

    def __call__(
        self, image: Tensor, x: Tensor, timesteps: Tensor, estimate: Any = None, condition: Any = None, /
    ) -> Tensor:
        """Return the raw output for noisy volumes ``x [B, 1, U, V, W]`` at ``timesteps [B]``."""
        ...

    def condition(self, image: Tensor, /) -> list[Tensor]:
        """Return everything the network needs from ``image [B, 2, N, N]``."""
        ...

    def meet(self, x0: Tensor, condition: list[Tensor], /) -> Tensor:
        """Return predictions ``x0``, changed to meet the radiographs ``condition[0]``."""
        ...


class DiffusionNetwork(Protocol):
    """Diffusion network as called by a sampler.

    Attributes:
        volume_shape: shape of one volume, ``[1, U, V, W]``.
    """

    volume_shape: list[int]

    def condition(self, image: Tensor, /) -> list[Tensor]:
        """Return everything the network needs from ``image [B, 2, N, N]``, once per reconstruction."""
        ...

    def first_estimate(self, condition: list[Tensor], /) -> Tensor:
        """Return the estimate ``[B, 1, U, V, W]`` for the first step."""
        ...

    def predict_x0(self, x: Tensor, timesteps: Tensor, condition: list[Tensor], estimate: Tensor, /) -> Tensor:
        """Return the clean volumes predicted from ``x [B, 1, U, V, W]``."""
        ...


class Upsampler(Protocol):
    """Network that resamples volumes to a grid that is finer by a factor.

    Attributes:
        factor: output voxels per cell of the evidence along each axis.
        stride: tiles begin and end at multiples of this many cells.
        halo: cells around a cell that its output depends on.
    """

    factor: int
    stride: int
    halo: int

    def __call__(self, evidence: Tensor, /) -> Tensor:
        """Return ``[B, 1, f U, f V, f W]`` for ``evidence [B, C, U, V, W]``."""
        ...


@runtime_checkable
class SuperResolvingNetwork(Protocol):
    """Network on a coarse grid with an upsampler that refines its volumes in a few passes.

    Attributes:
        passes: how often the upsampler runs.
    """

    passes: int

    @property
    def base(self) -> Any:
        """Network of the coarse volumes: a :class:`DiffusionNetwork`, or another super-resolving one."""
        ...

    @property
    def upsampler(self) -> Upsampler:
        """Network that refines the volumes."""
        ...

    def coarse_image(self, image: Tensor, /) -> Tensor:
        """Return the radiographs ``image [B, 2, N, N]`` as the base reads them."""
        ...

    def start(self, coarse: Tensor, /) -> Tensor:
        """Return the volume that the first pass refines, given ``coarse [B, 1, U, V, W]``."""
        ...

    def evidence(self, image: Tensor, volume: Tensor, /) -> Tensor:
        """Return the input ``[B, C, U, V, W]`` of the upsampler's next pass."""
        ...

    def mirrored(self, evidence: Tensor, /) -> Tensor:
        """Return ``evidence`` with left and right exchanged."""
        ...


class RefiningNetwork(SuperResolvingNetwork, Protocol):
    """Super-resolving network as called by a trainer, which trains on tiles of one pass."""

    def __call__(self, image: Tensor, volume: Tensor, corners: Tensor, side: int, mirror: bool, /) -> Tensor:
        """Compute tiles ``[K B, 1, f side, f side, f side]`` of the pass that refines ``volume``.

        Args:
            image: ``[B, 2, N, N]``.
            volume: ``[B, 1, f U, f V, f W]``.
            corners: lowest cell of each tile ``[K, 3]``.
            side: side of the tiles, in cells.
            mirror: whether the upsampler sees the tiles mirrored.
        """
        ...

    def crop(self, volume: Tensor, corners: Tensor, side: int, /) -> Tensor:
        """Crop the same K cubes from every volume, in the order of the tiles above."""
        ...
