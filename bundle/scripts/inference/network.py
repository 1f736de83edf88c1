"""What the inferers ask of a network; they know no class of networks."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class DirectNetwork(Protocol):
    """Maps radiographs to volumes in one evaluation."""

    def __call__(self, image: Tensor, /) -> Tensor:
        """Volumes ``[B, 1, U, V, W]`` of images ``[B, 2, N, N]``."""
        ...


class DenoisingNetwork(Protocol):
    """A diffusion network as a trainer calls it."""

    def __call__(self, image: Tensor, x: Tensor, timesteps: Tensor, estimate: Any = None, /) -> Tensor:
        """The raw output for noisy volumes ``x [B, 1, U, V, W]`` at ``timesteps [B]``, given an estimate or none."""
        ...


class DiffusionNetwork(Protocol):
    """A diffusion network as a sampler calls it.

    Attributes:
        volume_shape: of one volume, ``[1, U, V, W]``.
    """

    volume_shape: list[int]

    def condition(self, image: Tensor, /) -> list[Tensor]:
        """All that the network needs to know of ``image [B, 2, N, N]``, once per reconstruction."""
        ...

    def first_estimate(self, condition: list[Tensor], /) -> Tensor:
        """The estimate ``[B, 1, U, V, W]`` for the first step."""
        ...

    def predict_x0(self, x: Tensor, timesteps: Tensor, condition: list[Tensor], estimate: Tensor, /) -> Tensor:
        """The clean volumes that the network sees in ``x [B, 1, U, V, W]``."""
        ...


class Upsampler(Protocol):
    """Draws volumes on a grid that is finer by a factor.

    Attributes:
        factor: output voxels per input voxel along each axis.
        halo: input voxels around an input voxel that its output depends on.
    """

    factor: int
    halo: int

    def __call__(self, volume: Tensor, /) -> Tensor:
        """``[B, 1, f U, f V, f W]`` of ``volume [B, 1, U, V, W]``."""
        ...


class SuperResolvingNetwork(Protocol):
    """A diffusion network on a coarse grid, and an upsampler for its volumes."""

    @property
    def base(self) -> DiffusionNetwork:
        """Samples the coarse volumes."""
        ...

    @property
    def upsampler(self) -> Upsampler:
        """Draws them finer."""
        ...
