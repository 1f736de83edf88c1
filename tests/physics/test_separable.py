import pytest
import torch

from scripts.geometry import preset
from scripts.physics.separable import SeparableProjector, interpolation_matrix, path_length_mm


def positions(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_interpolation_at_a_sample_is_that_sample():
    torch.testing.assert_close(interpolation_matrix(torch.arange(5.0), 5), torch.eye(5))


def test_interpolation_weights_sum_to_one_between_the_outermost_samples():
    torch.testing.assert_close(interpolation_matrix(torch.linspace(0, 6, 50), 7).sum(-1), torch.ones(50))


def test_interpolation_reproduces_linear_functions():
    at = positions(0.0, 0.25, 2.9, 4.0)
    samples = torch.arange(5, dtype=torch.float64)
    torch.testing.assert_close(interpolation_matrix(at, 5) @ (3 * samples - 1), 3 * at - 1)


def test_interpolation_fades_to_zero_one_sample_beyond_the_ends():
    weights = interpolation_matrix(positions(-2.0, -1.0, -0.25, 4.5, 5.0), 5)
    torch.testing.assert_close(weights.sum(-1), positions(0.0, 0.0, 0.75, 0.5, 0.0))


def test_interpolation_keeps_leading_axes():
    assert interpolation_matrix(torch.zeros(3, 4), 6).shape == (3, 4, 6)


def test_a_ray_crosses_one_plane_over_its_spacing_divided_by_its_cosine():
    geometry = preset("carm", (9, 9, 9), 2.0, 5)
    length_mm = path_length_mm(geometry)
    assert float(length_mm[2, 2]) == 2.0
    offset_mm = 2 * geometry.detector_spacing_mm
    assert float(length_mm[0, 4]) == pytest.approx(2.0 * (2 * offset_mm**2 + 1200**2) ** 0.5 / 1200)


def test_parallel_rays_all_cross_a_plane_over_its_spacing():
    torch.testing.assert_close(
        path_length_mm(preset("parallel", (9, 9, 9), 2.0, 5)), torch.full((5, 5), 2.0, dtype=torch.float64)
    )


def test_with_as_many_parallel_pixels_as_voxels_projection_is_the_sum_along_an_axis():
    geometry = preset("parallel", (8, 8, 8), 2.0, 8)
    mu = torch.rand(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    frontal, lateral = SeparableProjector(geometry, torch.float64)(mu)[0]
    torch.testing.assert_close(frontal, 2.0 * mu[0, 0].sum(1))
    torch.testing.assert_close(lateral, 2.0 * mu[0, 0].sum(0))


def test_projection_equals_a_direct_sum_over_planes_by_bilinear_interpolation():
    geometry = preset("x2ct", (5, 6, 7), 25.0, 4)
    mu = torch.rand(1, 1, 5, 6, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    seen = SeparableProjector(geometry, torch.float64)(mu)[0, 0]
    pixel_mm = [(i - 1.5) * geometry.detector_spacing_mm for i in range(4)]
    for i, x in enumerate(pixel_mm):
        for j, z in enumerate(pixel_mm):
            total = 0.0
            for k in range(6):
                shrink = (541 - (k - 2.5) * 25.0) / 949
                total += bilinear(mu[0, 0, :, k], x * shrink / 25 + 2, z * shrink / 25 + 3)
            expected = total * 25.0 * (x**2 + z**2 + 949**2) ** 0.5 / 949
            assert float(seen[i, j]) == pytest.approx(expected, rel=1e-12)


def bilinear(plane, row, column):
    return sum(
        float(plane[r, c]) * max(0.0, 1 - abs(row - r)) * max(0.0, 1 - abs(column - c))
        for r in range(plane.shape[0])
        for c in range(plane.shape[1])
    )


@pytest.mark.parametrize("scripted", [False, True])
def test_autocast_does_not_touch_the_projector(scripted: bool) -> None:
    projector = SeparableProjector(preset("carm", (6, 7, 5), 40.0, 8))
    mu = torch.rand(2, *projector.volume_shape, generator=torch.Generator().manual_seed(2))
    films = projector(mu)
    run = torch.jit.script(projector) if scripted else projector
    with torch.autocast("cpu", torch.bfloat16):
        seen, back = run(mu), run.adjoint(films)
    torch.testing.assert_close(seen, films)
    torch.testing.assert_close(back, projector.adjoint(films))
