"""Volumes seen from turned poses: exact where a rotation maps the grid onto itself, else as the ray march has them."""

import math

import pytest
import torch

from scripts.geometry import VIEWS, preset
from scripts.physics.pose import MisalignedProjector, seen_from
from scripts.physics.raymarch import RayMarchProjector, rotate_pose, view_pose
from scripts.physics.separable import SeparableProjector

GEOMETRY = preset("carm", (16, 16, 16), 20.0, 16)
PROJECTOR = SeparableProjector(GEOMETRY)
MU = torch.rand(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.02
STILL = torch.eye(3).expand(2, 3, 3), torch.zeros(2, 3)


class Drawn:
    """A distribution that always draws the same."""

    def __init__(self, rotation, shift_mm):
        self.rotation, self.shift_mm = rotation, shift_mm

    def draw(self, exams, generator):
        return self.rotation.expand(exams, 2, 3, 3), self.shift_mm.expand(exams, 2, 3)


def about(axis: int, degrees: float) -> torch.Tensor:
    angle = torch.zeros(3, 3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    angle[j, i] = math.radians(degrees)
    return torch.linalg.matrix_exp(angle - angle.T)


def blobs() -> torch.Tensor:
    """A smooth volume that no resampling blurs much: three Gaussians, one of them off every axis."""
    axis = torch.arange(32) - 15.5
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    centres = torch.tensor([[0.0, 0.0, 0.0], [6.0, -4.0, 3.0], [-5.0, 5.0, -6.0]])
    return 0.02 * sum(torch.exp(-((grid - c) ** 2).sum(-1) / 40) for c in centres)[None, None]


@pytest.mark.parametrize("shape", [(16, 16, 16), (8, 16, 32)])
def test_an_apparatus_in_its_place_sees_the_volume_bit_for_bit(shape):
    mu = torch.rand(2, 1, *shape)
    assert torch.equal(seen_from(mu, *STILL, 5.0), mu)


def test_without_errors_the_projections_are_the_projectors_bit_for_bit():
    misaligned = MisalignedProjector(PROJECTOR, Drawn(STILL[0][:, None], STILL[1][:, None]))
    assert torch.equal(misaligned(MU), PROJECTOR(MU))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_shift_by_whole_voxels_moves_them_and_brings_in_nothing(axis):
    shift_mm = torch.zeros(2, 3)
    shift_mm[:, axis] = 40.0
    moved = seen_from(MU, STILL[0], shift_mm, 20.0)
    expected = torch.roll(MU, -2, axis + 2)
    expected.movedim(axis + 2, 0)[-2:] = 0
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-7)


def test_four_quarter_turns_are_the_identity_and_turns_add_up():
    quarter = about(2, 90).expand(2, 3, 3)
    once = seen_from(MU, quarter, STILL[1], 20.0)
    torch.testing.assert_close(once, torch.rot90(MU, -1, (2, 3)), rtol=1e-4, atol=1e-7)
    twice = seen_from(once, quarter, STILL[1], 20.0)
    torch.testing.assert_close(twice, MU.flip(2, 3), rtol=1e-4, atol=1e-7)


def test_turned_by_ninety_degrees_about_w_the_frontal_view_is_the_lateral_one():
    # An anterior source goes to the patient's left, and the frontal columns then run along v.
    geometry = preset("carm", (16, 16, 16), 20.0, 16)
    object.__setattr__(geometry, "lateral_source", "left")
    turned = SeparableProjector(geometry)(seen_from(MU, about(2, 90).expand(2, 3, 3), STILL[1], 20.0))
    torch.testing.assert_close(turned[:, 0], SeparableProjector(geometry)(MU)[:, 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("angles_deg", [(0, 0, 5), (4, 0, 0), (0, -6, 0), (2, 3, -5)])
def test_both_views_are_those_of_the_exact_pose(angles_deg):
    geometry = preset("carm", (32, 32, 32), 10.0, 32)
    angles = tuple(math.radians(a) for a in angles_deg)
    exact = RayMarchProjector(geometry, tuple(rotate_pose(view_pose(geometry, name), angles) for name in VIEWS))
    rotation = about(2, angles_deg[2]) @ about(1, angles_deg[1]) @ about(0, angles_deg[0])
    misaligned = MisalignedProjector(SeparableProjector(geometry), Drawn(rotation, torch.zeros(3)))
    mu = blobs()
    wrong = SeparableProjector(geometry)(mu) - exact(mu)
    assert (misaligned(mu) - exact(mu)).norm() < 0.02 * exact(mu).norm() < wrong.norm()


def test_each_view_has_its_own_error():
    rotation = torch.stack([torch.eye(3), about(2, 10)])
    seen = MisalignedProjector(PROJECTOR, Drawn(rotation, torch.zeros(3)))(MU)
    assert torch.equal(seen[:, 0], PROJECTOR(MU)[:, 0])
    assert not torch.allclose(seen[:, 1], PROJECTOR(MU)[:, 1])
