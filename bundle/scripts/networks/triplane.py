"""The implicit conditioning mechanism (ICM) of DiffuX2CT (section 3.2): two radiographs to 3D features h^(i).

A tri-plane decoupling generator makes feature planes uw (frontal), vw (lateral) and uv (absent, so modelled), which an
implicit neural decoder queries at every voxel: along the X-ray cone on the two seen planes, and orthogonally on the
third.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.blocks.residual import Levels, ResidualBlock, Upsample, convolution, group_norm
from scripts.geometry import BiplanarGeometry, centred_coordinates_mm
from scripts.physics.separable import interpolation_matrix


class InterleavedConvolution(nn.Module):
    """Exchange of both views' profiles along the shared w axis (section 3.2, "Interleaved Convolution")."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = convolution(2, 2 * channels, channels)

    def forward(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """Mix ``x1 [B, C, U, W]`` and ``x2 [B, C, V, W]``, each keeping its shape."""
        x1_w = x1.mean(dim=2, keepdim=True).expand(-1, -1, x2.shape[2], -1)
        x2_w = x2.mean(dim=2, keepdim=True).expand(-1, -1, x1.shape[2], -1)
        x1_hat, x2_hat = torch.cat([x1, x2_w], dim=1), torch.cat([x2, x1_w], dim=1)
        return F.silu(self.conv(x1_hat)), F.silu(self.conv(x2_hat))


class PlaneEncoder(Levels):
    """2D residual encoder: ``[B, C_1, P, P]`` to ``[B, C_i, P / 2^(i-1), P / 2^(i-1)]`` for each level i."""

    def __init__(self, channels: tuple[int, ...], blocks: int, dropout: float) -> None:
        levels = []
        for i, c in enumerate(channels):
            entry = nn.Identity() if i == 0 else convolution(2, channels[i - 1], c, stride=2)
            levels.append(nn.Sequential(entry, *(ResidualBlock(2, c, c, dropout=dropout) for _ in range(blocks))))
        super().__init__(levels)


class ViewModulators(nn.Module):
    """Fusion of the two seen planes to the raw uv plane, weighted per channel by the views' embeddings, eqs (3)-(4).

    As printed, the sum adds a (u, w) to a (v, w) plane cell by cell; only later layers can make that a (u, v) plane.
    """

    def __init__(self, channels: int, hidden: int = 64, delta: float = 1e-8) -> None:
        super().__init__()
        self.delta = delta
        self.mlp = nn.Sequential(nn.Linear(3, hidden), nn.SiLU(), nn.Linear(hidden, channels))
        self.s1 = nn.Buffer(torch.tensor([[1.0, 0.0, 1.0]]), persistent=False)
        self.s2 = nn.Buffer(torch.tensor([[0.0, 1.0, 1.0]]), persistent=False)

    def weights(self) -> tuple[Tensor, Tensor]:
        """Return the normalised modulators, each ``[1, C, 1, 1]``, whose squares sum to one."""
        gamma1, gamma2 = self.mlp(self.s1), self.mlp(self.s2)
        norm = torch.sqrt(gamma1.square() + gamma2.square() + self.delta)  # eq (3)
        return (gamma1.abs() / norm)[:, :, None, None], (gamma2.abs() / norm)[:, :, None, None]

    def forward(self, x_uw: Tensor, x_vw: Tensor) -> Tensor:
        """Compute the raw uv plane from ``x_uw`` and ``x_vw``, all ``[B, C, P, P]``, eq (4)."""
        gamma1, gamma2 = self.weights()
        return gamma1 * x_uw + gamma2 * x_vw


class SumFusion(nn.Module):
    """Ablation "w/o V.M.": the seen planes are summed with equal weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x_uw: Tensor, x_vw: Tensor) -> Tensor:
        """Compute the raw uv plane by eq (4) with both modulators 1/sqrt(2)."""
        return (x_uw + x_vw) * 0.5**0.5


class ResidualFusion(nn.Module):
    """Ablation "ResNet": a residual block fuses the concatenated planes, without view modulators."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = ResidualBlock(2, 2 * channels, channels)

    def forward(self, x_uw: Tensor, x_vw: Tensor) -> Tensor:
        """Compute the raw uv plane from both planes ``[B, C, P, P]``."""
        return self.block(torch.cat([x_uw, x_vw], dim=1))


def sine_encoding(channels: int, side: int) -> Tensor:
    """Return sinusoids ``[1, channels, side, side]`` of both plane coordinates, octaves apart; the paper's **sine**.

    The octaves end where a plane of ``side`` cells cannot represent them; further channels repeat them.
    """
    coordinate = (torch.arange(side, dtype=torch.float32) + 0.5) / side
    count = max(1, min(channels // 4, math.ceil(math.log2(side))))
    octaves = torch.pi * 2.0 ** torch.arange(count)
    phase = octaves[:, None] * coordinate
    waves = torch.cat([phase.sin(), phase.cos()])
    along_u, along_v = waves[:, :, None].expand(-1, -1, side), waves[:, None, :].expand(-1, side, -1)
    planes = torch.cat([along_u, along_v])
    repeats = -(-channels // planes.shape[0])
    return planes.repeat(repeats, 1, 1)[:channels].unsqueeze(0)


class LearnableEmbedding(nn.Module):
    """Statistical information on the uv plane, eq (5): x^uv = x-bar^uv + CONV(sine + z)."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        # A persistent buffer, because the weights are meaningless with another table.
        self.sine = nn.Buffer(sine_encoding(channels, side))
        self.conv = nn.Sequential(convolution(2, channels, channels), nn.SiLU())

    def forward(self, x_uv: Tensor, z: Tensor | None = None) -> Tensor:
        """Add the embedding to ``x_uv [B, C, P, P]``; the disturbance ``z`` has the same shape, or is None for zero."""
        source = self.sine if z is None else self.sine + z
        return x_uv + self.conv(source.to(x_uv.dtype))


class NoEmbedding(nn.Module):
    """Ablation "w/o l^uv": the raw uv plane is used unchanged."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()

    def forward(self, x_uv: Tensor, z: Tensor | None = None) -> Tensor:
        """Return ``x_uv`` unchanged."""
        return x_uv


class PlaneDecoder(nn.Module):
    """2D decoder with skips, applied with the same weights to all three planes.

    Args:
        channels: channels of the encoder's levels, finest first.
        stages: number of finest levels returned as tri-plane features.
    """

    def __init__(self, channels: tuple[int, ...], stages: int, dropout: float) -> None:
        super().__init__()
        self.stages = stages
        self.bottom = ResidualBlock(2, channels[-1], channels[-1], dropout=dropout)
        finer, coarser = channels[:-1], channels[1:]
        pairs = list(zip(reversed(finer), reversed(coarser), strict=True))
        self.upsample = nn.ModuleList(Upsample(2, c_below, c) for c, c_below in pairs)
        self.merge = nn.ModuleList(ResidualBlock(2, 2 * c, c, dropout=dropout) for c, _ in pairs)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Return tri-plane features u^(i), finest first, on the grids of the finest ``stages`` levels."""
        f = self.bottom(levels[-1])
        features = [f]
        for i, (upsample, merge) in enumerate(zip(self.upsample, self.merge)):  # noqa: B905 (TorchScript)
            f = merge(torch.cat([upsample(f), levels[-2 - i]], dim=1))
            features.append(f)
        features.reverse()
        return features[: self.stages]


def _axis_indices(position_mm: Tensor, side: int, size_mm: float) -> Tensor:
    """Return fractional indices on a plane axis of ``side`` cells over ``size_mm``, clamped to the outer centres."""
    return (position_mm * (side / size_mm) + (side - 1) / 2).clamp(0, side - 1)


def _sample(plane: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """Sample planes ``[B, C, P, P]`` bilinearly at M positions, as fractions of their size, to ``[B, C, M]``."""
    grid = 2 * torch.stack([row, column], dim=-1).to(plane.dtype)
    grid = grid.expand(plane.shape[0], 1, -1, -1)
    return F.grid_sample(plane, grid, mode="bilinear", padding_mode="border", align_corners=False)[:, :, 0]


class RayQueries(nn.Module):
    """Queries of both views' feature planes at the points where the X-ray through a voxel hits the detectors.

    The queries are separable, so each is a pair of matrix products, and on an aligned grid (parallel rays, planes as
    fine as the volume) the matrices are identities.

    Args:
        geometry: the exam, over the *full* volume grid.
        grid_shape: cells (U, V, W) that query, which cover the same volume more coarsely.
        side: cells along each side of the planes.
    """

    def __init__(self, geometry: BiplanarGeometry, grid_shape: tuple[int, int, int], side: int) -> None:
        super().__init__()
        self.side = side
        self.u_mm, self.v_mm, self.w_mm = (
            centred_coordinates_mm(n, size / n) for n, size in zip(grid_shape, geometry.volume_size_mm, strict=True)
        )
        frontal = geometry.magnification(self.v_mm, geometry.view("frontal").source_sign)[:, None]
        lateral = geometry.magnification(self.u_mm, geometry.view("lateral").source_sign)[:, None]
        self.frontal_columns = self._weights(frontal * self.u_mm, geometry.detector_size_mm)
        self.frontal_rows = self._weights(frontal * self.w_mm, geometry.detector_size_mm)
        self.lateral_columns = self._weights(lateral * self.v_mm, geometry.detector_size_mm)
        self.lateral_rows = self._weights(lateral * self.w_mm, geometry.detector_size_mm)

    def _weights(self, position_mm: Tensor, size_mm: float) -> nn.Buffer:
        weights = interpolation_matrix(_axis_indices(position_mm, self.side, size_mm), self.side)
        return nn.Buffer(weights.float(), persistent=False)

    def frontal(self, plane: Tensor) -> Tensor:
        """Spread frontal planes ``[B, C, P, P]`` to ``[B, C, U, V, W]``."""
        return self._spread(plane, self.frontal_columns, self.frontal_rows).permute(1, 2, 3, 0, 4)

    def lateral(self, plane: Tensor) -> Tensor:
        """Spread lateral planes ``[B, C, P, P]`` to ``[B, C, U, V, W]``."""
        return self._spread(plane, self.lateral_columns, self.lateral_rows).permute(1, 2, 0, 3, 4)

    def _spread(self, plane: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
        """Map ``[B, C, P, P]`` to ``[K, B, C, n, W]``: at each depth k, columns_k plane rows_k^T."""
        b, c, _, p = plane.shape
        k, n, _ = columns.shape
        seen = columns.to(plane.dtype).reshape(k * n, p) @ plane
        seen = seen.reshape(b * c, k, n, p).permute(1, 0, 2, 3).reshape(k, b * c * n, p)
        return (seen @ rows.to(plane.dtype).transpose(1, 2)).reshape(k, b, c, n, -1)


class ImplicitDecoder(RayQueries):
    """Query of the three planes at every voxel, their sum, and a two-layer MLP that maps it to h^(i), eq (6).

    A voxel queries the frontal plane where the X-ray through it hits the frontal detector, and the lateral plane
    likewise; only the uv plane is orthographic. The first layer of the MLP runs in 2D, before the planes are spread
    over the volume; because layer and queries are linear, this is exact and far cheaper. The coordinates are not an
    input of the MLP. Group normalisation between the two layers is our addition.

    Args:
        geometry: the exam, over the *full* volume grid.
        grid_shape: cells (U, V, W) of h^(i), which cover the same volume more coarsely.
        side: cells along each side of the planes.
        in_channels: channels of the planes.
        channels: channels of h^(i).
    """

    def __init__(
        self, geometry: BiplanarGeometry, grid_shape: tuple[int, int, int], side: int, in_channels: int, channels: int
    ) -> None:
        super().__init__(geometry, grid_shape, side)
        self.geometry = geometry
        self.first = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.second = nn.Sequential(group_norm(channels), nn.SiLU(), nn.Conv3d(channels, channels, 1))
        self.axial_columns = self._weights(self.u_mm, geometry.volume_size_mm[0])
        self.axial_rows = self._weights(self.v_mm, geometry.volume_size_mm[1])

    def forward(self, u_uv: Tensor, u_uw: Tensor, u_vw: Tensor) -> Tensor:
        """Map the planes ``[B, C_in, P, P]`` to h ``[B, C, U, V, W]``."""
        return self.second(self._sum_of_queries(u_uv, u_uw, u_vw))

    def at(self, u_uv: Tensor, u_uw: Tensor, u_vw: Tensor, points_mm: Tensor) -> Tensor:
        """Map the planes to h ``[B, C, M]`` at any ``points_mm [M, 3]``, (u, v, w) from the isocentre; eager mode only.

        At a grid point the result equals that of :meth:`forward`. The group normalisation between the two layers
        therefore takes its statistics from the grid, not from the points, which may be few.
        """
        u, v, w = points_mm.unbind(dim=-1)
        frontal = self.geometry.magnification(v, self.geometry.view("frontal").source_sign)
        lateral = self.geometry.magnification(u, self.geometry.view("lateral").source_sign)
        detector_mm, (size_u, size_v, _) = self.geometry.detector_size_mm, self.geometry.volume_size_mm
        total = (
            _sample(self.first(u_uw), frontal * u / detector_mm, frontal * w / detector_mm)
            + _sample(self.first(u_vw), lateral * v / detector_mm, lateral * w / detector_mm)
            + _sample(self.first(u_uv), u / size_u, v / size_v)
        )
        norm, grid = self.second[0], self._sum_of_queries(u_uv, u_uw, u_vw)
        assert isinstance(norm, nn.GroupNorm)
        groups = (total.shape[0], norm.num_groups, -1)
        variance, mean = torch.var_mean(grid.reshape(groups), dim=2, correction=0, keepdim=True)
        normal = ((total.reshape(groups) - mean) * (variance + norm.eps).rsqrt()).reshape(total.shape)
        scaled = normal * norm.weight[:, None] + norm.bias[:, None]
        return self.second[1:](scaled[:, :, :, None, None])[:, :, :, 0, 0]

    def _sum_of_queries(self, u_uv: Tensor, u_uw: Tensor, u_vw: Tensor) -> Tensor:
        """Compute the first layer's output ``[B, C, U, V, W]`` at every voxel."""
        axial = self.axial_columns.to(u_uv.dtype) @ self.first(u_uv) @ self.axial_rows.to(u_uv.dtype).t()
        return self.frontal(self.first(u_uw)) + self.lateral(self.first(u_vw)) + axial.unsqueeze(-1)


def check_planes(geometry: BiplanarGeometry, stem_stride: int, levels: int) -> None:
    """Raise ValueError unless every level of a plane encoder halves the radiographs evenly."""
    divisor = stem_stride * 2 ** (levels - 1)
    if geometry.detector_pixels % divisor:
        raise ValueError(
            f"conditioner: detector_pixels {geometry.detector_pixels} must be divisible by {divisor} (stem_stride "
            f"{stem_stride}, {levels} plane levels); choose a geometry with a multiple of {divisor} pixels"
        )


class TriplaneConditioner(nn.Module):
    """The complete ICM: maps radiographs ``[B, 2, N, N]`` to conditions h^(1..N).

    Args:
        geometry: the exam the features are lifted through.
        grid_shapes: grids of h^(i), finest first (:func:`~scripts.networks.denoiser.stage_shapes`).
        plane_channels: channels of the plane encoder's levels, finest first; one level more than there are grids.
        condition_channels: channels of h^(i).
        stem_stride: image pixels per cell of the finest plane.
        blocks: residual blocks per encoder level.
        dropout: rate inside the residual blocks.
        fusion: class of the module that makes the raw uv plane (the paper's: :class:`ViewModulators`).
        embedding: class of the module that completes it (the paper's: :class:`LearnableEmbedding`).

    Raises:
        ValueError: levels, grids or image size do not fit together.
    """

    def __init__(
        self,
        geometry: BiplanarGeometry,
        grid_shapes: list[tuple[int, int, int]],
        plane_channels: tuple[int, ...],
        condition_channels: tuple[int, ...],
        stem_stride: int = 1,
        blocks: int = 2,
        dropout: float = 0.2,
        fusion: type[nn.Module] = ViewModulators,
        embedding: type[nn.Module] = LearnableEmbedding,
    ) -> None:
        super().__init__()
        levels, stages = len(plane_channels), len(grid_shapes)
        if levels != stages + 1 or len(condition_channels) != stages:
            raise ValueError(
                f"conditioner: {stages} grids need {stages + 1} plane_channels and {stages} condition_channels, "
                f"got {levels} and {len(condition_channels)}; give one channel count for each"
            )
        check_planes(geometry, stem_stride, levels)
        side = geometry.detector_pixels // stem_stride
        first, kernel = plane_channels[0], 2 * stem_stride + 1
        self.stem = nn.ModuleList(convolution(2, 1, first, kernel, stem_stride) for _ in range(2))
        self.interleaved = InterleavedConvolution(first)
        self.encoder = PlaneEncoder(plane_channels, blocks, dropout)
        self.fusion = nn.ModuleList(fusion(c) for c in plane_channels)
        self.embedding = embedding(plane_channels[-1], side // 2 ** (levels - 1))
        self.decoder = PlaneDecoder(plane_channels, stages, dropout)
        self.implicit = nn.ModuleList(
            ImplicitDecoder(geometry, grid, side // 2**i, c, h)
            for i, (grid, c, h) in enumerate(zip(grid_shapes, plane_channels, condition_channels))  # noqa: B905
        )
        self.disturbance_shape = (plane_channels[-1], side // 2 ** (levels - 1), side // 2 ** (levels - 1))

    def forward(self, image: Tensor, z: Tensor | None = None) -> list[Tensor]:
        """Map ``image`` to conditions h^(i) ``[B, C_i, *grid_i]``.

        ``z [B, *disturbance_shape]`` disturbs eq (5); unless given, it is drawn from the global generator in training.
        """
        batch = image.shape[0]
        if z is None and self.training:
            z = torch.randn([batch] + list(self.disturbance_shape), device=image.device)
        x1, x2 = self.interleaved(self.stem[0](image[:, :1]), self.stem[1](image[:, 1:]))
        uw: list[Tensor] = []
        vw: list[Tensor] = []
        uv: list[Tensor] = []
        seen = self.encoder(torch.cat([x1, x2]))
        for i, fuse in enumerate(self.fusion):
            both = seen[i]
            uw.append(both[:batch])
            vw.append(both[batch:])
            uv.append(fuse(both[:batch], both[batch:]))
        uv[-1] = self.embedding(uv[-1], z)
        levels: list[Tensor] = []
        for a, b, c in zip(uv, uw, vw):  # noqa: B905 (TorchScript)
            levels.append(torch.cat([a, b, c]))
        h: list[Tensor] = []
        u = self.decoder(levels)
        for i, implicit in enumerate(self.implicit):
            u_i = u[i]
            h.append(implicit(u_i[:batch], u_i[batch : 2 * batch], u_i[2 * batch :]))
        return h
