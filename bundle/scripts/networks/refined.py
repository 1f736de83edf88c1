"""Refining stage: super-resolution of a coarse volume that reads the radiographs again.

Cascades of diffusion models (Ho et al. 2021, arXiv:2106.15282) usually refine without a further condition. Here, the
radiographs contain detail that the coarse stage never saw. On the fine grid, each pass therefore reads

- the current volume, at first the interpolated coarse one,
- the back-projected residual of each view, as :mod:`~scripts.networks.correcting` does on the coarse grid,
- what would change the volume so that it meets the radiographs (:mod:`~scripts.networks.trusted`), and
- 2D features of the radiographs and of their residuals, lifted along the rays.

The input is folded onto the cells of the coarse grid, where a small 3D U-Net without normalisation computes the eight
fine voxels of each cell. Its receptive field is finite, so it is trained on random tiles and can be run in tiles.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scripts.blocks.residual import DepthToSpace, SpaceToDepth, Upsample, convolution, zeroed
from scripts.geometry import BiplanarGeometry
from scripts.networks.contract import GeometryBound
from scripts.networks.lifted import LiftedConditioner
from scripts.networks.lifting import Unexplained
from scripts.networks.tissue_prior import TissueCovariance
from scripts.networks.trusted import TrustedConsistency
from scripts.networks.upon import SuperResolved
from scripts.networks.upsampler import PlainBlock
from scripts.physics.tensor_shapes import require_image
from scripts.resolution import interpolated

VOLUME_GAIN, DETECTOR_GAIN = 16.0, 64.0
"""Factors on the back-projected residual and the change (network range) and on the residual in the radiographs (network
units), whose standard deviations are about 0.01 and 0.02."""
_VOXELS = 8
_FOLDED = 4 * _VOXELS  # channels of the volume, two back-projections and the change


class Refiner(nn.Module):
    """U-Net with two levels from evidence on cells of 2 x 2 x 2 voxels to those voxels.

    Without normalisation, an output depends only on the ``halo`` cells around it. The last layer starts at zero, so
    an untrained network returns the volume that it reads.

    Args:
        in_channels: channels of the evidence; the first eight are the current voxels of each cell.
        channels: channels of the two levels.
        blocks: residual blocks on each side of the first level, and on the second level.

    Attributes:
        factor: 2.
        stride: 2; tiles and halo must be multiples of it.
        halo: distance in cells up to which the input affects an output voxel.
    """

    def __init__(self, in_channels: int, channels: tuple[int, int], blocks: tuple[int, int] = (1, 3)) -> None:
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
        # The first level has a stem, a head and two convolutions per block on either side. On the second level, whose
        # cells are twice as wide, there are two convolutions per block. Down- and upsampling add two cells.
        self.halo = 2 + 4 * blocks[0] + 4 * blocks[1] + 2

    def forward(self, evidence: Tensor) -> Tensor:
        """Map ``evidence [B, C, U, V, W]`` to volumes ``[B, 1, 2U, 2V, 2W]``; U, V and W are even."""
        f = self.down(self.stem(evidence))
        f = f + self.finer(self.bottom(self.coarser(f)))
        return self.unfold(evidence[:, : self.voxels] + self.head(self.up(f)))


class Refined(SuperResolved):
    """Coarse network with a refining stage that reads the radiographs again.

    ``forward(image, volume, corners, side, mirror)`` computes tiles of one pass, for training.

    Args:
        base: the coarse network, a diffusion network or another refined one.
        refiner: network that computes each pass.
        lifting: lifts 2D features of each view and its residual to the cells of the coarse grid.
        geometry: the exam on the fine grid.
        passes: how often the refiner runs, each time with the residual of the previous pass.
    """

    def __init__(
        self,
        base: GeometryBound,
        refiner: Refiner,
        lifting: LiftedConditioner,
        geometry: BiplanarGeometry,
        passes: int = 1,
    ) -> None:
        super().__init__(base, refiner, geometry, passes)
        self.lifting = lifting
        self.unexplained, self.fold = Unexplained(geometry), SpaceToDepth(2)
        self.meet = TrustedConsistency(self.unexplained, TissueCovariance(geometry))
        self.volume_gain, self.detector_gain, self.folded = VOLUME_GAIN, DETECTOR_GAIN, _FOLDED

    @torch.jit.export
    def start(self, coarse: Tensor) -> Tensor:
        """Return ``coarse [B, 1, U, V, W]`` interpolated to the fine grid."""
        return interpolated(coarse, 2)

    @torch.jit.export
    def evidence(self, image: Tensor, volume: Tensor) -> Tensor:
        """Return the refiner's input for ``image [B, 2, N, N]`` and ``volume [B, 1, 2U, 2V, 2W]``."""
        volume = volume.clamp(-1.0, 1.0)
        rest = self.unexplained.rest(image, volume)
        back_projected = self.volume_gain * self.unexplained.back_project(rest)
        change = self.volume_gain * (self.meet(volume, image, rest) - volume)
        seen = torch.stack([image, self.detector_gain * rest], dim=2).flatten(1, 2)
        voxels = self.fold(torch.cat([volume, back_projected, change], dim=1))
        return torch.cat([voxels, self.lifting(seen)[0]], dim=1)

    @torch.jit.export
    def mirrored(self, evidence: Tensor) -> Tensor:
        """Exchange left and right: the cells along u, and the two voxels along u in each cell."""
        voxels, lifted = evidence[:, : self.folded], evidence[:, self.folded :]
        voxels = voxels.unflatten(1, [-1, 2, 4]).flip((2, 4)).flatten(1, 3)
        return torch.cat([voxels, lifted.flip(2)], dim=1)

    def forward(
        self,
        image: Tensor,
        volume: Tensor | None = None,
        corners: Tensor | None = None,
        side: int = 0,
        mirror: bool = False,
    ) -> Tensor:
        """Reconstruct from ``image`` alone, or compute tiles of the pass that refines ``volume``.

        Args:
            image: ``[B, 2, N, N]`` in network units.
            volume: ``[B, 1, 2U, 2V, 2W]``.
            corners: lowest cell of each tile ``[K, 3]``.
            side: side of the tiles, in cells.
            mirror: whether the refiner sees each tile mirrored; the answer is mirrored back.

        Returns:
            ``[B, 1, 2U, 2V, 2W]``, or tiles ``[K B, 1, 2 side, 2 side, 2 side]``.

        Raises:
            ValueError: the image's shape does not match the geometry, or only one of volume and corners is given.
        """
        if volume is None and corners is None:
            return self._reconstruct(image)
        if volume is None or corners is None:
            raise ValueError("the network takes both volume and corners or neither, got only one; give the other too")
        require_image(image, self.image_shape)
        tiles = self.crop(self.evidence(image, volume), corners, side)
        return self.upsampler(self.mirrored(tiles)).flip(2) if mirror else self.upsampler(tiles)

    def crop(self, volume: Tensor, corners: Tensor, side: int) -> Tensor:
        """Crop the same K cubes from every volume ``[B, C, U, V, W]``: ``[K B, C, side, side, side]``."""
        tiles: list[Tensor] = []
        for corner in corners:
            u, v, w = int(corner[0]), int(corner[1]), int(corner[2])
            tiles.append(volume[:, :, u : u + side, v : v + side, w : w + side])
        return torch.cat(tiles)


def refined(
    geometry: BiplanarGeometry,
    base: GeometryBound,
    channels: tuple[int, int] = (64, 128),
    blocks: tuple[int, int] = (1, 3),
    plane_channels: tuple[int, ...] = (32, 64, 128),
    lifted_channels: int = 32,
    stem_stride: int = 2,
    passes: int = 1,
) -> Refined:
    """Build the refining stage on top of ``base``; see the classes for the arguments.

    Raises:
        ValueError: sizes do not fit together; the message names them.
    """
    u, v, w = geometry.volume_shape
    lifting = LiftedConditioner(
        geometry, [(u // 2, v // 2, w // 2)], plane_channels, (lifted_channels,), stem_stride, blocks=1, per_view=2
    )
    refiner = Refiner(_FOLDED + lifted_channels, channels, blocks)
    return Refined(base, refiner, lifting, geometry, passes)
