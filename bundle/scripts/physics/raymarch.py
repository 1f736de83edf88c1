"""Cone-beam projection for arbitrary poses, by marching along the rays.

For axis-aligned views, :class:`~scripts.physics.separable.SeparableProjector` is faster. This projector has the same
interface and takes any rigid pose of source and detector: angle errors, real C-arms. Both integrate the same function,
the trilinear interpolant of the voxel centres, which falls to zero one voxel beyond the outermost centres.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from scripts.geometry import VIEWS, BiplanarGeometry, centred_coordinates_mm
from scripts.physics.tensor_shapes import require_image, require_volume

Vector = tuple[float, float, float]
_UNIT_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Pose:
    """Position of one view's source and detector, in millimetres along (u, v, w) from the isocentre.

    Attributes:
        source_mm: the focal spot, or None for a parallel beam perpendicular to the detector.
        detector_centre_mm: the middle of the detector.
        column_direction: unit vector along which the image's first index grows.
        row_direction: unit vector along which the image's second index grows.

    Raises:
        ValueError: the directions are not orthogonal unit vectors, or the source lies in the detector's plane.
    """

    source_mm: Vector | None
    detector_centre_mm: Vector
    column_direction: Vector
    row_direction: Vector

    def __post_init__(self) -> None:
        axes = np.array([self.column_direction, self.row_direction], dtype=float)
        if not np.allclose(axes @ axes.T, np.eye(2), rtol=0, atol=_UNIT_TOLERANCE):
            raise ValueError(
                "pose: column_direction and row_direction must be orthogonal unit vectors, got "
                f"{self.column_direction!r} and {self.row_direction!r}; normalise them"
            )
        if self.source_mm is None:
            return
        distance_mm = abs(np.dot(np.subtract(self.source_mm, self.detector_centre_mm), np.cross(*axes)))
        if not distance_mm > 0:
            raise ValueError(
                f"pose: the source {self.source_mm!r} lies in the plane of the detector at "
                f"{self.detector_centre_mm!r}; move it off, or give None for a parallel beam"
            )


def view_pose(geometry: BiplanarGeometry, view_name: str) -> Pose:
    """Return the axis-aligned pose of the ``"frontal"`` or ``"lateral"`` view of an exam."""
    view = geometry.view(view_name)
    depth, column, row = (np.eye(3)[axis] for axis in (view.depth_axis, view.column_axis, 2))
    towards_source = view.source_sign * depth
    if geometry.is_parallel:
        return Pose(None, _vector(0 * depth), _vector(column), _vector(row))
    source_mm = geometry.source_to_isocentre_mm * towards_source
    detector_mm = source_mm - geometry.source_to_detector_mm * towards_source
    return Pose(_vector(source_mm), _vector(detector_mm), _vector(column), _vector(row))


def rotate_pose(pose: Pose, angles_rad: Vector) -> Pose:
    """Turn a pose rigidly about the isocentre: first about u, then about v, then about w, right-handed.

    Args:
        pose: the pose to turn.
        angles_rad: angles about the fixed axes (u, v, w).
    """
    rotation = np.eye(3)
    for axis, angle in enumerate(angles_rad):
        rotation = _axis_rotation(axis, angle) @ rotation
    source_mm = None if pose.source_mm is None else _vector(rotation @ pose.source_mm)
    others = (pose.detector_centre_mm, pose.column_direction, pose.row_direction)
    return Pose(source_mm, *(_vector(rotation @ vector) for vector in others))


def _axis_rotation(axis: int, angle_rad: float) -> np.ndarray:
    i, j = (axis + 1) % 3, (axis + 2) % 3
    rotation = np.eye(3)
    rotation[i, i] = rotation[j, j] = math.cos(angle_rad)
    rotation[j, i] = math.sin(angle_rad)
    rotation[i, j] = -rotation[j, i]
    return rotation


def _vector(values: np.ndarray) -> Vector:
    u, v, w = (float(value) for value in values)
    return (u, v, w)


def pixel_rays(geometry: BiplanarGeometry, pose: Pose) -> tuple[Tensor, Tensor]:
    """Return origins in mm and unit directions, float64 ``[N, N, 3]`` each, of the rays to the pixel centres.

    The rays of a cone start at the source; parallel rays start at their pixel and run both ways from it.
    """
    pixel_mm = centred_coordinates_mm(geometry.detector_pixels, geometry.detector_spacing_mm)
    column, row = torch.tensor([pose.column_direction, pose.row_direction], dtype=torch.float64)
    pixels = pixel_mm[:, None, None] * column + pixel_mm[None, :, None] * row
    pixels = pixels + torch.tensor(pose.detector_centre_mm, dtype=torch.float64)
    if pose.source_mm is None:
        return pixels, torch.linalg.cross(column, row).expand_as(pixels)
    source = torch.tensor(pose.source_mm, dtype=torch.float64).expand_as(pixels)
    return source, torch.nn.functional.normalize(pixels - source, dim=-1)


def clip_rays(
    origins: Tensor, directions: Tensor, half_size_mm: Tensor, start_mm: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Find where rays enter the box [-half_size, half_size] and how far they run inside it, in mm.

    Args:
        origins: points on the rays ``[..., 3]``.
        directions: unit vectors ``[..., 3]``.
        half_size_mm: half the box's side lengths ``[3]``.
        start_mm: signed distance from the origin at which the rays begin; -inf for whole lines.

    Returns:
        Signed distances ``[...]`` from origin to entry and lengths ``[...]``; both 0 for rays that miss the box.
    """
    # A ray along a face of the box divides 0 by 0; the comparison below is then False, which makes it a miss.
    faces = torch.stack([(-half_size_mm - origins) / directions, (half_size_mm - origins) / directions])
    near = faces.amin(dim=0).amax(dim=-1).clamp(min=start_mm)
    far = faces.amax(dim=0).amin(dim=-1)
    hit = far > near
    return torch.where(hit, near, 0.0), torch.where(hit, far - near, 0.0)


class _Linear(torch.autograd.Function):
    """Linear map and its transpose: each is the gradient of the other, and neither stores intermediate steps."""

    @staticmethod
    def forward(ctx, x: Tensor, apply: Callable[[Tensor], Tensor], transpose: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.maps = (transpose, apply)
        return apply(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Linear.apply(gradient, *ctx.maps), None, None


class RayMarchProjector(nn.Module):
    """Projector of a volume to its line-integral images A(mu) from any two poses, and the adjoint of A.

    Every ray is clipped to the interpolant's box and sampled at the midpoints of equal steps. As in the separable
    projector, a detector inside that box does not end its rays.

    Args:
        geometry: the exam; its volume grid, detector pixels and detector spacing are used.
        poses: frontal and lateral pose; those of ``geometry`` by default.
        step_mm: longest step along a ray; half a voxel by default.
        chunk_steps: steps sampled at a time; memory grows with chunk_steps * N^2 * (B + 3), forward and backward.
        dtype: floating-point type of the rays; volumes and images must share it.

    Shapes: volumes ``[B, 1, U, V, W]`` in 1/mm, images ``[B, 2, N, N]`` dimensionless.

    Raises:
        ValueError: there are not two poses, or a step is not positive.
    """

    def __init__(
        self,
        geometry: BiplanarGeometry,
        poses: tuple[Pose, Pose] | None = None,
        step_mm: float | None = None,
        chunk_steps: int = 32,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.geometry = geometry
        self.volume_shape = [1, *geometry.volume_shape]
        self.image_shape = [2, geometry.detector_pixels, geometry.detector_pixels]
        self.poses = tuple(view_pose(geometry, name) for name in VIEWS) if poses is None else tuple(poses)
        if len(self.poses) != len(VIEWS):
            raise ValueError(f"projector: one pose per view of {VIEWS} is needed, got {len(self.poses)} poses")
        self.step_mm = geometry.volume_spacing_mm / 2 if step_mm is None else step_mm
        if not (self.step_mm > 0 and chunk_steps > 0):
            raise ValueError(
                f"projector: step_mm and chunk_steps must be positive, got {self.step_mm!r} and {chunk_steps!r}"
            )
        self.chunk_steps = chunk_steps
        self._steps = {}
        for name, pose in zip(VIEWS, self.poses, strict=True):
            entry, span, length_mm = self._segments(pose)
            self._steps[name] = max(1, math.ceil(float(length_mm.max()) / self.step_mm))
            self.register_buffer(f"{name}_entry", entry.to(dtype), persistent=False)
            self.register_buffer(f"{name}_span", span.to(dtype), persistent=False)
            self.register_buffer(f"{name}_sample_mm", (length_mm / self._steps[name]).to(dtype), persistent=False)

    def forward(self, mu: Tensor) -> Tensor:
        """Return line integrals ``[B, 2, N, N]`` of ``mu [B, 1, U, V, W]`` in 1/mm.

        Raises:
            ValueError: the volume's shape does not match the geometry.
        """
        require_volume(mu, self.volume_shape)
        return _Linear.apply(mu, self._project, self._backproject)

    def adjoint(self, image: Tensor) -> Tensor:
        """Back-project ``image [B, 2, N, N]`` to ``[B, 1, U, V, W]``: the exact transpose of :meth:`forward`.

        On a GPU, the order of summation, and therefore the last bits, varies from call to call.

        Raises:
            ValueError: the image's shape does not match the geometry.
        """
        require_image(image, self.image_shape)
        return _Linear.apply(image, self._backproject, self._project)

    def _segments(self, pose: Pose) -> tuple[Tensor, Tensor, Tensor]:
        """Return entry points and spans ``[N, N, 3]`` in grid_sample's coordinates, and lengths ``[N, N]`` in mm."""
        geometry = self.geometry
        shape = torch.tensor(geometry.volume_shape, dtype=torch.float64)
        # The interpolant reaches one voxel beyond the outermost centres: half a voxel beyond the grid.
        support_mm = (shape + 1) * geometry.volume_spacing_mm / 2
        origins, directions = pixel_rays(geometry, pose)
        start_mm = -math.inf if pose.source_mm is None else 0.0
        near, length_mm = clip_rays(origins, directions, support_mm, start_mm)
        # grid_sample counts from -1 to 1 over the grid's outer faces, and its points read (w, v, u).
        unit_mm = shape * geometry.volume_spacing_mm / 2
        entry = (origins + near[..., None] * directions) / unit_mm
        span = length_mm[..., None] * directions / unit_mm
        return entry.flip(-1), span.flip(-1), length_mm

    def _chunks(self, view_name: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield chunks of sampling points ``[1, S, N, N, 3]`` of one view, with the sample lengths ``[N, N]``."""
        entry, span, sample_mm = (self.get_buffer(f"{view_name}_{part}") for part in ("entry", "span", "sample_mm"))
        steps = self._steps[view_name]
        midpoints = (torch.arange(steps, dtype=entry.dtype, device=entry.device) + 0.5) / steps
        for part in midpoints.split(self.chunk_steps):
            yield (entry + part[:, None, None, None] * span).unsqueeze(0), sample_mm

    def _project(self, mu: Tensor) -> Tensor:
        # The batch becomes grid_sample's channels, so that one set of points serves the whole batch.
        volumes, image = mu.transpose(0, 1), mu.new_zeros(len(mu), *self.image_shape)
        for view, name in enumerate(VIEWS):
            for points, sample_mm in self._chunks(name):
                image[:, view] += _march(volumes, points, sample_mm)
        return image

    def _backproject(self, image: Tensor) -> Tensor:
        volumes = image.new_zeros(1, len(image), *self.geometry.volume_shape)
        total = torch.zeros_like(volumes)
        for view, name in enumerate(VIEWS):
            for points, sample_mm in self._chunks(name):
                transpose = torch.func.vjp(partial(_march, points=points, sample_mm=sample_mm), volumes)[1]
                total += transpose(image[:, view])[0]
        return total.transpose(0, 1)


def _march(volumes: Tensor, points: Tensor, sample_mm: Tensor) -> Tensor:
    """Return the contribution ``[B, N, N]`` of some steps along all rays through ``volumes [1, B, U, V, W]``."""
    samples = grid_sample(volumes, points, mode="bilinear", padding_mode="zeros", align_corners=False)
    return samples[0].sum(dim=1) * sample_mm
