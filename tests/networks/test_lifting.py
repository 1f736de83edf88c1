"""Replicated radiographs: a bilinear sample per voxel, right in the isocentre plane, blind to depth."""

import dataclasses

import pytest
import torch
from tests.refusal import refused
from torch import Tensor

from scripts.geometry import centred_coordinates_mm, preset
from scripts.intensity import hu_to_mu, hu_to_network, radiograph_to_network
from scripts.networks.lifting import RayReplication, Unexplained
from scripts.physics.separable import SeparableProjector

CARM = preset("carm", (7, 9, 11), 20.0, 48)
GEOMETRIES = {
    "carm": CARM,
    "posterior and left": dataclasses.replace(CARM, frontal_source="posterior", lateral_source="left"),
    "short and steep": preset("x2ct", (9, 7, 5), 30.0, 40),
    "parallel": preset("parallel", (5, 7, 9), 20.0, 36),
    "coarse detector": dataclasses.replace(CARM, detector_pixels=5, detector_spacing_mm=150.0),
    "detector too small": dataclasses.replace(CARM, detector_pixels=16),
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def bilinear(image: Tensor, row: float, column: float) -> float:
    """The image at fractional indices, held at the border pixels beyond their centres."""
    n = len(image)
    row, column = min(max(row, 0), n - 1), min(max(column, 0), n - 1)
    i, j = min(int(row), n - 2), min(int(column), n - 2)
    a, b = row - i, column - j
    near, far = image[i].tolist(), image[i + 1].tolist()
    return (1 - a) * ((1 - b) * near[j] + b * near[j + 1]) + a * ((1 - b) * far[j] + b * far[j + 1])


@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_voxel_holds_its_radiograph_sampled_where_the_isocentre_plane_would_cast_it(name: str) -> None:
    geometry, n = GEOMETRIES[name], GEOMETRIES[name].detector_pixels
    image = normal(1, 2, n, n)
    lifted = RayReplication(geometry)(image)
    magnification = 1.0
    if not geometry.is_parallel:
        magnification = geometry.source_to_detector_mm / geometry.source_to_isocentre_mm
    pitch = magnification * geometry.volume_spacing_mm / geometry.detector_spacing_mm
    expected = torch.zeros_like(lifted)
    for u, v, w in torch.cartesian_prod(*(torch.arange(count) for count in geometry.volume_shape)).tolist():
        at = [(i - (c - 1) / 2) * pitch + (n - 1) / 2 for i, c in zip((u, v, w), geometry.volume_shape, strict=True)]
        expected[0, 0, u, v, w] = bilinear(image[0, 0], at[0], at[2])
        expected[0, 1, u, v, w] = bilinear(image[0, 1], at[1], at[2])
    assert torch.allclose(lifted, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["carm", "posterior and left", "short and steep", "parallel"])
@pytest.mark.parametrize("view", ["frontal", "lateral"])
def test_the_shadow_of_a_voxel_at_the_isocentre_depth_is_brightest_along_the_ray_through_it(name, view) -> None:
    geometry = GEOMETRIES[name]
    depth, column = geometry.view(view).depth_axis, geometry.view(view).column_axis
    middle = geometry.volume_shape[depth] // 2
    for at_column in range(geometry.volume_shape[column]):
        for at_row in (0, 1, geometry.volume_shape[2] - 1):
            voxel = [0, 0, at_row]
            voxel[depth], voxel[column] = middle, at_column
            mu = torch.zeros(1, 1, *geometry.volume_shape)
            mu[0, 0, voxel[0], voxel[1], voxel[2]] = 1
            lifted = RayReplication(geometry)(SeparableProjector(geometry)(mu))
            plane = lifted[0, 0 if view == "frontal" else 1].select(depth, middle)
            brightest = divmod(int(plane.argmax()), plane.shape[1])
            assert brightest == (at_column, at_row)


def test_the_cone_is_ignored_so_a_shadow_from_near_the_source_misses_its_voxel() -> None:
    geometry = GEOMETRIES["short and steep"]
    mu = torch.zeros(1, 1, *geometry.volume_shape)
    mu[0, 0, 1, -1, 2] = 1
    lifted = RayReplication(geometry)(SeparableProjector(geometry)(mu))[0, 0]
    assert divmod(int(lifted[:, -1].argmax()), 5) == (0, 2)


@pytest.mark.parametrize("name", ["carm", "posterior and left", "short and steep", "parallel"])
def test_a_ramp_in_detector_mm_is_replicated_to_a_ramp_in_voxel_mm(name: str) -> None:
    geometry = GEOMETRIES[name]
    pixel_mm = centred_coordinates_mm(geometry.detector_pixels, geometry.detector_spacing_mm)
    image = torch.stack([2 * pixel_mm[:, None] - pixel_mm + 5, pixel_mm[:, None] + 3 * pixel_mm])[None]
    u, v, w = (centred_coordinates_mm(n, geometry.volume_spacing_mm) for n in geometry.volume_shape)
    u, v = u[:, None, None], v[:, None]
    m = 1 if geometry.is_parallel else geometry.source_to_detector_mm / geometry.source_to_isocentre_mm
    expected = torch.stack([m * (2 * u - w) + 5 + 0 * v, m * (v + 3 * w) + 0 * u])[None]
    assert torch.allclose(RayReplication(geometry)(image.float()), expected.float(), atol=1e-3)


def test_with_as_many_parallel_pixels_as_voxels_replication_copies_pixel_to_voxel() -> None:
    geometry, image = preset("parallel", (8, 8, 8), 2.0, 8), normal(2, 2, 8, 8)
    frontal = image[:, 0, :, None, :].expand(-1, -1, 8, -1)
    lateral = image[:, 1, None, :, :].expand(-1, 8, -1, -1)
    assert torch.allclose(RayReplication(geometry)(image), torch.stack([frontal, lateral], dim=1), atol=1e-6)


def test_the_matrices_are_no_weights() -> None:
    module = RayReplication(CARM)
    assert not module.state_dict()
    assert not list(module.parameters())


def test_a_scripted_module_answers_alike() -> None:
    module, image = RayReplication(CARM), normal(2, 2, 48, 48)
    assert torch.equal(torch.jit.script(module)(image), module(image))


def test_half_precision_images_stay_half_precision() -> None:
    assert RayReplication(CARM)(normal(1, 2, 48, 48).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(1, 2, 32, 48), (1, 1, 48, 48), (2, 48, 48)])
def test_an_image_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with refused(ValueError, "images", "[2, 48, 48]", "got ", "resample"):
        RayReplication(CARM)(torch.zeros(shape))


def test_the_side_of_the_source_does_not_matter_in_the_isocentre_plane() -> None:
    image = normal(1, 2, 48, 48)
    turned = RayReplication(GEOMETRIES["posterior and left"])(image)
    assert torch.equal(turned, RayReplication(CARM)(image))


# What a volume leaves unexplained


def unexplained(geometry, seed: int = 0):
    """The module, a volume in network range and its own radiographs in network units."""
    hu = 150 * normal(2, 1, *geometry.volume_shape, seed=seed).clamp(-3, 3)
    return Unexplained(geometry), hu_to_network(hu), radiograph_to_network(SeparableProjector(geometry)(hu_to_mu(hu)))


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_true_volume_leaves_nothing_unexplained(name) -> None:
    module, volume, image = unexplained(GEOMETRIES[name])
    assert module(image, volume).abs().max() < 1e-4


def test_what_is_missing_everywhere_comes_back_where_rays_pass() -> None:
    geometry = GEOMETRIES["carm"]
    module, volume, image = unexplained(geometry)
    rest = module(image, volume - 0.1)
    assert torch.allclose(rest, torch.full_like(rest, 0.1), atol=1e-4)


def test_a_missing_view_leaves_nothing_and_the_first_estimate_is_the_other_ones() -> None:
    module, volume, image = unexplained(GEOMETRIES["carm"])
    alone = image * torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)
    assert not module(alone, volume - 0.1)[:, 1].any()
    frontal = module.scale(module.spread(image)[:, :1])
    assert torch.allclose(module.first_estimate(alone), frontal)
    both = module.scale(module.spread(image).mean(dim=1, keepdim=True))
    assert torch.allclose(module.first_estimate(image), both)


def test_adding_the_rest_of_a_view_explains_its_radiograph_better() -> None:
    module, volume, image = unexplained(GEOMETRIES["carm"])
    estimate = module.first_estimate(image)
    for view in (0, 1):
        better = estimate + module(image, estimate)[:, view : view + 1]
        before, after = (module(image, x)[:, view].norm() for x in (estimate, better))
        assert after < 0.9 * before
