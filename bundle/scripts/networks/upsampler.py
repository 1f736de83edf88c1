"""AXON's third stage: 3D super-resolution by two, our interpretation, since only the paper's abstract is public."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from scripts.blocks.residual import DepthToSpace, convolution, zeroed


class PlainBlock(nn.Module):
    """EDSR's residual block: two convolutions around a skip, without normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = convolution(3, channels, channels)
        self.conv2 = convolution(3, channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C, U, V, W]`` to the same shape."""
        return x + self.conv2(F.relu(self.conv1(x)))


class Upsampler(nn.Module):
    """Trilinear interpolation to half the voxel spacing, plus detail from a convolutional network.

    The residual network is EDSR's (Lim et al. 2017, arXiv:1707.02921) in 3D: all its convolutions run on the coarse
    grid, and the last one computes the eight fine voxels of every coarse voxel (sub-pixel convolution, Shi et al. 2016,
    arXiv:1609.05158). It is initialised to zero: untrained, this is trilinear interpolation. Two parts of EDSR are
    omitted: the skip around all blocks, which the interpolation replaces, and the convolutions on the fine grid.

    Both grids cover the same field, see :meth:`~scripts.geometry.BiplanarGeometry.volume_affine`. There is no
    normalisation, which would depend on the whole volume: an output depends only on ``halo`` voxels around it, so a
    large volume can be processed in tiles (:func:`~scripts.inference.tiles.in_tiles`).

    Args:
        channels: channels of every convolution but the last.
        blocks: residual blocks.

    Attributes:
        factor: 2.
        stride: 1.
        halo: distance in input voxels up to which the input affects an output voxel.

    Shapes: ``[B, 1, U, V, W]`` to ``[B, 1, 2U, 2V, 2W]``, both in network units; any U, V and W. Not clipped.
    """

    def __init__(self, channels: int = 32, blocks: int = 4) -> None:
        super().__init__()
        self.stem = convolution(3, 1, channels)
        self.blocks = nn.Sequential(*(PlainBlock(channels) for _ in range(blocks)))
        self.head = zeroed(convolution(3, channels, 8))
        self.factor, self.stride, self.unfold = 2, 1, DepthToSpace(2)
        self.halo = sum(m.kernel_size[0] // 2 for m in self.modules() if isinstance(m, nn.Conv3d))

    def forward(self, x: Tensor) -> Tensor:
        """Return volumes at half the spacing of ``x``.

        Raises:
            ValueError: ``x`` is not a batch of volumes with one channel.
        """
        if x.ndim != 5 or x.shape[1] != 1:
            raise ValueError(
                f"this network takes volumes [B, 1, U, V, W], got {list(x.shape)}; add or choose the channel"
            )
        smooth = F.interpolate(x, scale_factor=2.0, mode="trilinear", align_corners=False)
        return smooth + self.unfold(self.head(self.blocks(self.stem(x))))
