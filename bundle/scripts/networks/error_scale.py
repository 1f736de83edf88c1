"""Prediction of a reconstruction's error: the scale of a Laplace distribution in every voxel.

Samples of a network that was trained to give one good answer differ far less than they err. A second, small network
therefore learns the size of the error itself, from finished reconstructions (Kendall and Gal 2017, arXiv:1703.04977,
learn it together with the mean). It never changes a reconstruction.
"""

from __future__ import annotations

import torch
from monai.networks.nets import UNet
from torch import Tensor

from scripts.geometry import BiplanarGeometry
from scripts.networks.contract import GeometryBound
from scripts.networks.correcting import REST_GAIN
from scripts.networks.lifting import Unexplained
from scripts.physics.tensor_shapes import require_image
from scripts.resolution import coarsened, interpolated

TYPICAL_SCALE = 0.05
"""Scale, in network range, that an output of 0 stands for: 63 HU."""
_LOG_LIMIT = 2.5
"""Limits of the logarithm of scale / TYPICAL_SCALE: 5 to 770 HU. Without them, air would dominate the likelihood."""


class ErrorScale(GeometryBound):
    """U-Net that reads a volume and its back-projected residuals, and predicts the scale b of its error.

    Args:
        geometry: the exam.
        channels: channels of the levels; each is half as fine as the one before.
    """

    def __init__(self, geometry: BiplanarGeometry, channels: tuple[int, ...] = (16, 32, 64, 64)) -> None:
        super().__init__(geometry)
        self.unexplained = Unexplained(geometry)
        self.unet = UNet(3, 3, 1, channels=channels, strides=[2] * (len(channels) - 1), num_res_units=1)

    def forward(self, image: Tensor, volume: Tensor) -> Tensor:
        """Return b ``[B, 1, U, V, W]``, positive, for ``image [B, 2, N, N]`` and ``volume [B, 1, U, V, W]``.

        All are in network units. The grid may be finer than the geometry's by a whole factor: b is then predicted from
        means over the geometry's pixels and voxels, and interpolated.

        Raises:
            ValueError: the image's shape is not a multiple of the geometry's.
        """
        factor = max(1, image.shape[-1] // self.image_shape[-1])
        image, volume = coarsened(image, factor), coarsened(volume, factor)
        require_image(image, self.image_shape)
        rest = REST_GAIN * self.unexplained(image, volume)
        log_scale = self.unet(torch.cat([volume, rest], dim=1)).float()
        return interpolated(TYPICAL_SCALE * log_scale.clamp(-_LOG_LIMIT, _LOG_LIMIT).exp(), factor)
