"""Networks upon a trained one: stages that are trained one after the other, and volumes drawn on a finer grid."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scripts.geometry import BiplanarGeometry
from scripts.networks.contract import GeometryBound
from scripts.networks.denoiser import Denoiser
from scripts.networks.diffux2ct import DiffuX2CT
from scripts.physics.tensor_shapes import require_image


class Upon(nn.Module):
    """A network upon a trained stage, which it freezes: no gradients, and evaluation mode for good.

    Args:
        base: the trained stage.
        inherited: arguments for the other base class of a subclass.
    """

    def __init__(self, base: DiffuX2CT, **inherited: Any) -> None:
        super().__init__(**inherited)
        self.base = base.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Upon:
        """Put all but the base into training mode.

        Raises:
            ValueError: the base is still in its initial state, in which a denoiser draws nothing.
        """
        if mode and any(isinstance(module, Denoiser) and module.draws_nothing() for module in self.base.modules()):
            raise ValueError(
                f"{type(self).__name__}: a stage is trained upon the one before it, which is untrained; train that "
                "first and give its weights by --stage1_weights, --stage2_weights or --coarse_weights"
            )
        super().train(mode)
        self.base.eval()
        return self


class SuperResolved(Upon, GeometryBound):
    """Draws the volume of a frozen diffusion network on a grid twice as fine.

    The finer volume starts as :meth:`start`. In each of ``passes`` passes, ``upsampler`` reads :meth:`evidence` and
    computes the next volume. Here one pass reads the coarse volume alone; this is AXON's third stage.
    :class:`~scripts.networks.refined.Refined` also reads the radiographs.

    Args:
        base: on the coarse grid, for the same detectors with as many pixels or whole multiples fewer.
        upsampler: maps evidence to volumes ``[B, 1, 2U, 2V, 2W]``, U, V and W counting coarse voxels.
        geometry: the exam on the fine grid.

        passes: how often the upsampler runs.

    Raises:
        ValueError: grids or detectors that do not fit, or no pass.
    """

    def __init__(self, base: DiffuX2CT, upsampler: nn.Module, geometry: BiplanarGeometry, passes: int = 1) -> None:
        super().__init__(base, geometry=geometry)
        coarse, pixels, fine_pixels = tuple(base.volume_shape[1:]), base.image_shape[-1], geometry.detector_pixels
        if tuple(2 * n for n in coarse) != geometry.volume_shape or fine_pixels % pixels:
            raise ValueError(
                f"super-resolution: this stage doubles {coarse} voxels seen by {pixels} pixels, but the geometry has "
                f"{geometry.volume_shape} voxels and {fine_pixels} pixels; give the stages before it half of the "
                "voxels and a whole fraction of the pixels"
            )
        if not (isinstance(passes, int) and passes >= 1):
            raise ValueError(
                f"super-resolution: the fine grid is drawn in a whole number of passes from 1, got {passes!r}; give "
                "--passes 1 or more"
            )
        self.upsampler, self.passes = upsampler, passes
        self.pool = nn.AvgPool2d(fine_pixels // pixels)

    @torch.jit.export
    def coarse_image(self, image: Tensor) -> Tensor:
        """Return the radiographs as the base's detectors see them: means of ``image``'s pixels."""
        return self.pool(image)

    @torch.jit.export
    def start(self, coarse: Tensor) -> Tensor:
        """Return the volume that the first pass improves, here ``coarse`` itself."""
        return coarse

    @torch.jit.export
    def evidence(self, image: Tensor, volume: Tensor) -> Tensor:
        """Return what the upsampler reads ``[B, C, U, V, W]``, here the volume alone."""
        return volume

    def forward(self, image: Tensor) -> Tensor:
        """Reconstruct ``[B, 1, 2U, 2V, 2W]`` from ``image [B, 2, N, N]`` by the base's built-in sampler.

        Raises:
            ValueError: an image of another shape than the geometry's.
        """
        return self._reconstruct(image)

    def _reconstruct(self, image: Tensor) -> Tensor:
        require_image(image, self.image_shape)
        with torch.no_grad():
            volume = self.start(self.base(self.coarse_image(image)))
        for _ in range(self.passes):
            volume = self.upsampler(self.evidence(image, volume))
        return volume
