"""What two radiographs say of a reconstruction, apart from what is expected of every patient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scripts.geometry import BiplanarGeometry
from scripts.intensity import hu_to_mu
from scripts.io.nifti import read_volume
from scripts.resolution import coarsened, interpolated

STEPS = 20
"""Iterations of conjugate gradients, which decide most of it; see docs/uncertainty.md."""
WIDTH_MM = 10.0
"""Standard deviation of the Gaussian over which energies are compared."""


@dataclass(frozen=True, eq=False)
class Support:
    """Share of a reconstruction's deviation from the mean training volume that its radiographs can see.

    Attributes:
        mean: the mean training volume ``[U, V, W]`` in HU.
        share: called as ``share(deviation, image, steps=..., width=...)`` with a deviation in 1/mm, in float64
            because its steps magnify rounding, and a width in voxels; see :func:`~scripts.physics.row_space.support`.
        spacing_mm: voxel spacing of the mean.
        device: where it is computed.
    """

    mean: Tensor
    share: Callable[..., Tensor]
    spacing_mm: float
    device: torch.device

    @torch.no_grad()
    def __call__(self, image: Tensor, hu: Tensor) -> np.ndarray:
        """Return the share ``[U, V, W]`` for ``hu [U, V, W]`` from ``image [2, N, N]`` in any unit.

        The grid may be finer than the mean's by a whole factor: the share is then that of means over the mean's voxels
        and their pixels, interpolated.
        """
        factor = len(hu) // len(self.mean)
        mu = coarsened(hu_to_mu(hu.double())[None, None], factor)
        deviation = (mu - hu_to_mu(self.mean.double())).to(self.device)
        films = coarsened(image[None].to(deviation), factor)
        share = self.share(deviation, films, steps=STEPS, width=WIDTH_MM / self.spacing_mm)
        return interpolated(share, factor)[0, 0].float().cpu().numpy()


def load_support(
    path: str | Path, geometry: BiplanarGeometry, share: Callable[..., Tensor], device: torch.device
) -> Support:
    """Read the mean training volume, a NIfTI file in HU.

    Args:
        path: the file.
        geometry: geometry of the network.
        share, device: see :class:`Support`.

    Raises:
        ValueError: the file is missing or unreadable, holds NaN or infinity, or has another grid than the geometry.
    """
    mean, affine = read_volume(path)
    if mean.shape != tuple(geometry.volume_shape) or not np.allclose(affine, geometry.volume_affine(), atol=1e-3):
        raise ValueError(
            f"{path}: the mean training volume must have the grid of the weights, {list(geometry.volume_shape)} voxels "
            f"of {geometry.volume_spacing_mm:g} mm around the isocentre, got {list(mean.shape)} of "
            f"{np.linalg.norm(affine[:3, 0]):g} mm; give --mean_volume, a file that evaluate.json writes"
        )
    if not np.isfinite(mean).all():
        raise ValueError(f"{path}: the mean training volume holds NaN or infinity; make it again with evaluate.json")
    return Support(torch.from_numpy(mean), share, geometry.volume_spacing_mm, device)
