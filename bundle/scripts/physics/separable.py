"""Separable cone-beam projection for axis-aligned views.

For a view along a volume axis Joseph's method splits into one-dimensional interpolations: the plane at depth k is
seen as ``A_k . plane_k . B_k^T``, with A_k and B_k linear interpolation matrices at that plane's magnification; each
view is the sum over k. The matrix products are exact and differentiable, and the adjoint is the transposed products.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scripts.geometry import BiplanarGeometry, centred_coordinates_mm
from scripts.physics.tensor_shapes import require_image, require_volume


def interpolation_matrix(positions: Tensor, count: int) -> Tensor:
    """Return weights that interpolate ``count`` samples at fractional indices, zero outside the samples' support.

    Args:
        positions: fractional indices ``[...]``; 0 is the first sample's centre.
        count: number of samples.

    Returns:
        Weights ``[..., count]`` in the dtype of ``positions``: the hat function of each sample at each position.
    """
    samples = torch.arange(count, dtype=positions.dtype, device=positions.device)
    return (1 - (positions.unsqueeze(-1) - samples).abs()).clamp(min=0)


def _ray_matrices(geometry: BiplanarGeometry, view_name: str, axis: int) -> Tensor:
    """Return weights ``[K, N, count]`` that sample each plane along ``axis`` where each pixel's ray meets it."""
    view = geometry.view(view_name)
    depth_mm = centred_coordinates_mm(geometry.volume_shape[view.depth_axis], geometry.volume_spacing_mm)
    pixel_mm = centred_coordinates_mm(geometry.detector_pixels, geometry.detector_spacing_mm)
    in_plane_mm = pixel_mm / geometry.magnification(depth_mm, view.source_sign).unsqueeze(-1)
    count = geometry.volume_shape[axis]
    return interpolation_matrix(in_plane_mm / geometry.volume_spacing_mm + (count - 1) / 2, count)


def _view_matrices(geometry: BiplanarGeometry, view_name: str, dtype: torch.dtype) -> tuple[nn.Buffer, nn.Buffer]:
    """Return A_k ``[K, N, C]`` and the transposed B_k as one matrix ``[K W, N]``, both as non-persistent buffers."""
    columns = _ray_matrices(geometry, view_name, geometry.view(view_name).column_axis)
    rows = _ray_matrices(geometry, view_name, 2).transpose(1, 2).flatten(0, 1)
    return nn.Buffer(columns.to(dtype), persistent=False), nn.Buffer(rows.to(dtype), persistent=False)


def path_length_mm(geometry: BiplanarGeometry) -> Tensor:
    """Return each pixel's ray length ``[N, N]`` in one plane of voxels: spacing * sqrt(u^2 + w^2 + SDD^2) / SDD."""
    pixel_mm = centred_coordinates_mm(geometry.detector_pixels, geometry.detector_spacing_mm)
    slope = pixel_mm / geometry.source_to_detector_mm
    return geometry.volume_spacing_mm * torch.sqrt(1 + slope[:, None] ** 2 + slope[None, :] ** 2)


def exact_product(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b in the operands' precision, also under autocast: bfloat16 would lose what two films differ in.

    TorchScript cannot switch off its caller's autocast, but autocast leaves float64 alone.
    """
    if torch.jit.is_scripting():
        return (a.double() @ b.double()).to(a.dtype)
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        return a @ b


def project_view(planes: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """Project planes ``[K, C, B, W]`` to ``[B, N, N]``: the sum over depths k of A_k plane_k B_k^T. TorchScript-able.

    A single matrix product computes the sum.

    Args:
        planes: planes of the volumes, one per depth.
        columns: A_k, ``[K, N, C]``.
        rows: B_k^T, ``[K W, N]``.
    """
    k, _, batch, w = planes.shape
    seen = exact_product(columns, planes.flatten(2)).reshape(k, -1, batch, w)
    return exact_product(seen.permute(2, 1, 0, 3).flatten(2), rows)


def backproject_view(image: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """Back-project images ``[B, N, N]`` to planes ``[K, C, B, W]``, one per depth: A_k^T image B_k. TorchScript-able.

    Args:
        image: line integrals times path lengths.
        columns: A_k, ``[K, N, C]``.
        rows: B_k^T, ``[K W, N]``.
    """
    k, batch = columns.shape[0], image.shape[0]
    lines = exact_product(image, rows.t()).reshape(batch, image.shape[1], k, -1).permute(2, 1, 0, 3)
    return exact_product(columns.transpose(1, 2), lines.flatten(2)).reshape(k, columns.shape[2], batch, -1)


class SeparableProjector(nn.Module):
    """Projector of a volume to its pair of line-integral images A(mu), and the adjoint of A. TorchScript-able.

    Args:
        geometry: the exam.
        dtype: floating-point type of the weights; volumes and images must share it.

    Shapes: volumes ``[B, 1, U, V, W]`` in 1/mm, images ``[B, 2, N, N]`` dimensionless.
    """

    def __init__(self, geometry: BiplanarGeometry, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.geometry = geometry
        self.volume_shape = [1, *geometry.volume_shape]
        self.image_shape = [2, geometry.detector_pixels, geometry.detector_pixels]
        self.frontal_columns, self.frontal_rows = _view_matrices(geometry, "frontal", dtype)
        self.lateral_columns, self.lateral_rows = _view_matrices(geometry, "lateral", dtype)
        self.path_mm = nn.Buffer(path_length_mm(geometry).to(dtype), persistent=False)

    def forward(self, mu: Tensor) -> Tensor:
        """Return line integrals ``[B, 2, N, N]`` of ``mu [B, 1, U, V, W]`` in 1/mm.

        Raises:
            ValueError: the volume's shape does not match the geometry.
        """
        require_volume(mu, self.volume_shape)
        frontal = project_view(mu[:, 0].permute(2, 1, 0, 3), self.frontal_columns, self.frontal_rows)
        lateral = project_view(mu[:, 0].permute(1, 2, 0, 3), self.lateral_columns, self.lateral_rows)
        return torch.stack([frontal, lateral], dim=1) * self.path_mm

    @torch.jit.export
    def adjoint(self, image: Tensor) -> Tensor:
        """Back-project ``image [B, 2, N, N]`` to ``[B, 1, U, V, W]``: the exact transpose of :meth:`forward`.

        Raises:
            ValueError: the image's shape does not match the geometry.
        """
        return self.adjoint_by_view(image).sum(dim=1, keepdim=True)

    @torch.jit.export
    def adjoint_by_view(self, image: Tensor) -> Tensor:
        """Return each view's part of :meth:`adjoint`, A_i^T p_i, as ``[B, 2, U, V, W]``."""
        require_image(image, self.image_shape)
        weighted = image * self.path_mm
        frontal = backproject_view(weighted[:, 0], self.frontal_columns, self.frontal_rows).permute(2, 1, 0, 3)
        lateral = backproject_view(weighted[:, 1], self.lateral_columns, self.lateral_rows).permute(2, 0, 1, 3)
        return torch.stack([frontal, lateral], dim=1)
