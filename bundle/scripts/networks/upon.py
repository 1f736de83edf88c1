"""Networks on top of a trained one: stages that are trained one after another, and super-resolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scripts.geometry import BiplanarGeometry
from scripts.networks.contract import GeometryBound
from scripts.networks.denoiser import Denoiser
from scripts.physics.tensor_shapes import require_image


class Upon(nn.Module):
    """Network on top of a trained stage, which stays frozen: no gradients, always in evaluation mode.

    Args:
        base: the trained stage.
        inherited: arguments for the other base class of a subclass.
    """

    def __init__(self, base: GeometryBound, **inherited: Any) -> None:
        super().__init__(**inherited)
        self.base: Any = base.requires_grad_(False).eval()
        self.checked = False

    def train(self, mode: bool = True) -> Upon:
        """Set the mode of everything except the base.

        Raises:
            ValueError: the base is still in its initial state, in which a denoiser outputs zeros.
        """
        if mode and not self.checked:  # once: a trainer sets the mode at every iteration, and a GPU would wait
            self._require_trained()
            self.checked = True
        super().train(mode)
        self.base.eval()
        return self

    def _require_trained(self) -> None:
        if any(isinstance(module, Denoiser) and module.draws_nothing() for module in self.base.modules()):
            raise ValueError(
                f"{type(self).__name__}: each stage is trained on top of the previous one, which is untrained; train "
                "that first and give its weights by --stage1_weights or --stage2_weights"
            )


class SuperResolved(Upon, GeometryBound):
    """Super-resolution of a frozen network's volume to a grid twice as fine.

    The volume starts as :meth:`start`. In each of ``passes`` passes, ``upsampler`` reads :meth:`evidence` and computes
    the next volume. In this class, :meth:`evidence` is the coarse volume; this is AXON's third stage.
    :class:`~scripts.networks.refined.Refined` also reads the radiographs.

    Args:
        base: network on the coarse grid; its detectors have the same size, and a whole fraction of the pixels.
        upsampler: maps evidence to volumes ``[B, 1, 2U, 2V, 2W]``, U, V and W counting coarse voxels.
        geometry: the exam on the fine grid.
        passes: how often the upsampler runs.

    Raises:
        ValueError: the grids or detectors do not fit, or there is no pass.
    """

    def __init__(self, base: GeometryBound, upsampler: nn.Module, geometry: BiplanarGeometry, passes: int = 1) -> None:
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
                f"super-resolution: passes must be a whole number of at least 1, got {passes!r}; give --passes 1 or "
                "more"
            )
        self.upsampler, self.passes = upsampler, passes
        self.pool = nn.AvgPool2d(fine_pixels // pixels)

    @torch.jit.export
    def coarse_image(self, image: Tensor) -> Tensor:
        """Average the pixels of ``image`` to the base's detectors."""
        return self.pool(image)

    @torch.jit.export
    def start(self, coarse: Tensor) -> Tensor:
        """Return the volume that the first pass refines, here ``coarse`` itself."""
        return coarse

    @torch.jit.export
    def evidence(self, image: Tensor, volume: Tensor) -> Tensor:
        """Return the upsampler's input ``[B, C, U, V, W]``, here the volume itself."""
        return volume

    @torch.jit.export
    def mirrored(self, evidence: Tensor) -> Tensor:
        """Return ``evidence`` with left and right exchanged."""
        return evidence.flip(2)

    def forward(self, image: Tensor) -> Tensor:
        """Reconstruct ``[B, 1, 2U, 2V, 2W]`` from ``image [B, 2, N, N]`` by the base's built-in sampler.

        Raises:
            ValueError: the image's shape does not match the geometry.
        """
        return self._reconstruct(image)

    def _reconstruct(self, image: Tensor) -> Tensor:
        require_image(image, self.image_shape)
        with torch.no_grad():
            volume = self.start(self.base(self.coarse_image(image)))
        for _ in range(self.passes):
            volume = self.upsampler(self.evidence(image, volume))
        return volume
