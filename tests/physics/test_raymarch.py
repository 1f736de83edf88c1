import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from tests.refusal import refused

from scripts.geometry import VIEWS, centred_coordinates_mm, preset
from scripts.physics.raymarch import Pose, RayMarchProjector, clip_rays, pixel_rays, rotate_pose, view_pose
from scripts.physics.separable import SeparableProjector

ANGLES = (0.3, -0.2, 0.5)
FRONTAL = Pose((0.0, 785.0, 0.0), (0.0, -415.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
PARALLEL = replace(FRONTAL, source_mm=None)


def carm(shape=(12, 12, 12), spacing_mm=10.0, pixels=12):
    return preset("carm", shape, spacing_mm, pixels)


def blobs(geometry):
    """A smooth positive volume that vanishes at the grid's faces."""
    axes = [centred_coordinates_mm(n, 1.0) / n for n in geometry.volume_shape]
    u, v, w = torch.meshgrid(*axes, indexing="ij")
    first = torch.exp(-((u - 0.1) ** 2 + (v + 0.05) ** 2 + (w - 0.08) ** 2) / 0.02)
    second = torch.exp(-((u + 0.12) ** 2 + (v - 0.1) ** 2 + (w + 0.15) ** 2) / 0.01)
    return (0.02 * (first + 0.5 * second)).reshape(1, 1, *geometry.volume_shape)


def marched(geometry, mu, poses=None, **options):
    return RayMarchProjector(geometry, poses, dtype=torch.float64, **options)(mu)


def relative(a, b):
    return float((a - b).norm() / b.norm())


def assert_poses_close(pose, other):
    names = ("source_mm", "detector_centre_mm", "column_direction", "row_direction")
    for name in names:
        np.testing.assert_allclose(getattr(pose, name), getattr(other, name), atol=1e-9)


def test_the_default_pose_stands_where_the_geometry_says():
    assert view_pose(carm(), "frontal") == FRONTAL
    lateral = view_pose(replace(carm(), lateral_source="left"), "lateral")
    assert lateral == Pose((-785.0, 0.0, 0.0), (415.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    assert view_pose(preset("parallel", (4, 4, 4), 1.0, 4), "frontal").source_mm is None


def test_repr_evaluates_to_the_same_pose():
    for pose in (FRONTAL, PARALLEL, rotate_pose(FRONTAL, ANGLES)):
        assert eval(repr(pose), {"Pose": Pose}) == pose


def test_a_pose_is_frozen():
    with pytest.raises(FrozenInstanceError):
        FRONTAL.source_mm = None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row_direction": (0.0, 0.0, 2.0)}, r"orthogonal .*got .*\(0.0, 0.0, 2.0\); normalise"),
        ({"row_direction": (1.0, 0.0, 0.0)}, "must be orthogonal unit vectors"),
        ({"column_direction": (math.nan, 0.0, 0.0)}, "must be orthogonal unit vectors"),
        ({"source_mm": (10.0, -415.0, 3.0)}, r"source \(10.0, -415.0, 3.0\) .*plane .*; move"),
    ],
)
def test_an_impossible_pose_is_refused(changes, message):
    with pytest.raises(ValueError, match=f"pose: .*{message}"):
        replace(FRONTAL, **changes)


def test_a_rotation_by_zero_is_the_identity():
    assert_poses_close(rotate_pose(FRONTAL, (0.0, 0.0, 0.0)), FRONTAL)
    assert rotate_pose(PARALLEL, ANGLES).source_mm is None


def test_a_right_angle_about_w_turns_an_anterior_source_to_the_left():
    turned = rotate_pose(FRONTAL, (0.0, 0.0, math.pi / 2))
    assert_poses_close(turned, Pose((-785.0, 0.0, 0.0), (415.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))


def test_a_positive_angle_about_u_lifts_an_anterior_source():
    turned = rotate_pose(FRONTAL, (math.pi / 6, 0.0, 0.0))
    np.testing.assert_allclose(turned.source_mm, (0.0, 785 * math.sqrt(3) / 2, 785 / 2))


def test_rotations_apply_about_u_then_v_then_w():
    u, v, w = ANGLES
    stepwise = rotate_pose(rotate_pose(rotate_pose(FRONTAL, (u, 0, 0)), (0, v, 0)), (0, 0, w))
    assert_poses_close(rotate_pose(FRONTAL, ANGLES), stepwise)


def test_every_ray_passes_through_its_pixel():
    geometry = carm(pixels=5)
    pose = rotate_pose(FRONTAL, ANGLES)
    origins, directions = pixel_rays(geometry, pose)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(5, 5, dtype=torch.float64))
    offset_mm = geometry.detector_spacing_mm * (np.multiply(-2, pose.column_direction) + pose.row_direction)
    to_pixel = np.add(pose.detector_centre_mm, offset_mm) - origins[0, 3].numpy()
    np.testing.assert_allclose(np.cross(to_pixel, directions[0, 3]), 0, atol=1e-9)


def test_parallel_rays_are_perpendicular_to_the_detector():
    pose = rotate_pose(PARALLEL, ANGLES)
    _, directions = pixel_rays(carm(), pose)
    for along in (pose.column_direction, pose.row_direction):
        torch.testing.assert_close(directions @ torch.tensor(along, dtype=torch.float64), torch.zeros(12, 12).double())


@pytest.mark.parametrize(
    ("origin", "direction", "start_mm", "entry_mm", "length_mm"),
    [
        ((-5, 0, 0), (1, 0, 0), 0.0, 4.0, 2.0),
        ((-5, 0, 0), (-1, 0, 0), 0.0, 0.0, 0.0),
        ((-5, 0, 0), (-1, 0, 0), -math.inf, -6.0, 2.0),
        ((0, 0, 0), (0, 1, 0), 0.0, 0.0, 2.0),
        ((0, 0, 0), (0, 1, 0), -math.inf, -2.0, 4.0),
        ((-5, 2.5, 0), (1, 0, 0), 0.0, 0.0, 0.0),
        ((-1, 0, 0), (0, 1, 0), 0.0, 0.0, 0.0),
        ((-2, -1, 0), (math.sqrt(0.5), math.sqrt(0.5), 0), 0.0, math.sqrt(2), 2 * math.sqrt(2)),
    ],
    ids=["through", "behind", "whole line", "from inside", "inside, whole line", "past", "along a face", "diagonal"],
)
def test_rays_are_cut_where_they_meet_the_box(origin, direction, start_mm, entry_mm, length_mm):
    origins, directions, box = (torch.tensor(x, dtype=torch.float64) for x in (origin, direction, (1, 2, 3)))
    near, length = clip_rays(origins, directions, box, start_mm)
    assert float(near) == pytest.approx(entry_mm)
    assert float(length) == pytest.approx(length_mm)


@pytest.mark.parametrize("name", ["carm", "x2ct", "chest", "parallel"])
def test_aligned_poses_agree_with_the_separable_projector(name):
    geometry = replace(preset(name, (20, 24, 22), 6.0, 24), frontal_source="posterior")
    mu = blobs(geometry)
    assert relative(marched(geometry, mu), SeparableProjector(geometry, torch.float64)(mu)) <= 5e-3


def test_the_integral_converges_as_the_step_shrinks():
    geometry = carm()
    mu = blobs(geometry)
    exact = marched(geometry, mu, step_mm=0.05)
    errors = [relative(marched(geometry, mu, step_mm=step), exact) for step in (10.0, 5.0, 2.5)]
    assert errors[1] < errors[0] / 2 and errors[2] < errors[1] / 2


def test_the_default_step_is_half_a_voxel():
    geometry = carm()
    assert torch.equal(marched(geometry, blobs(geometry)), marched(geometry, blobs(geometry), step_mm=5.0))


def test_the_chunk_size_changes_nothing_but_memory():
    geometry = carm()
    one, all_at_once = (RayMarchProjector(geometry, chunk_steps=n, dtype=torch.float64) for n in (1, 1000))
    mu = blobs(geometry)
    torch.testing.assert_close(one(mu), all_at_once(mu))
    torch.testing.assert_close(one.adjoint(one(mu)), all_at_once.adjoint(one(mu)))


def test_backward_stores_no_samples():
    geometry = carm()
    stored = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: stored.append(x), lambda x: x):
        marched(geometry, blobs(geometry).requires_grad_()).sum()
    assert not stored


def test_turning_volume_and_poses_together_leaves_the_image_alone():
    geometry = carm()
    mu = blobs(geometry)
    # A quarter turn about w takes +u to +v, as rot90 does with the indices.
    turned = tuple(rotate_pose(view_pose(geometry, name), (0, 0, math.pi / 2)) for name in VIEWS)
    seen = marched(geometry, mu.rot90(1, dims=(2, 3)), turned)
    torch.testing.assert_close(seen, marched(geometry, mu))


def test_a_bright_voxel_lands_where_the_tilted_perspective_puts_it():
    geometry = carm((15, 15, 15), 10.0, 120)
    pose = rotate_pose(FRONTAL, (0.2, -0.1, 0.3))
    index = (11, 4, 9)
    voxel = torch.zeros(1, 1, 15, 15, 15, dtype=torch.float64)
    voxel[(0, 0, *index)] = 1.0
    # Solve source + t (point - source) = centre + x column + y row.
    source, centre = np.array(pose.source_mm), np.array(pose.detector_centre_mm)
    point = (np.array(index) - 7) * 10.0
    _, x, y = np.linalg.solve(
        np.column_stack([point - source, -np.array(pose.column_direction), -np.array(pose.row_direction)]),
        centre - source,
    )
    seen = marched(geometry, voxel, (pose, pose))[0, 0]
    pixel_mm = centred_coordinates_mm(120, geometry.detector_spacing_mm)
    centroid = float(seen.sum(1) @ pixel_mm / seen.sum()), float(seen.sum(0) @ pixel_mm / seen.sum())
    assert centroid == pytest.approx((x, y), abs=0.3)


def test_a_volume_behind_the_source_casts_no_shadow():
    away = Pose((0.0, -785.0, 0.0), (0.0, -1985.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
    geometry = carm()
    assert not marched(geometry, blobs(geometry), (away, away)).any()


def test_poses_and_steps_that_cannot_be_are_refused():
    with refused(ValueError, "one pose per view", "got 1 poses"):
        RayMarchProjector(carm(), (FRONTAL,))
    with refused(ValueError, "step_mm", "positive", "-1.0 and 32"):
        RayMarchProjector(carm(), step_mm=-1.0)
    with refused(ValueError, "chunk_steps", "positive", "5.0 and 0"):
        RayMarchProjector(carm(), chunk_steps=0)
