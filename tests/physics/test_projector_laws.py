"""Laws that every projector obeys; a new projector joins them by one entry in PROJECTORS."""

from dataclasses import replace

import pytest
import torch

from scripts.geometry import VIEWS, centred_coordinates_mm, preset
from scripts.physics.raymarch import RayMarchProjector, rotate_pose, view_pose
from scripts.physics.separable import SeparableProjector

SHAPE = (9, 10, 8)
SPACING_MM = 20.0
PIXELS = 11


def tilted(geometry, dtype):
    angles = ((0.10, -0.05, 0.20), (-0.15, 0.10, 0.05))
    poses = tuple(rotate_pose(view_pose(geometry, name), a) for name, a in zip(VIEWS, angles, strict=True))
    return RayMarchProjector(geometry, poses, dtype=dtype)


def marching(geometry, dtype):
    return RayMarchProjector(geometry, dtype=dtype)


ALIGNED = {"separable": SeparableProjector, "raymarch": marching}
PROJECTORS = {**ALIGNED, "tilted raymarch": tilted}
PRESETS = ("carm", "x2ct", "chest", "parallel")
SIDES = [(frontal, lateral) for frontal in ("anterior", "posterior") for lateral in ("right", "left")]
DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.cuda))


@pytest.fixture(params=PRESETS)
def geometry(request):
    return preset(request.param, SHAPE, SPACING_MM, PIXELS)


@pytest.fixture(params=PROJECTORS.values(), ids=PROJECTORS)
def build(request):
    return request.param


@pytest.fixture
def projector(geometry, build):
    return build(geometry, torch.float64)


def random(*shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def volume(batch=2, seed=0):
    return random(batch, 1, *SHAPE, seed=seed)


def image(batch=2, seed=1):
    return random(batch, 2, PIXELS, PIXELS, seed=seed)


def relative(a, b):
    return float((a - b).norm() / b.norm())


def test_adjoint_is_the_transpose(projector):
    x, y = volume(), image() - 0.5
    seen = projector(x)
    difference = torch.vdot(seen.flatten(), y.flatten()) - torch.vdot(x.flatten(), projector.adjoint(y).flatten())
    assert abs(float(difference / (seen.norm() * y.norm()))) <= 1e-10


def test_gradient_of_the_data_term_is_the_adjoint_of_the_residual(projector):
    x, b = volume().requires_grad_(), image()
    (0.5 * (projector(x) - b).square().sum()).backward()
    assert relative(x.grad, projector.adjoint(projector(x.detach()) - b)) <= 1e-10


def test_gradients_match_finite_differences_both_ways(build):
    projector = build(preset("carm", (4, 3, 5), 30.0, 4), torch.float64)
    assert torch.autograd.gradcheck(projector, random(1, 1, 4, 3, 5).requires_grad_())
    assert torch.autograd.gradcheck(projector.adjoint, random(1, 2, 4, 4).requires_grad_())


def test_projection_and_adjoint_are_linear(projector):
    for apply, a, b in ((projector, volume(), volume(seed=2)), (projector.adjoint, image(), image(seed=3))):
        torch.testing.assert_close(apply(2.0 * a - 3.0 * b), 2.0 * apply(a) - 3.0 * apply(b))


def test_a_batch_is_the_stack_of_its_cases(projector):
    for apply, batch in ((projector, volume(3)), (projector.adjoint, image(3))):
        torch.testing.assert_close(apply(batch), torch.cat([apply(case) for case in batch.split(1)]))


def test_inputs_are_left_alone(projector):
    x, y = volume(), image()
    before = x.clone(), y.clone()
    projector(x), projector.adjoint(y)
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])


def test_single_precision_agrees_with_double(geometry, build):
    single, double = build(geometry, torch.float32), build(geometry, torch.float64)
    assert single(volume().float()).dtype == torch.float32
    assert relative(single(volume().float()), double(volume())) <= 1e-5
    assert relative(single.adjoint(image().float()), double.adjoint(image())) <= 1e-5


@pytest.mark.parametrize("device", DEVICES)
def test_every_device_gives_the_same_numbers(build, device):
    geometry = preset("carm", SHAPE, SPACING_MM, PIXELS)
    here, there = build(geometry, torch.float64), build(geometry, torch.float64).to(device)
    assert relative(there(volume().to(device)).cpu(), here(volume())) <= 1e-12
    assert relative(there.adjoint(image().to(device)).cpu(), here.adjoint(image())) <= 1e-12


def test_weights_do_not_enter_a_checkpoint(projector):
    assert not projector.state_dict()


@pytest.mark.parametrize("shape", [(1, *SHAPE), (1, 2, *SHAPE), (1, 1, 9, 10, 9)])
def test_a_volume_of_another_shape_is_refused(projector, shape):
    with pytest.raises(ValueError, match=r"volumes \[B\] \+ \[1, 9, 10, 8\], got .*; resample"):
        projector(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(2, PIXELS, PIXELS), (1, 1, PIXELS, PIXELS), (1, 2, PIXELS, 10)])
def test_an_image_of_another_shape_is_refused(projector, shape):
    with pytest.raises(ValueError, match=r"images \[B\] \+ \[2, 11, 11\], got .*; resample"):
        projector.adjoint(torch.zeros(shape))


@pytest.mark.parametrize("build", ALIGNED.values(), ids=ALIGNED)
def test_the_central_ray_through_a_uniform_block_gives_length_times_mu(geometry, build):
    block = torch.zeros(1, 1, *SHAPE, dtype=torch.float64)
    block[..., 2:6, 3:8, :] = 0.02
    seen = build(geometry, torch.float64)(block)[0, :, PIXELS // 2, PIXELS // 2]
    expected = torch.tensor([5 * SPACING_MM * 0.02, 4 * SPACING_MM * 0.02], dtype=torch.float64)
    torch.testing.assert_close(seen, expected, rtol=5e-3, atol=0)


@pytest.mark.parametrize("build", ALIGNED.values(), ids=ALIGNED)
@pytest.mark.parametrize("sides", SIDES)
def test_oblique_rays_through_a_slab_give_its_thickness_over_their_cosine(build, sides):
    # A 24 mm slab across the beam, so wide that every ray of the small detector crosses it.
    frontal, lateral = sides
    geometry = replace(preset("carm", (24, 24, 24), 4.0, 6), detector_spacing_mm=15.0)
    geometry = replace(geometry, frontal_source=frontal, lateral_source=lateral)
    slab = torch.zeros(2, 1, 24, 24, 24, dtype=torch.float64)
    slab[0, :, :, 9:15] = slab[1, :, 9:15] = 0.01
    seen = build(geometry, torch.float64)(slab)
    pixel_mm = centred_coordinates_mm(6, 15.0)
    cosine = 1200 / (pixel_mm[:, None] ** 2 + pixel_mm[None, :] ** 2 + 1200**2).sqrt()
    expected = 24.0 * 0.01 / cosine
    torch.testing.assert_close(seen[0, 0], expected, rtol=2e-3, atol=0)
    torch.testing.assert_close(seen[1, 1], expected, rtol=2e-3, atol=0)


def centroid_mm(view, geometry):
    pixel_mm = centred_coordinates_mm(geometry.detector_pixels, geometry.detector_spacing_mm)
    return float(view.sum(1) @ pixel_mm / view.sum()), float(view.sum(0) @ pixel_mm / view.sum())


@pytest.mark.parametrize("build", ALIGNED.values(), ids=ALIGNED)
@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("name", ["carm", "parallel"])
def test_a_bright_voxel_lands_where_similar_triangles_put_it(build, sides, name):
    frontal, lateral = sides
    geometry = replace(preset(name, (15, 15, 15), 10.0, 120), frontal_source=frontal, lateral_source=lateral)
    index = (11, 4, 9)
    u, v, w = ((i - 7) * 10.0 for i in index)
    voxel = torch.zeros(1, 1, 15, 15, 15, dtype=torch.float64)
    voxel[(0, 0, *index)] = 1.0
    front, side = build(geometry, torch.float64)(voxel)[0]
    depth_front, depth_side = (v if frontal == "anterior" else -v), (u if lateral == "right" else -u)
    scale_front, scale_side = (1200 / (785 - depth) if name == "carm" else 1.0 for depth in (depth_front, depth_side))
    assert centroid_mm(front, geometry) == pytest.approx((u * scale_front, w * scale_front), abs=0.3)
    assert centroid_mm(side, geometry) == pytest.approx((v * scale_side, w * scale_side), abs=0.3)


@pytest.mark.parametrize("build", ALIGNED.values(), ids=ALIGNED)
@pytest.mark.parametrize("sides", SIDES)
def test_image_indices_grow_with_the_patient_axes_from_either_side(build, sides):
    frontal, lateral = sides
    geometry = replace(preset("carm", SHAPE, SPACING_MM, PIXELS), frontal_source=frontal, lateral_source=lateral)
    axes = {"u": 2, "v": 3, "w": 4}
    upper = torch.zeros(3, 1, *SHAPE, dtype=torch.float64)
    for case, axis in enumerate(axes.values()):
        upper[case].narrow(axis - 1, SHAPE[axis - 2] // 2 + 1, 2).fill_(1.0)
    by_u, by_v, by_w = build(geometry, torch.float64)(upper)
    half = PIXELS // 2
    for view in (by_u[0], by_v[1], by_w[0].T, by_w[1].T):
        assert float(view[half + 1 :].sum()) > 2 * float(view[:half].sum())
