"""ControlNet (Zhang et al. 2023, arXiv:2302.05543) for the denoiser of this bundle.

MONAI's ControlNet works only with MONAI's diffusion U-Net, whose encoder it copies. This one copies the encoder of
:class:`~scripts.networks.denoiser.Denoiser`, including folded voxels, cached conditions and windowed attention.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from scripts.blocks.residual import SpaceToDepth, convolution, zeroed
from scripts.networks.denoiser import Denoiser

Part = TypeVar("Part", bound=nn.Module)


def _trainable_copy(part: Part) -> Part:
    return copy.deepcopy(part).requires_grad_(True)


class ControlNet(nn.Module):
    """Trainable copy of a denoiser's encoder that reads a hint and corrects the features passed to the decoder.

    All corrections pass through convolutions initialised to zero: untrained, it changes nothing.

    Args:
        denoiser: denoiser to steer; copied, not kept.
        hint_channels: channels of the hint on the voxel grid.
    """

    def __init__(self, denoiser: Denoiser, hint_channels: int) -> None:
        super().__init__()
        self.stages, patch, channels = denoiser.stages, denoiser.fold.patch, denoiser.channels
        self.time, self.fold = _trainable_copy(denoiser.time), _trainable_copy(denoiser.fold)
        self.stem, self.down = _trainable_copy(denoiser.stem), _trainable_copy(denoiser.down)
        self.attention, self.bottom = _trainable_copy(denoiser.attention), _trainable_copy(denoiser.bottom)
        self.hint = nn.Sequential(
            SpaceToDepth(patch), convolution(3, hint_channels * patch**3, channels[0]), nn.SiLU(),
            zeroed(convolution(3, channels[0], channels[0])),
        )  # fmt: skip
        self.outputs = nn.ModuleList(zeroed(convolution(3, c, c, kernel_size=1)) for c in channels)

    def forward(self, x: Tensor, timesteps: Tensor, condition: list[Tensor], hint: Tensor) -> list[Tensor]:
        """Compute the corrections of the encoder's features at ``x [B, 1, U, V, W]`` and ``timesteps [B]``.

        Args:
            x: input of the denoiser.
            timesteps: timesteps of the denoiser.
            condition: maps from :meth:`~scripts.networks.denoiser.Denoiser.project_condition`.
            hint: features from :meth:`project_condition`.

        Returns:
            Features per stage, finest first; the last ones are the bottom's.
        """
        embedding = self.time(timesteps)
        f = self.stem(self.fold(x)) + hint
        features: list[Tensor] = []
        for i, stage in enumerate(self.down):
            f = stage(f, embedding, condition[i])
            features.append(f)
        features[-1] = self.bottom(self.attention(f), embedding, condition[2 * self.stages - 1])
        control: list[Tensor] = []
        for i, output in enumerate(self.outputs):
            control.append(output(features[i]))
        return control

    @torch.jit.export
    def project_condition(self, h: list[Tensor]) -> list[Tensor]:
        """Replace the last condition, the hint ``[B, C, U, V, W]``, by its features; keep the denoiser's conditions.

        The features do not depend on t and are computed once per reconstruction.
        """
        return h[:-1] + [self.hint(h[-1])]
