"""PSR, also PatRecon (Shen et al. 2019): radiographs as channels of one 2D image, compressed and decoded to a volume.

The layers with their channels, batch normalisation and initialisation are published. Our additions are the rule for
other shapes than the published one, the width, and the last layer, which maps 64 channels to the volume, whereas the
authors' rectifies it and then mixes its slices.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from scripts.geometry import BiplanarGeometry
from scripts.networks.contract import GeometryBound
from scripts.physics.tensor_shapes import require_image

BOTTLENECK_CHANNELS = 4096


class HalvingStage(nn.Module):
    """4x4 convolution that halves the image, then a residual 3x3 one; the 4x4 of the first stage is linear."""

    def __init__(self, in_channels: int, channels: int, is_first: bool) -> None:
        super().__init__()
        halve = nn.Conv2d(in_channels, channels, 4, stride=2, padding=1, bias=False)
        rectify = [] if is_first else [nn.BatchNorm2d(channels), nn.ReLU()]
        self.halve = nn.Sequential(halve, *rectify)
        conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.residual = nn.Sequential(conv, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C_in, P, P]`` to ``[B, C, P/2, P/2]``."""
        x = self.halve(x)
        return F.relu(x + self.residual(x))


class Transformation(nn.Module):
    """Reshaping of channels to the depth that an image lacks: cell (i, j) becomes the column (i, all v, j)."""

    def __init__(self, in_channels: int, channels: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.flat = nn.Conv2d(in_channels, channels * depth, 1, bias=False)
        self.deep = nn.Conv3d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C_in, P, P]`` to ``[B, C, P, depth, P]``."""
        b, _, p, q = x.shape
        columns = F.relu(self.flat(x)).reshape(b, -1, self.depth, p, q).transpose(2, 3)
        return F.relu(self.deep(columns))


def doubling_stage(in_channels: int, channels: int, is_first: bool) -> nn.Sequential:
    """Return a transposed 4x4x4 convolution that doubles the volume and, after the first stage, a 3x3x3 one."""
    layers: list[nn.Module] = [nn.ConvTranspose3d(in_channels, channels, 4, stride=2, padding=1, bias=False)]
    if not is_first:
        # Transposed by the authors; at stride 1 that is the same convolution with its kernel flipped.
        refine = nn.Conv3d(channels, channels, 3, padding=1, bias=False)
        layers += [nn.BatchNorm3d(channels), nn.ReLU(), refine]
    return nn.Sequential(*layers, nn.BatchNorm3d(channels), nn.ReLU())


class PSR(GeometryBound):
    """Reconstruction through a bottleneck of few cells.

    Both views are channels of one image, so a pixel pairs the frontal (u, w) with the lateral (v, w) although u and v
    are different axes: the network has to learn to separate them, which its bottleneck permits.

    The bottleneck is the published one: 4096 channels on 4 cells per side, reshaped to 2048 channels in 3D. From there
    the channels halve with each stage, towards the image and towards the volume, and there are as many stages as the
    shapes need; so 128 pixels and 128 voxels along u and w give the published 256 / 512 / 1024 / 2048 / 4096 and
    2048 / 1024 / 512 / 256 / 128 / 64. A shape that is not a power of two is halved to 5, 6 or 7 cells instead of 4.
    The same halvings of the volume give the bottleneck's depth along v, 2 for the published 64 voxels.

    At width 1 the published shape, 128 pixels and 128 x 64 x 128 voxels, has 588,587,329 parameters, and 128 pixels and
    64 voxels per side have 604,729,473; width 1/4 has 1/16 of them.

    Args:
        geometry: the exam; only its shapes matter.
        width: factor on every channel count.

    Shapes: images ``[B, 2, N, N]`` and volumes ``[B, 1, U, V, W]`` in network units; the output is not clipped.

    Raises:
        ValueError: the shapes do not halve to one bottleneck, or the width does not leave whole channels.
    """

    def __init__(self, geometry: BiplanarGeometry, width: float = 1.0) -> None:
        super().__init__(geometry)
        halvings, doublings = _stages(geometry)
        bottleneck = BOTTLENECK_CHANNELS * width
        if bottleneck < 1 or bottleneck % 2 ** max(halvings - 1, doublings + 1):
            raise ValueError(
                f"PSR: the {BOTTLENECK_CHANNELS} channels times width must halve {halvings - 1} times to the image and "
                f"{doublings + 1} times to the volume, got width {width}; choose a power of two such as 1 or 1/16"
            )
        flat = [2] + [int(bottleneck) >> i for i in reversed(range(halvings))]
        deep = [int(bottleneck) >> (i + 1) for i in range(doublings + 1)]
        self.encoder = nn.Sequential(
            *(HalvingStage(a, b, i == 0) for i, (a, b) in enumerate(zip(flat[:-1], flat[1:], strict=True)))
        )
        self.transformation = Transformation(flat[-1], deep[0], geometry.volume_shape[1] >> doublings)
        self.decoder = nn.Sequential(
            *(doubling_stage(a, b, i == 0) for i, (a, b) in enumerate(zip(deep[:-1], deep[1:], strict=True)))
        )
        self.head = nn.Conv3d(deep[-1], 1, 1)
        for part in (self.encoder, self.transformation, self.decoder):
            part.apply(_initialise)

    def forward(self, image: Tensor) -> Tensor:
        """Reconstruct ``[B, 1, U, V, W]`` from ``image [B, 2, N, N]``.

        Raises:
            ValueError: the image's shape does not match the geometry.
        """
        require_image(image, self.image_shape)
        return self.head(self.decoder(self.transformation(self.encoder(image))))


def _initialise(module: nn.Module) -> None:
    """Draw a convolution's weights from N(0, 2 / (kernel cells x output channels))."""
    if isinstance(module, nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_in")  # PyTorch's name for fan-out of transposed weights
    elif isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")


def _halvings(count: int) -> int:
    """Return how often ``count`` cells can be halved until fewer than 8 are left."""
    return (count // 4).bit_length() - 1


def _stages(geometry: BiplanarGeometry) -> tuple[int, int]:
    """Return the halvings from the image to the bottleneck, and the doublings from there to the volume."""
    pixels, (u, v, w) = geometry.detector_pixels, geometry.volume_shape
    down, up = _halvings(pixels), _halvings(w)
    if min(down, up) < 1 or u != w or pixels % 2**down or w % 2**up or v % 2**up or pixels >> down != w >> up:
        raise ValueError(
            "PSR: detector_pixels and the equal sides u and w of the volume must halve to the same 4 to 7 cells, and v "
            f"as often as w, got detector_pixels {pixels} and volume_shape {geometry.volume_shape}; choose powers of "
            "two from 8"
        )
    return down, up
