"""Laws of random poses and shapes: resampling is exact where it can be, and deformations are what they say."""

import math

import pytest
import torch
from torch import Tensor

from scripts.data.augment import (
    Deformation,
    RandomDeformation,
    WholeBody,
    interpolate_lattice,
    resample,
    rotation_matrix,
)
from scripts.geometry import BiplanarGeometry, centred_coordinates_mm, preset
from scripts.intensity import AIR_HU

GEOMETRY = preset("carm", (6, 8, 10), 10.0, 16)
STILL = {"rotation_deg": 0, "scale": 0, "stretch": 0, "shift_mm": (0, 0, 0), "displacement_mm": 0}


def grid_points_mm(geometry: BiplanarGeometry) -> Tensor:
    """Voxel centres ``[U, V, W, 3]``."""
    axes = (centred_coordinates_mm(n, geometry.volume_spacing_mm).float() for n in geometry.volume_shape)
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


POINTS_MM = grid_points_mm(GEOMETRY)


def moved(deformation: Deformation) -> Tensor:
    """Where the grid's points go."""
    return interpolate_lattice(deformation.nodes_mm(GEOMETRY)[None], GEOMETRY.volume_shape)[0].permute(1, 2, 3, 0)


def resample_volume(hu: Tensor, spacing_mm: float, points_mm: Tensor) -> Tensor:
    """Samples at any points: a lattice as fine as the grid."""
    nodes_mm = points_mm.permute(3, 0, 1, 2)[None]
    return resample([WholeBody.of(hu, spacing_mm)], nodes_mm, points_mm.shape[:3])[0]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=generator()) * 2000 - 1000


def ramp(shape: tuple[int, int, int], spacing_mm: float, slope: tuple[float, float, float]) -> torch.Tensor:
    """A volume that is linear in mm: ``slope . (u, v, w)``."""
    geometry = preset("parallel", shape, spacing_mm, 16)
    return grid_points_mm(geometry) @ torch.tensor(slope)


# ---------------------------------------------------------------------------------------------------------------------
# Grid and kernel
# ---------------------------------------------------------------------------------------------------------------------


def test_grid_points_are_voxel_centres_around_the_isocentre():
    assert POINTS_MM.shape == (6, 8, 10, 3)
    assert POINTS_MM[0, 0, 0].tolist() == [-25.0, -35.0, -45.0] and POINTS_MM[-1, -1, -1].tolist() == [25.0, 35.0, 45.0]
    assert POINTS_MM[1, 0, 0].tolist() == [-15.0, -35.0, -45.0]
    torch.testing.assert_close(POINTS_MM.mean(dim=(0, 1, 2)), torch.zeros(3), atol=1e-4, rtol=0)


def test_sampling_a_volume_at_its_own_voxels_is_the_identity():
    hu = noise(6, 8, 10)
    torch.testing.assert_close(resample_volume(hu, 10.0, POINTS_MM), hu, atol=1e-2, rtol=0)


def test_sampling_a_linear_volume_is_exact_anywhere_inside():
    slope = (1.0, -2.0, 3.0)
    hu = ramp((12, 14, 16), 8.0, slope)
    points = POINTS_MM * 0.8 + 1.3
    torch.testing.assert_close(resample_volume(hu, 8.0, points), points @ torch.tensor(slope), atol=1e-2, rtol=1e-4)


def test_outside_the_volume_is_air():
    points = POINTS_MM + torch.tensor([0.0, 0.0, 1000.0])
    assert (resample_volume(noise(6, 8, 10), 10.0, points) == AIR_HU).all()


def test_edge_fades_to_air_within_one_voxel():
    hu = torch.zeros(4, 4, 4)
    along_u = torch.tensor([[[[15.0, 0, 0]]], [[[17.5, 0, 0]]], [[[20.0, 0, 0]]], [[[25.0, 0, 0]]], [[[26.0, 0, 0]]]])
    sampled = resample_volume(hu, 10.0, along_u).flatten()
    torch.testing.assert_close(sampled, torch.tensor([0.0, -250.0, -500.0, -1000.0, -1000.0]), atol=1e-3, rtol=0)


def test_gradients_flow_to_the_volume_and_to_the_points():
    hu, points = noise(5, 5, 5).requires_grad_(), (POINTS_MM * 0.3).requires_grad_()
    resample_volume(hu, 10.0, points).sum().backward()
    assert hu.grad.abs().max() > 0 and points.grad.abs().max() > 0
    assert hu.grad.isfinite().all() and points.grad.isfinite().all()


def test_gradient_with_respect_to_the_points_is_the_slope():
    slope = torch.tensor([1.0, -2.0, 3.0])
    points = (POINTS_MM * 0.5 + 0.7).requires_grad_()
    resample_volume(ramp((12, 12, 12), 8.0, tuple(slope.tolist())), 8.0, points).sum().backward()
    torch.testing.assert_close(points.grad, slope.expand_as(points), atol=1e-3, rtol=1e-3)


# ---------------------------------------------------------------------------------------------------------------------
# Deformations
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("angles", [(0.3, -0.2, 0.1), (3.0, 1.0, -2.0), (0.0, 0.0, 0.0)])
def test_rotation_matrix_is_orthonormal_and_proper(angles):
    matrix = rotation_matrix(torch.tensor(angles)).double()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(3, dtype=torch.float64), atol=1e-5, rtol=0)
    assert torch.linalg.det(matrix).item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("axis", "turned"), [(0, (1, 2)), (1, (2, 0)), (2, (0, 1))])
def test_quarter_turn_about_an_axis_takes_the_next_axis_to_the_one_after(axis, turned):
    angles = torch.zeros(3)
    angles[axis] = math.pi / 2
    unit = torch.eye(3)
    torch.testing.assert_close(rotation_matrix(angles) @ unit[turned[0]], unit[turned[1]], atol=1e-6, rtol=0)


def test_zero_standard_deviations_give_the_identity():
    points = moved(RandomDeformation(**STILL).draw(generator()))
    torch.testing.assert_close(points, POINTS_MM, atol=1e-4, rtol=0)


def test_same_generator_state_draws_the_same_deformation_and_another_one_another():
    drawn = [moved(RandomDeformation().draw(generator(seed))) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_mirror_flips_u_alone():
    points = moved(RandomDeformation(**STILL, mirror=1.0).draw(generator()))
    torch.testing.assert_close(points, POINTS_MM * torch.tensor([-1.0, 1.0, 1.0]), atol=1e-4, rtol=0)


def test_mirrored_patient_is_the_flipped_volume():
    hu = noise(6, 8, 10)
    points = moved(RandomDeformation(**STILL, mirror=1.0).draw(generator()))
    torch.testing.assert_close(resample_volume(hu, 10.0, points), hu.flip(0), atol=2e-2, rtol=0)


@pytest.mark.parametrize("mirror", [0.0, 0.3, 1.0])
def test_mirror_has_its_probability(mirror):
    deformation = RandomDeformation(mirror=mirror)
    g = generator()
    flipped = sum(torch.linalg.det(deformation.draw(g).matrix).item() < 0 for _ in range(400))
    assert flipped / 400 == pytest.approx(mirror, abs=4 * math.sqrt(mirror * (1 - mirror) / 400))


def test_shifts_are_uniform_up_to_their_largest():
    g, largest = generator(), torch.tensor([15.0, 0.0, 50.0])
    shifts = torch.stack([RandomDeformation(shift_mm=tuple(largest.tolist())).draw(g).shift_mm for _ in range(2000)])
    assert (shifts.abs() <= largest).all()
    torch.testing.assert_close(shifts.std(0), largest / math.sqrt(3), atol=0.01, rtol=0.05)
    torch.testing.assert_close(shifts.mean(0), torch.zeros(3), atol=2.5, rtol=0)


def test_rotations_sizes_and_displacements_have_their_standard_deviations():
    asked = RandomDeformation(rotation_deg=3.0, scale=0.1, stretch=0.0, displacement_mm=6.0)
    g = generator()
    drawn = [asked.draw(g) for _ in range(2000)]
    size = torch.stack([d.matrix.det().log() / 3 for d in drawn])
    rotation = torch.stack([d.matrix / d.matrix.det() ** (1 / 3) for d in drawn])
    about_w = torch.asin((rotation[:, 1, 0] - rotation[:, 0, 1]) / 2)
    assert size.std().item() == pytest.approx(0.1, rel=0.1)
    assert math.degrees(about_w.std().item()) == pytest.approx(3.0, rel=0.1)
    assert torch.stack([d.displacement_mm for d in drawn]).std().item() == pytest.approx(6.0, rel=0.02)


def test_displacement_is_exact_at_the_lattice_nodes_and_smooth_between():
    nodes = torch.randn(3, 2, 2, 2, generator=generator()) * 5
    shift = moved(Deformation(torch.eye(3), torch.zeros(3), nodes)) - POINTS_MM
    for corner in ((0, 0, 0), (-1, 0, -1), (-1, -1, -1)):
        torch.testing.assert_close(shift[corner], nodes[(slice(None), *corner)], atol=1e-4, rtol=0)
    torch.testing.assert_close(shift[0, 0, 1] - shift[0, 0, 0], shift[0, 0, 9] - shift[0, 0, 8], atol=1e-4, rtol=0)
