"""3DCNN (Kasten et al. 2020): radiographs copied along their rays into a two-channel volume, then a 3D U-Net.

Descriptions of the original mention the replication, and a V-Net with 3x3x3 convolutions and max pooling instead of
5x5x5 and strided convolutions. MONAI's BasicUNet matches this, except for V-Net's additions inside a level. Our choices
are the channels, group normalisation, the geometry's magnification in the replication, and the output, a CT instead of
classes of bone.
"""

from __future__ import annotations

from monai.networks.nets.basic_unet import BasicUNet
from torch import Tensor

from scripts.geometry import BiplanarGeometry
from scripts.networks.contract import GeometryBound
from scripts.networks.lifting import RayReplication

GROUPS, HALVINGS = 4, 4


class CNN3D(GeometryBound):
    """Reconstruction by a 3D U-Net from radiographs that are replicated along their rays.

    Unlike instance normalisation, group normalisation over several channels preserves absolute attenuation.

    Args:
        geometry: the exam; only its magnification at the isocentre counts, see
            :class:`~scripts.networks.lifting.RayReplication`.
        channels: channels of the five levels, finest first, then of the features after the last upsampling.

    Shapes: images ``[B, 2, N, N]`` and volumes ``[B, 1, U, V, W]`` in network units; the output is not clipped.

    Raises:
        ValueError: the volume cannot be halved four times, or the channels do not fit.
    """

    def __init__(
        self, geometry: BiplanarGeometry, channels: tuple[int, int, int, int, int, int] = (32, 32, 64, 128, 256, 32)
    ) -> None:
        super().__init__(geometry)
        divisor = 2**HALVINGS
        if any(n % divisor for n in geometry.volume_shape):
            raise ValueError(
                f"CNN3D: volume_shape {geometry.volume_shape} must be divisible by {divisor} ({HALVINGS} halvings); "
                f"crop or pad it to a multiple of {divisor}"
            )
        if len(channels) != HALVINGS + 2 or any(c % GROUPS or c < GROUPS for c in channels):
            raise ValueError(
                f"CNN3D: channels must be {HALVINGS + 2} multiples of {GROUPS}, one per level and one for the last "
                f"features, got {tuple(channels)}; choose such counts"
            )
        self.replicate = RayReplication(geometry)
        norm = ("group", {"num_groups": GROUPS})
        self.unet = BasicUNet(3, in_channels=2, out_channels=1, features=channels, act="PRELU", norm=norm)

    def forward(self, image: Tensor) -> Tensor:
        """Reconstruct ``[B, 1, U, V, W]`` from ``image [B, 2, N, N]``.

        Raises:
            ValueError: the image's shape does not match the geometry.
        """
        return self.unet(self.replicate(image))
