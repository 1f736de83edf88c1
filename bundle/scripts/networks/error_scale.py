"""Prediction of a reconstruction's error: its typical size in every voxel.

Samples of a network that was trained to give one good answer differ far less than they err. A second, small network
therefore learns the size of the error itself, from finished reconstructions (Kendall and Gal 2017, arXiv:1703.04977,
learn it together with the mean). It never changes a reconstruction.

Errors are large where a volume changes, and near bone. Local statistics show this, so a network needs no spatial
context of its own to order errors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scripts.geometry import BiplanarGeometry
from scripts.networks.contract import GeometryBound
from scripts.networks.correcting import REST_GAIN
from scripts.networks.lifting import Unexplained
from scripts.networks.local_statistics import COUNT, local_statistics
from scripts.physics.tensor_shapes import require_image

TYPICAL_ERROR = 0.05
"""Error, in network range, that an output of 0 stands for: 63 HU."""
_LOG_LIMIT = 2.5
"""Limits of the logarithm of error / TYPICAL_ERROR: 5 to 770 HU."""


class ErrorScale(GeometryBound):
    """Pointwise network that reads local statistics of a volume and its back-projected residuals.

    Args:
        geometry: the exam.
        hidden: channels of the two hidden layers.
    """

    def __init__(self, geometry: BiplanarGeometry, hidden: int = 128) -> None:
        super().__init__(geometry)
        self.unexplained = Unexplained(geometry)
        self.pointwise = nn.Sequential(
            *(nn.Conv3d(COUNT + 2, hidden, 1), nn.SiLU(), nn.Conv3d(hidden, hidden, 1), nn.SiLU()),
            nn.Conv3d(hidden, 1, 1),
        )

    def forward(self, image: Tensor, volume: Tensor) -> Tensor:
        """Return the typical size of the error ``[B, 1, U, V, W]``, positive, in network range.

        Args:
            image: ``[B, 2, N, N]`` in network units.
            volume: ``[B, 1, U, V, W]`` in network range.

        Raises:
            ValueError: the image's shape does not match the geometry.
        """
        planes = self.evidence(image, volume).split(1, dim=2)  # a single one stays in a CPU's cache: 4 times as fast
        return torch.cat([self.size(plane) for plane in planes], dim=2)

    def evidence(self, image: Tensor, volume: Tensor) -> Tensor:
        """Return what the network reads of every voxel, ``[B, C, U, V, W]``; arguments as for :meth:`forward`."""
        require_image(image, self.image_shape)
        rest = REST_GAIN * self.unexplained(image, volume)
        return torch.cat([local_statistics(volume, self.exam.volume_spacing_mm), rest], dim=1)

    def size(self, evidence: Tensor) -> Tensor:
        """Return the typical size of the error ``[B, 1, ...]`` for voxels of ``evidence [B, C, ...]``, in any order."""
        logarithm = self.pointwise(evidence).float()
        return TYPICAL_ERROR * logarithm.clamp(-_LOG_LIMIT, _LOG_LIMIT).exp()
