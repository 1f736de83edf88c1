"""ICM-Reg (Liu et al. 2024, supplement C): direct regression by DiffuX2CT's conditioning and a simple 3D decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scripts.blocks.residual import DepthToSpace, ResidualBlock, Upsample, convolution, group_norm
from scripts.geometry import BiplanarGeometry
from scripts.networks.contract import GeometryBound, MakesConditioner
from scripts.networks.denoiser import stage_shapes
from scripts.networks.triplane import TriplaneConditioner
from scripts.physics.tensor_shapes import require_image


class VolumeDecoder(nn.Module):
    """Decoder of 3D features at several resolutions to a volume.

    "The 3D Decoder integrates h^(i) and upsamples them to obtain the final 3D CT" (supplement C); its layers appear
    only in a figure. We interpret it as the decoder half of the denoiser's U-Net: residual blocks on every grid, coarse
    to fine, with each h^(i) concatenated in place of the denoiser's skip.

    Args:
        channels: feature channels of each stage, finest first.
        condition_channels: channels of h^(i), one per stage.
        patch: side of the voxel cubes folded into the channels of the finest stage; 1 for none.
        blocks: residual blocks per stage.
        dropout: rate inside the residual blocks.

    Raises:
        ValueError: channels and condition_channels differ in length.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        condition_channels: tuple[int, ...],
        patch: int = 1,
        blocks: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if len(channels) != len(condition_channels):
            raise ValueError(
                f"decoder: each stage takes one condition, got {len(channels)} channels and {len(condition_channels)} "
                "condition_channels; give as many of both"
            )
        first, finer, coarser = channels[0], channels[:-1], channels[1:]
        self.bottom = _residual_blocks(condition_channels[-1], channels[-1], blocks, dropout)
        triples = list(zip(finer, coarser, condition_channels[:-1], strict=True))[::-1]
        self.upsample = nn.ModuleList(Upsample(3, c_below, c) for c, c_below, _ in triples)
        self.merge = nn.ModuleList(_residual_blocks(c + h, c, blocks, dropout) for c, _, h in triples)
        self.head = nn.Sequential(group_norm(first), nn.SiLU(), convolution(3, first, patch**3), DepthToSpace(patch))

    def forward(self, h: list[Tensor]) -> Tensor:
        """Map ``h`` of ``[B, C_i, *grid_i]``, finest first, to ``[B, 1, U, V, W]``."""
        f = self.bottom(h[-1])
        for i, (upsample, merge) in enumerate(zip(self.upsample, self.merge)):  # noqa: B905 (TorchScript)
            f = merge(torch.cat([upsample(f), h[-2 - i]], dim=1))
        return self.head(f)


def _residual_blocks(in_channels: int, channels: int, blocks: int, dropout: float) -> nn.Sequential:
    """Return residual blocks; the first maps ``in_channels`` to ``channels``, the others keep them."""
    counts = [in_channels] + [channels] * blocks
    pairs = zip(counts[:-1], counts[1:], strict=True)
    return nn.Sequential(*(ResidualBlock(3, a, b, dropout=dropout) for a, b in pairs))


class ICMReg(GeometryBound):
    """Reconstruction by the implicit conditioning mechanism and a 3D decoder.

    The arguments are those of :func:`~scripts.networks.diffux2ct.diffux2ct` except for those specific to diffusion. As
    there, the conditioner disturbs its learnable embedding in training, but not in evaluation.

    Args:
        geometry: the exam the network is trained for.
        channels: feature channels of the decoder's stages, finest first.
        plane_channels: channels of the plane encoder's levels, finest first; one level more than there are stages.
        condition_channels: channels of h^(i), one per stage.
        patch: voxels along each side of a cell of the finest stage.
        stem_stride: image pixels per cell of the finest plane.
        blocks: residual blocks per stage of the decoder.
        plane_blocks: residual blocks per level of the plane encoder.
        dropout: rate inside the residual blocks.
        conditioner: makes the conditioning network.

    Shapes: images ``[B, 2, N, N]`` and volumes ``[B, 1, U, V, W]`` in network units; the output is not clipped.

    Raises:
        ValueError: sizes do not fit together; the message names them.
    """

    def __init__(
        self,
        geometry: BiplanarGeometry,
        channels: tuple[int, ...],
        plane_channels: tuple[int, ...],
        condition_channels: tuple[int, ...],
        patch: int = 1,
        stem_stride: int = 1,
        blocks: int = 1,
        plane_blocks: int = 2,
        dropout: float = 0.2,
        conditioner: MakesConditioner = TriplaneConditioner,
    ) -> None:
        super().__init__(geometry)
        shapes = stage_shapes(geometry.volume_shape, patch, len(channels))
        self.decoder = VolumeDecoder(channels, condition_channels, patch, blocks, dropout)
        self.conditioner = conditioner(
            geometry, shapes, plane_channels, condition_channels, stem_stride, plane_blocks, dropout
        )

    def forward(self, image: Tensor) -> Tensor:
        """Reconstruct ``[B, 1, U, V, W]`` from ``image [B, 2, N, N]``.

        Raises:
            ValueError: the image's shape does not match the geometry.
        """
        require_image(image, self.image_shape)
        return self.decoder(self.conditioner(image))
