"""Interfaces of networks that the inferers use, independent of network classes."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class DirectNetwork(Protocol):
    """Network that maps radiographs to volumes in one evaluation."""

    def __call__(self, image: Tensor, /) -> Tensor:
        """Return volumes ``[B, 1, U, V, W]`` for images ``[B, 2, N, N]``."""
        ...


class DenoisingNetwork(Protocol):
    """Diffusion network as called by a trainer."""

    def __call__(self, image: Tensor, x: Tensor, timesteps: Tensor, estimate: Any = None, /) -> Tensor:
        """Return the raw output for noisy volumes ``x [B, 1, U, V, W]`` at ``timesteps [B]``."""
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
        factor: output voxels per input voxel along each axis.
        halo: input voxels around an input voxel that its output depends on.
    """

    factor: int
    halo: int

    def __call__(self, volume: Tensor, /) -> Tensor:
        """Return ``[B, 1, f U, f V, f W]`` for ``volume [B, 1, U, V, W]``."""
        ...


class SuperResolvingNetwork(Protocol):
    """Diffusion network on a coarse grid with an upsampler for its volumes."""

    @property
    def base(self) -> DiffusionNetwork:
        """Network that samples the coarse volumes."""
        ...

    @property
    def upsampler(self) -> Upsampler:
        """Network that refines them."""
        ...
