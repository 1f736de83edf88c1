"""The refining stage: a coarse volume drawn on a grid twice as fine, with another look at the radiographs.

A cascade (Ho et al. 2021, arXiv:2106.15282) usually refines without its condition. Here the radiographs hold detail
that the coarse stage never saw, so every pass reads, on the fine grid,

- the volume so far, at first the coarse one interpolated,
- for each view the back-projected rest, as :mod:`~scripts.networks.correcting` does on the coarse grid, and
- 2D features of the radiographs and of their rests, lifted along the rays.

All of it is folded onto the cells of the coarse grid, where a small 3D U-Net without normalisation computes eight fine
voxels per cell. It depends on nothing beyond its halo, so it is trained on random tiles and may be run in tiles.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.blocks.residual import DepthToSpace, SpaceToDepth, Upsample, convolution, zeroed
from scripts.geometry import BiplanarGeometry
from scripts.networks.correcting import REST_GAIN
from scripts.networks.diffux2ct import DiffuX2CT
from scripts.networks.lifted import LiftedConditioner
from scripts.networks.lifting import Unexplained
from scripts.networks.upon import SuperResolved
from scripts.networks.upsampler import PlainBlock
from scripts.physics.tensor_shapes import require_image

DETECTOR_GAIN = 16.0
"""Brings the rest on the detectors, whose standard deviation is about 0.04 in network units, near to 1."""
_VOXELS = 8


class Refiner(nn.Module):
    """A U-Net of two levels from evidence on cells of 2 x 2 x 2 voxels to those voxels.

    Without normalisation, an output depends on the ``halo`` cells around it alone. Its last layer starts as zero:
    untrained, it returns the volume that it reads.

    Args:
        in_channels: of the evidence; the first eight are the voxels of each cell so far.
        channels: of both levels.
        blocks: residual blocks on each side of the first level, and on the second level.

    Attributes:
        factor: 2.
        stride: tiles and halo are multiples of so many cells.
        halo: an output voxel depends on the cells up to this many away from its own.
    """

    def __init__(
        self, in_channels: int, channels: tuple[int, int] = (32, 64), blocks: tuple[int, int] = (1, 3)
    ) -> None:
        super().__init__()
        fine, wide = channels
        self.stem = convolution(3, in_channels, fine)
        self.down = nn.Sequential(*(PlainBlock(fine) for _ in range(blocks[0])))
        self.coarser = convolution(3, fine, wide, stride=2)
        self.bottom = nn.Sequential(*(PlainBlock(wide) for _ in range(blocks[1])))
        self.finer = Upsample(3, wide, fine)
        self.up = nn.Sequential(*(PlainBlock(fine) for _ in range(blocks[0])))
        self.head = zeroed(convolution(3, fine, _VOXELS))
        self.factor, self.stride, self.voxels, self.unfold = 2, 2, _VOXELS, DepthToSpace(2)
        # Stem, head and two convolutions per block on the first level; on the second, whose cells are two wide, two per
        # block; and two more cells for the way down and up again.
        self.halo = 2 + 4 * blocks[0] + 4 * blocks[1] + 2

    def forward(self, evidence: Tensor) -> Tensor:
        """Map ``evidence [B, C, U, V, W]`` to volumes ``[B, 1, 2U, 2V, 2W]``; U, V and W are even."""
        f = self.down(self.stem(evidence))
        f = f + self.finer(self.bottom(self.coarser(f)))
        return self.unfold(evidence[:, : self.voxels] + self.head(self.up(f)))


class Refined(SuperResolved):
    """A coarse diffusion network and a refining stage that reads the radiographs again.

    ``forward(image, volume, corners, side)`` computes tiles of one pass, for training.

    Args:
        base: the coarse network.
        refiner: computes each pass.
        lifting: 2D features ``[B, F, U, V, W]`` on the coarse grid's cells, of four channels: each view and its rest.
        geometry: the exam on the fine grid.
        passes: how often the refiner runs, each time with the rest that the pass before left.
    """

    def __init__(
        self, base: DiffuX2CT, refiner: Refiner, lifting: LiftedConditioner, geometry: BiplanarGeometry, passes: int = 1
    ) -> None:
        super().__init__(base, refiner, geometry, passes)
        self.lifting = lifting
        self.unexplained, self.fold = Unexplained(geometry), SpaceToDepth(2)
        self.rest_gain, self.detector_gain = REST_GAIN, DETECTOR_GAIN

    @torch.jit.export
    def start(self, coarse: Tensor) -> Tensor:
        """Return ``coarse [B, 1, U, V, W]`` interpolated to the fine grid."""
        return F.interpolate(coarse, scale_factor=2.0, mode="trilinear", align_corners=False)

    @torch.jit.export
    def evidence(self, image: Tensor, volume: Tensor) -> Tensor:
        """Return what the refiner reads of ``image [B, 2, N, N]`` and ``volume [B, 1, 2U, 2V, 2W]``."""
        volume = volume.clamp(-1.0, 1.0)
        rest = self.unexplained.rest(image, volume)
        back_projected = self.rest_gain * self.unexplained.back_project(rest)
        seen = torch.stack([image, self.detector_gain * rest], dim=2).flatten(1, 2)
        return torch.cat([self.fold(torch.cat([volume, back_projected], dim=1)), self.lifting(seen)[0]], dim=1)

    def forward(
        self, image: Tensor, volume: Tensor | None = None, corners: Tensor | None = None, side: int = 0
    ) -> Tensor:
        """Reconstruct from ``image`` alone, or compute tiles of the pass that improves ``volume``.

        Args:
            image: ``[B, 2, N, N]`` in network units.
            volume: ``[B, 1, 2U, 2V, 2W]``.
            corners: the lowest cell of each tile ``[K, 3]``.
            side: of the tiles, in cells.

        Returns:
            ``[B, 1, 2U, 2V, 2W]``, or tiles ``[K B, 1, 2 side, 2 side, 2 side]``.

        Raises:
            ValueError: an image of another shape than the geometry's.
        """
        if volume is None or corners is None:
            return self._reconstruct(image)
        require_image(image, self.image_shape)
        return self.upsampler(crop(self.evidence(image, volume), corners, side))


def crop(volume: Tensor, corners: Tensor, side: int) -> Tensor:
    """Cut the same K cubes out of every volume ``[B, C, U, V, W]``: ``[K B, C, side, side, side]``."""
    tiles: list[Tensor] = []
    for corner in corners:
        u, v, w = int(corner[0]), int(corner[1]), int(corner[2])
        tiles.append(volume[:, :, u : u + side, v : v + side, w : w + side])
    return torch.cat(tiles)


def refined(
    geometry: BiplanarGeometry,
    base: DiffuX2CT,
    channels: tuple[int, int] = (32, 64),
    blocks: tuple[int, int] = (1, 3),
    plane_channels: tuple[int, ...] = (16, 32, 64),
    lifted_channels: int = 16,
    stem_stride: int = 2,
    passes: int = 1,
) -> Refined:
    """Build the refining stage upon ``base``; see the classes for the arguments.

    Raises:
        ValueError: sizes that do not fit together; the message names them.
    """
    u, v, w = geometry.volume_shape
    lifting = LiftedConditioner(
        geometry, [(u // 2, v // 2, w // 2)], plane_channels, (lifted_channels,), stem_stride, blocks=1, per_view=2
    )
    refiner = Refiner(3 * _VOXELS + lifted_channels, channels, blocks)
    return Refined(base, refiner, lifting, geometry, passes)
