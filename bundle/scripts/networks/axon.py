"""AXON (Rath et al. 2026): a Brownian bridge from lifted radiographs, a ControlNet that refines it, super-resolution.

Only the abstract is published: "a Brownian Bridge diffusion model-based initial stage for global structural synthesis,
followed by a ControlNet-based refinement stage for local intensity optimization", bi-planar input, and "a
super-resolution network ... to upscale the generated volumes". The rest is our interpretation: the lifting of the
radiographs, the networks, the ControlNet's hint, and the losses.

The three stages are nested: each contains the previous one, frozen, and is trained and run by the same workflows.
Stages 1 and 2 are diffusion networks with the interface of :class:`~scripts.networks.diffux2ct.DiffuX2CT`; stage 3
refines their volume.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.blocks.residual import DepthToSpace, Levels, ResidualBlock, SpaceToDepth, convolution
from scripts.diffusion.bridge import BrownianBridge
from scripts.diffusion.parametrisation import X0
from scripts.geometry import BiplanarGeometry
from scripts.networks.contract import Conditioner
from scripts.networks.controlnet import ControlNet
from scripts.networks.denoiser import Denoiser, stage_shapes
from scripts.networks.diffux2ct import DiffuX2CT
from scripts.networks.lifting import AttenuationScale, BackProjectedAttenuation, Unexplained
from scripts.networks.triplane import TriplaneConditioner
from scripts.networks.upon import Upon
from scripts.physics.tensor_shapes import views_present

MakesLifting = Callable[[BiplanarGeometry, list[tuple[int, int, int]], tuple[int, ...], float], Conditioner]


class VolumeEncoder(Levels):
    """Encoder of volumes ``[B, C, U, V, W]`` to features ``[B, C_i, *grid_i]`` on the denoiser grids, finest first."""

    def __init__(self, in_channels: int, patch: int, channels: tuple[int, ...], dropout: float) -> None:
        first = nn.Sequential(SpaceToDepth(patch), convolution(3, in_channels * patch**3, channels[0]))
        halve = (convolution(3, a, b, stride=2) for a, b in zip(channels[:-1], channels[1:], strict=True))
        super().__init__(
            nn.Sequential(entry, ResidualBlock(3, c, c, dropout=dropout))
            for entry, c in zip([first, *halve], channels, strict=True)
        )


class AttenuationLifting(nn.Module):
    """Lifting that derives y from physics alone: the mean attenuation along the rays that meet in a voxel.

    A single view gives the mean along its own ray. The denoiser sees y and both views' parts of it.

    Args:
        geometry: the exam.
        grid_shapes: grids of h^(i), finest first (:func:`~scripts.networks.denoiser.stage_shapes`).
        condition_channels: channels of h^(i).
        dropout: rate inside the residual blocks.
        spread: class of the module that makes ``[B, 2, U, V, W]`` of the radiographs.
    """

    def __init__(
        self,
        geometry: BiplanarGeometry,
        grid_shapes: list[tuple[int, int, int]],
        condition_channels: tuple[int, ...],
        dropout: float = 0.0,
        spread: type[nn.Module] = BackProjectedAttenuation,
    ) -> None:
        super().__init__()
        self.spread, self.scale = spread(geometry), AttenuationScale()
        self.encoder = VolumeEncoder(3, _patch(geometry, grid_shapes), condition_channels, dropout)

    def forward(self, image: Tensor, z: Tensor | None = None) -> list[Tensor]:
        """Return y ``[B, 1, U, V, W]`` in network range, and h^(i). ``z`` has no effect."""
        views = self.spread(image)
        count = views_present(image).sum(dim=1).clamp(min=1.0).reshape(-1, 1, 1, 1, 1)
        y = self.scale(views.sum(dim=1, keepdim=True) / count)
        return [y] + self.encoder(torch.cat([y, self.scale(views)], dim=1))


class TriplaneLifting(nn.Module):
    """Lifting that computes y by a convolution of the ICM's field, learned together with the bridge.

    It is trained only by the bridge's own objective. At the end of the bridge x_t = y, so y must be the best estimate.

    Args:
        geometry, grid_shapes, condition_channels, dropout: as for :class:`AttenuationLifting`.
        plane_channels, stem_stride, blocks: as for :class:`~scripts.networks.triplane.TriplaneConditioner`.
    """

    def __init__(
        self,
        geometry: BiplanarGeometry,
        grid_shapes: list[tuple[int, int, int]],
        condition_channels: tuple[int, ...],
        dropout: float = 0.0,
        plane_channels: tuple[int, ...] = (48, 96, 144, 192),
        stem_stride: int = 2,
        blocks: int = 2,
    ) -> None:
        super().__init__()
        patch = _patch(geometry, grid_shapes)
        self.field = TriplaneConditioner(
            geometry, grid_shapes, plane_channels, condition_channels, stem_stride, blocks, dropout
        )
        self.head = nn.Sequential(convolution(3, condition_channels[0], patch**3), DepthToSpace(patch))

    def forward(self, image: Tensor, z: Tensor | None = None) -> list[Tensor]:
        """Return y ``[B, 1, U, V, W]`` in network range, and h^(i)."""
        h = self.field(image, z)
        return [self.head(F.silu(h[0]))] + h


def _patch(geometry: BiplanarGeometry, grid_shapes: list[tuple[int, int, int]]) -> int:
    """Return the number of voxels along each side of a cell of the finest grid."""
    return geometry.volume_shape[0] // grid_shapes[0][0]


class BridgeDenoiser(nn.Module):
    """A denoiser on the Brownian bridge, which reads x_t and predicts x_0 - y, the displacement from y.

    BBDM's own objective is :class:`DisplacementDenoiser`: its output has to cancel the noise in x_t voxel by voxel.
    After few training iterations, that noise remains in the volumes (see docs/axon.md), so this class is the default.

    Args:
        denoiser: the U-Net.
        bridge: maps the samplers' coordinates to x_t.
    """

    def __init__(self, denoiser: Denoiser, bridge: BrownianBridge) -> None:
        super().__init__()
        self.denoiser, self.bridge = denoiser, bridge

    def project_condition(self, h: list[Tensor]) -> list[Tensor]:
        """Return y and the denoiser's projections of the other conditions, which are computed once."""
        return [h[0].float()] + self.denoiser.project_condition(h[1:])

    def forward(self, u: Tensor, timesteps: Tensor, condition: list[Tensor]) -> Tensor:
        """Predict x_0 from ``u [B, 1, U, V, W]`` at ``timesteps [B]``; further channels reach the U-Net unchanged."""
        x_t = self.bridge(u[:, :1], condition[0], timesteps)
        return self.at(torch.cat([x_t, u[:, 1:]], dim=1), timesteps, condition, None)

    def at(self, x_t: Tensor, timesteps: Tensor, condition: list[Tensor], control: list[Tensor] | None) -> Tensor:
        """Predict x_0 from ``x_t``, with a ControlNet's additions if given."""
        y, maps = condition[0], condition[1:]
        return self.origin(x_t, y) + self.denoiser(x_t, timesteps, maps, control).float()

    def origin(self, x_t: Tensor, y: Tensor) -> Tensor:
        """Return the volume that the denoiser's output is added to: y."""
        return y


class CorrectionDenoiser(BridgeDenoiser):
    """Bridge denoiser that returns its bare output, for a network that adds it to its own estimate."""

    def origin(self, x_t: Tensor, y: Tensor) -> Tensor:
        """Return zeros."""
        return torch.zeros_like(y)


class DisplacementDenoiser(BridgeDenoiser):
    """BBDM's objective: the network predicts x_0 - x_t, with the sign opposite to the paper's.

    The error of the output equals the error of the estimate of x_0, so losses and parametrisation are those of
    x_0-prediction.
    """

    def origin(self, x_t: Tensor, y: Tensor) -> Tensor:
        """Return the current state of the bridge, x_t."""
        return x_t


def axon_bridge(
    geometry: BiplanarGeometry,
    alphas_cumprod: Tensor,
    channels: tuple[int, ...],
    condition_channels: tuple[int, ...],
    patch: int = 1,
    blocks: int = 1,
    heads: int = 4,
    window: int = 4,
    dropout: float = 0.2,
    steps: int = 8,
    power: float = 1.0,
    lifting: MakesLifting = AttenuationLifting,
    objective: type[BridgeDenoiser] = BridgeDenoiser,
    network: type[DiffuX2CT] = DiffuX2CT,
) -> DiffuX2CT:
    """Build stage 1 with DiffuX2CT's denoiser and interface; see the classes for the arguments.

    Args:
        alphas_cumprod: schedule from :func:`~scripts.diffusion.bridge.bridge_alphas_cumprod`.
        lifting: makes y and the conditions: :class:`AttenuationLifting` or :class:`TriplaneLifting`.
        objective: :class:`BridgeDenoiser` or, as published for the bridge, :class:`DisplacementDenoiser`; for a
            network that carries an estimate, :class:`CorrectionDenoiser`.
        network: :class:`~scripts.networks.correcting.SelfCorrecting` carries an estimate along.

    Raises:
        ValueError: sizes do not fit together, or the schedule is not a bridge's; the message names them.
    """
    shapes = stage_shapes(geometry.volume_shape, patch, len(channels))
    lift = lifting(geometry, shapes, condition_channels, dropout)
    denoiser = Denoiser(
        geometry.volume_shape, channels, condition_channels, patch, blocks, heads, window, dropout, network.reads
    )
    bridged = objective(denoiser, BrownianBridge(alphas_cumprod))
    return network(lift, bridged, X0(), alphas_cumprod, geometry, steps, power)


class StageOne(Upon):
    """Conditioner of stage 2: the conditions of stage 1, its volume, and the residual that its volume leaves.

    The residual is the back-projected difference between the radiographs and the volume's projections. It shows where
    attenuation is missing or too high, and is zero for a missing view. It is our choice to give it to the ControlNet
    instead of the radiographs, which the conditions contain already.

    Args:
        base: stage 1, which is frozen.
        geometry: the exam.
    """

    def __init__(self, base: DiffuX2CT, geometry: BiplanarGeometry) -> None:
        super().__init__(base)
        self.unexplained = Unexplained(geometry)

    def forward(self, image: Tensor, z: Tensor | None = None) -> list[Tensor]:
        """Return stage 1's conditions of ``image [B, 2, N, N]``, and the hint ``[B, 3, U, V, W]`` in network range."""
        with torch.no_grad():
            condition = self.base.condition(image, None)
            volume = self.base.reconstruct(condition)
            hint = torch.cat([volume, self.unexplained(image, volume)], dim=1)
        return condition + [hint]


class ControlledBridge(DiffuX2CT):
    """Stage 2: a ControlNet that sees stage 1's volume steers the frozen bridge of stage 1.

    It starts from the same y and visits the same timesteps as stage 1, so an untrained stage 2 reconstructs the same
    volume.

    Args:
        base: stage 1.
        geometry: the exam.
        steps: timesteps of the built-in reconstruction.
        power: their spacing; see :func:`~scripts.diffusion.schedules.respaced_timesteps`.

    Raises:
        ValueError: the base is not a bridge.
    """

    def __init__(self, base: DiffuX2CT, geometry: BiplanarGeometry, steps: int = 8, power: float = 1.0) -> None:
        bridged = base.denoiser
        if not isinstance(bridged, BridgeDenoiser):
            raise ValueError(
                f"AXON: stage 2 steers the bridge of stage 1, got a base with {type(bridged).__name__}; make the base "
                "with axon_bridge"
            )
        control = ControlNet(bridged.denoiser, hint_channels=3)
        super().__init__(StageOne(base, geometry), control, X0(), base.alphas_cumprod, geometry, steps, power)
        self.conditioner: Any  # a StageOne, whose base has a BridgeDenoiser
        self.denoiser: ControlNet

    def _output(self, x: Tensor, timesteps: Tensor, condition: list[Tensor], estimate: Tensor) -> Tensor:
        bridged = self.conditioner.base.denoiser
        x_t = bridged.bridge(x, condition[0], timesteps)
        control = self.denoiser(x_t, timesteps, condition[1:-1], condition[-1])
        return bridged.at(x_t, timesteps, condition[:-1], control)
