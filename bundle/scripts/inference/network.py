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
        factor: output voxels per cell of the evidence along each axis.
        stride: tiles begin and end at multiples of so many cells.
        halo: cells around a cell that its output depends on.
    """

    factor: int
    stride: int
    halo: int

    def __call__(self, evidence: Tensor, /) -> Tensor:
        """``[B, 1, f U, f V, f W]`` of ``evidence [B, C, U, V, W]``."""
        ...


class SuperResolvingNetwork(Protocol):
    """A diffusion network on a coarse grid, and an upsampler that draws its volumes finer in a few passes.

    Attributes:
        passes: how often the upsampler runs.
    """

    passes: int

    @property
    def base(self) -> DiffusionNetwork:
        """Samples the coarse volumes."""
        ...

    @property
    def upsampler(self) -> Upsampler:
        """Draws them finer."""
        ...

    def coarse_image(self, image: Tensor, /) -> Tensor:
        """The radiographs ``image [B, 2, N, N]`` as the base takes them."""
        ...

    def start(self, coarse: Tensor, /) -> Tensor:
        """The volume that the first pass improves, of ``coarse [B, 1, U, V, W]``."""
        ...

    def evidence(self, image: Tensor, volume: Tensor, /) -> Tensor:
        """What the upsampler reads in the next pass, ``[B, C, U, V, W]``."""
        ...


class FewStepNetwork(DiffusionNetwork, Protocol):
    """A diffusion network with a sampler of its own."""

    def reconstruct_from(self, x: Tensor, condition: list[Tensor], /) -> Tensor:
        """Volumes ``[B, 1, U, V, W]`` drawn in a few steps from noise ``x`` of that shape."""
        ...


class RefiningNetwork(SuperResolvingNetwork, Protocol):
    """A super-resolving network as a trainer calls it: tiles of one pass."""

    @property
    def base(self) -> FewStepNetwork:
        """Draws the coarse volumes."""
        ...

    def __call__(self, image: Tensor, volume: Tensor, corners: Tensor, side: int, /) -> Tensor:
        """Tiles ``[K B, 1, f side, f side, f side]`` of the pass that improves ``volume``.

        Args:
            image: ``[B, 2, N, N]``.
            volume: ``[B, 1, f U, f V, f W]``.
            corners: lowest cell of each tile ``[K, 3]``.
            side: of the tiles, in cells.
        """
        ...
