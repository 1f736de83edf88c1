"""The implicit conditioning mechanism, equation by equation, against the definitions written out naively."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.geometry import BiplanarGeometry, centred_coordinates_mm, preset
from scripts.networks.triplane import (
    ImplicitDecoder,
    InterleavedConvolution,
    LearnableEmbedding,
    NoEmbedding,
    PlaneDecoder,
    PlaneEncoder,
    ResidualFusion,
    SumFusion,
    TriplaneConditioner,
    ViewModulators,
    sine_encoding,
)

CARM = preset("carm", (8, 12, 16), 20.0, 32)
GEOMETRIES = {
    "carm": CARM,
    "posterior and left": dataclasses.replace(CARM, frontal_source="posterior", lateral_source="left"),
    "short and steep": preset("x2ct", (16, 12, 8), 40.0, 32),
    "parallel": preset("parallel", (8, 12, 16), 20.0, 32),
    "detector too small": dataclasses.replace(CARM, detector_spacing_mm=CARM.detector_spacing_mm / 2),
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def spread_weights(module: nn.Module, scale: float = 0.3) -> nn.Module:
    """Every parameter drawn anew, so that no branch is silent."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def conditioner(geometry: BiplanarGeometry = CARM, **changes) -> TriplaneConditioner:
    grids = [geometry.volume_shape, tuple(n // 2 for n in geometry.volume_shape)]
    sizes = {"plane_channels": (4, 6, 8), "condition_channels": (3, 5), "stem_stride": 2, "blocks": 1, **changes}
    return TriplaneConditioner(geometry, grids, **sizes)


# Interleaved convolution


def test_interleaving_adds_the_other_views_profile_along_w() -> None:
    module = InterleavedConvolution(3)
    x1, x2 = normal(2, 3, 4, 5), normal(2, 3, 6, 5, seed=1)
    y1, y2 = module(x1, x2)
    profile1, profile2 = x1.sum(dim=2) / 4, x2.sum(dim=2) / 6
    expected1 = F.silu(module.conv(torch.cat([x1, torch.stack([profile2] * 4, dim=2)], dim=1)))
    expected2 = F.silu(module.conv(torch.cat([x2, torch.stack([profile1] * 6, dim=2)], dim=1)))
    assert torch.allclose(y1, expected1, atol=1e-6)
    assert torch.allclose(y2, expected2, atol=1e-6)


def test_a_view_sees_nothing_of_the_other_but_its_w_profile() -> None:
    module = InterleavedConvolution(3)
    x1, x2 = normal(1, 3, 6, 6), normal(1, 3, 6, 6, seed=1)
    y1, y2 = module(x1, x2)
    permuted1, permuted2 = module(x1, x2[:, :, torch.tensor([3, 0, 5, 1, 2, 4])])
    assert torch.allclose(permuted1, y1, atol=1e-6)
    assert not torch.allclose(permuted2, y2, atol=1e-2)
    shifted1, _ = module(x1, x2.roll(1, dims=3))
    assert not torch.allclose(shifted1, y1, atol=1e-2)


# View modulators, eqs (3) and (4)


def test_the_squares_of_the_modulators_sum_to_one_up_to_delta() -> None:
    module = spread_weights(ViewModulators(16), scale=1.0)
    gamma1, gamma2 = module.weights()
    assert torch.allclose(gamma1**2 + gamma2**2, torch.ones(1, 16, 1, 1), atol=1e-5)
    assert gamma1.min() >= 0
    assert gamma2.min() >= 0
    assert (gamma1 - gamma2).abs().max() > 0.1


def test_delta_keeps_vanishing_modulators_finite() -> None:
    module = ViewModulators(4)
    nn.init.zeros_(module.mlp[2].weight)
    nn.init.zeros_(module.mlp[2].bias)
    gamma1, gamma2 = module.weights()
    assert torch.equal(gamma1, torch.zeros(1, 4, 1, 1))
    (gamma1 + gamma2).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


def test_the_raw_uv_plane_is_eq_4_computed_by_hand() -> None:
    module = ViewModulators(2)
    # The perceptron answers (3, -5) for the frontal embedding and (-4, 12) for the lateral one.
    module.mlp = nn.Linear(3, 2, bias=False)
    module.mlp.weight.data = torch.tensor([[3.0, -4.0, 0.0], [-5.0, 12.0, 0.0]])
    x_uw = torch.tensor([1.0, 10.0]).reshape(1, 2, 1, 1)
    x_vw = torch.tensor([2.0, -20.0]).reshape(1, 2, 1, 1)
    by_hand = [3 / 5 * 1 + 4 / 5 * 2, 5 / 13 * 10 + 12 / 13 * -20]
    assert torch.allclose(module(x_uw, x_vw).flatten(), torch.tensor(by_hand), atol=1e-5)


def test_the_view_embeddings_are_the_papers() -> None:
    module = ViewModulators(2)
    assert module.s1.tolist() == [[1, 0, 1]]
    assert module.s2.tolist() == [[0, 1, 1]]


def test_sum_fusion_is_eq_4_with_equal_modulators() -> None:
    x_uw, x_vw = normal(1, 3, 2, 2), normal(1, 3, 2, 2, seed=1)
    module = ViewModulators(3)
    module.mlp = nn.Linear(3, 3, bias=False)
    nn.init.ones_(module.mlp.weight)
    assert torch.allclose(SumFusion(3)(x_uw, x_vw), module(x_uw, x_vw), atol=1e-6)
    assert torch.allclose(SumFusion(3)(x_uw, x_vw), (x_uw + x_vw) / math.sqrt(2))


def test_residual_fusion_reads_both_planes_at_every_cell() -> None:
    module = spread_weights(ResidualFusion(4))
    x_uw, x_vw = normal(1, 4, 4, 4), normal(1, 4, 4, 4, seed=1)
    y = module(x_uw, x_vw)
    assert y.shape == x_uw.shape
    assert not torch.allclose(module(x_vw, x_uw), y, atol=1e-2)


# Learnable embedding, eq (5)


def test_without_z_the_embedding_is_the_convolved_sine_the_same_every_time() -> None:
    module, x = LearnableEmbedding(8, 4).eval(), normal(2, 8, 4, 4)
    assert torch.equal(module(x), module(x))
    assert torch.allclose(module(x) - x, module.conv(module.sine).expand(2, -1, -1, -1), atol=1e-6)


def test_z_disturbs_the_sine_before_the_convolution() -> None:
    module, x, z = LearnableEmbedding(8, 4), normal(2, 8, 4, 4), normal(2, 8, 4, 4, seed=1)
    assert torch.allclose(module(x, z), x + module.conv(module.sine + z), atol=1e-6)
    assert torch.allclose(module(x, torch.zeros_like(z)), module(x), atol=1e-6)
    assert not torch.allclose(module(x, z), module(x), atol=1e-2)


def test_the_sine_encoding_is_octaves_of_both_coordinates() -> None:
    sine = sine_encoding(8, 5)
    assert sine.shape == (1, 8, 5, 5)
    for i in range(5):
        for j in range(5):
            u, v = (i + 0.5) / 5, (j + 0.5) / 5
            waves = [wave(math.pi * octave * c) for c in (u, v) for wave in (math.sin, math.cos) for octave in (1, 2)]
            assert sine[0, :, i, j].tolist() == pytest.approx(waves, abs=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 4, 6, 10])
def test_the_sine_encoding_fits_any_channel_count(channels: int) -> None:
    assert sine_encoding(channels, 4).shape == (1, channels, 4, 4)


def test_octaves_that_the_plane_cannot_show_are_left_out() -> None:
    sine = sine_encoding(64, 8)
    assert torch.equal(sine[:, :12], sine[:, 12:24])  # three octaves of sine and cosine along both axes, then again


def test_the_sine_is_fixed_and_travels_in_the_weights() -> None:
    module = LearnableEmbedding(8, 4)
    assert set(module.state_dict()) == {"sine", "conv.0.weight", "conv.0.bias"}
    assert not module.sine.requires_grad
    assert torch.equal(module.sine, LearnableEmbedding(8, 4).sine)


def test_no_embedding_changes_nothing() -> None:
    x = normal(1, 4, 2, 2)
    assert torch.equal(NoEmbedding(4, 2)(x, normal(1, 4, 2, 2, seed=1)), x)


# Plane encoder and decoder


def test_the_encoder_returns_every_level_each_half_as_fine() -> None:
    levels = PlaneEncoder((4, 6, 8), blocks=2, dropout=0.0)(normal(2, 4, 16, 8))
    assert [tuple(x.shape) for x in levels] == [(2, 4, 16, 8), (2, 6, 8, 4), (2, 8, 4, 2)]


def test_the_decoder_returns_the_finest_levels_finest_first() -> None:
    levels = [normal(2, 4, 16, 16), normal(2, 6, 8, 8), normal(2, 8, 4, 4)]
    for stages in (1, 2, 3):
        features = PlaneDecoder((4, 6, 8), stages, dropout=0.0)(levels)
        assert [x.shape for x in features] == [x.shape for x in levels[:stages]]


def test_the_three_planes_share_the_decoder_so_permuting_planes_permutes_outputs() -> None:
    module = spread_weights(PlaneDecoder((4, 6, 8), 2, dropout=0.0))
    levels = [normal(3, 4, 16, 16), normal(3, 6, 8, 8), normal(3, 8, 4, 4)]
    order = torch.tensor([2, 0, 1])
    permuted = module([x[order] for x in levels])
    for features, expected in zip(permuted, module(levels), strict=True):
        assert torch.allclose(features, expected[order], atol=1e-5)
        assert not torch.allclose(features, expected, atol=1e-1)


# Implicit neural decoder, eq (6)


def grid_points_mm(geometry: BiplanarGeometry, grid: tuple[int, int, int]) -> Tensor:
    """Centres ``[cells, 3]`` of a grid over the geometry's volume, w fastest."""
    axes = (centred_coordinates_mm(n, size / n) for n, size in zip(grid, geometry.volume_size_mm, strict=True))
    return torch.cartesian_prod(*axes)


def naive_queries(geometry: BiplanarGeometry, planes: list[Tensor], points: Tensor) -> Tensor:
    """Sum ``[B, C_in, M]`` of the three planes' bilinear samples, each point projected along its own X-ray."""
    signs = {"anterior": 1, "posterior": -1, "right": 1, "left": -1}
    isocentre, detector = geometry.source_to_isocentre_mm, geometry.source_to_detector_mm

    def hit(point: tuple[float, float, float], view: str) -> tuple[float, float]:
        """Where the ray from the source through the point meets the detector, as fractions in [-1, 1]."""
        u, v, w = point
        side, depth, column = (
            (signs[geometry.frontal_source], v, u) if view == "frontal" else (signs[geometry.lateral_source], u, v)
        )
        scale = 1.0 if math.isinf(isocentre) else detector / (isocentre - side * depth)
        half = geometry.detector_pixels * geometry.detector_spacing_mm / 2
        return scale * column / half, scale * w / half

    def sample(plane: Tensor, first: float, second: float) -> Tensor:
        at = torch.tensor([second, first], dtype=plane.dtype).reshape(1, 1, 1, 2).expand(len(plane), -1, -1, -1)
        return F.grid_sample(plane, at, mode="bilinear", padding_mode="border", align_corners=False)[:, :, 0, 0]

    u_uv, u_uw, u_vw = planes
    half_u, half_v = (n * geometry.volume_spacing_mm / 2 for n in geometry.volume_shape[:2])
    answers = []
    for u, v, w in points.tolist():
        frontal, lateral = hit((u, v, w), "frontal"), hit((u, v, w), "lateral")
        answers.append(sample(u_uv, u / half_u, v / half_v) + sample(u_uw, *frontal) + sample(u_vw, *lateral))
    return torch.stack(answers, dim=-1)


def naive_perceptron(decoder: ImplicitDecoder, queries: Tensor) -> Tensor:
    """The two layers ``[B, C, M]`` on the summed queries of all voxels: a matrix, norm and activation, a matrix."""
    hidden = torch.einsum("oc,bcm->bom", decoder.first.weight[:, :, 0, 0], queries)
    hidden = F.silu(decoder.second[0](hidden))
    out = decoder.second[2]
    return torch.einsum("oc,bcm->bom", out.weight[:, :, 0, 0, 0], hidden) + out.bias[:, None]


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize(("grid", "side"), [((8, 6, 4), 16), ((4, 6, 8), 5)])
def test_the_decoder_is_three_bilinear_samples_their_sum_and_a_perceptron_at_every_voxel(name, grid, side) -> None:
    geometry = GEOMETRIES[name]
    decoder = spread_weights(ImplicitDecoder(geometry, grid, side, in_channels=3, channels=4), scale=1.0)
    planes = [normal(2, 3, side, side, seed=i) for i in range(3)]
    points = grid_points_mm(geometry, grid)
    with torch.no_grad():
        expected = naive_perceptron(decoder, naive_queries(geometry, planes, points))
        h = decoder(*planes)
    assert h.shape == (2, 4, *grid)
    assert torch.allclose(h.flatten(2), expected, atol=2e-4)


def test_the_geometries_of_these_tests_are_told_apart() -> None:
    planes = [normal(1, 3, 16, 16, seed=i) for i in range(3)]
    answers = []
    for geometry in GEOMETRIES.values():
        decoder = spread_weights(ImplicitDecoder(geometry, (4, 4, 4), 16, 3, 4), scale=1.0)
        answers.append(decoder(*planes))
    for i, a in enumerate(answers):
        assert all((a - b).abs().max() > 1e-2 for b in answers[:i])


def test_on_an_aligned_grid_the_queries_are_identities() -> None:
    decoder = ImplicitDecoder(preset("parallel", (8, 8, 8), 3.0, 16), (8, 8, 8), 8, 2, 4)
    eye = torch.eye(8)
    for name in ("frontal", "lateral"):
        for part in ("columns", "rows"):
            matrices = decoder.get_buffer(f"{name}_{part}")
            assert torch.allclose(matrices, eye.expand(8, 8, 8), atol=1e-6)
    assert torch.allclose(decoder.axial_columns, eye, atol=1e-6)
    assert torch.allclose(decoder.axial_rows, eye, atol=1e-6)
    magnified = ImplicitDecoder(preset("carm", (8, 8, 8), 3.0, 16), (8, 8, 8), 8, 2, 4)
    assert not torch.allclose(magnified.frontal_columns, eye.expand(8, 8, 8), atol=1e-2)


@pytest.mark.parametrize("name", ["carm", "posterior and left", "short and steep", "parallel"])
@pytest.mark.parametrize("view", ["frontal", "lateral"])
def test_a_bright_pixel_lights_exactly_the_voxels_on_its_ray(name: str, view: str) -> None:
    geometry, side, pixel = GEOMETRIES[name], 16, (6, 9)
    grid = geometry.volume_shape
    decoder = ImplicitDecoder(geometry, grid, side, 1, 1)
    nn.init.ones_(decoder.first.weight)
    decoder.second = nn.Identity()
    dark, bright = torch.zeros(1, 1, side, side), torch.zeros(1, 1, side, side)
    bright[0, 0, pixel[0], pixel[1]] = 1
    h = decoder(dark, bright, dark) if view == "frontal" else decoder(dark, dark, bright)

    # Intersect the pixel's ray, source to pixel centre, with every plane of voxels.
    cell_mm = geometry.detector_size_mm / side
    column_mm, row_mm = ((p - (side - 1) / 2) * cell_mm for p in pixel)
    depth_axis, column_axis, sign = geometry.view(view)
    lit = torch.zeros(grid)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in grid)).tolist():
        point = [(i - (n - 1) / 2) * geometry.volume_spacing_mm for i, n in zip(index, grid, strict=True)]
        shrink = 1.0
        if not geometry.is_parallel:
            shrink = (geometry.source_to_isocentre_mm - sign * point[depth_axis]) / geometry.source_to_detector_mm
        # A voxel between two pixel centres is lit in proportion to how near its shadow is.
        near = [
            max(0.0, 1 - abs(at - shrink * ray) / (shrink * cell_mm))
            for at, ray in ((point[column_axis], column_mm), (point[2], row_mm))
        ]
        lit[tuple(index)] = near[0] * near[1]
    assert 0 < int((lit > 1e-6).sum()) < lit.numel() // 8
    assert torch.allclose(h[0, 0], lit, atol=1e-5)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_off_grid_query_is_the_forward_pass_at_any_of_its_voxels(name: str) -> None:
    geometry, grid = GEOMETRIES[name], (8, 6, 4)
    decoder = spread_weights(ImplicitDecoder(geometry, grid, 16, 3, 4), scale=1.0)
    planes = [normal(2, 3, 16, 16, seed=i) for i in range(3)]
    points, some = grid_points_mm(geometry, grid), torch.tensor([150, 3, 77, 3])
    with torch.no_grad():
        h = decoder(*planes).flatten(2)
        assert torch.allclose(decoder.at(*planes, points), h, atol=2e-4)
        assert torch.allclose(decoder.at(*planes, points[some]), h[:, :, some], atol=2e-4)


def test_the_off_grid_query_is_continuous_and_differentiable_between_voxels() -> None:
    decoder = spread_weights(ImplicitDecoder(CARM, (8, 6, 4), 16, 3, 4), scale=1.0)
    planes = [normal(1, 3, 16, 16, seed=i) for i in range(3)]
    start, end = torch.tensor([-31.0, 12.0, 55.0]), torch.tensor([44.0, -63.0, -20.0])
    path = torch.lerp(start, end, torch.linspace(0, 1, 2001)[:, None]).requires_grad_()
    h = decoder.at(*planes, path)
    steps = (h[..., 1:] - h[..., :-1]).abs()
    assert steps.max() < 0.05 < (h.amax(dim=-1) - h.amin(dim=-1)).min()
    (gradient,) = torch.autograd.grad(h.sum(), path)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum(dim=0).min() > 0


# The whole conditioner


def test_conditions_have_the_grids_and_channels_asked_for() -> None:
    h = conditioner()(normal(2, 2, 32, 32))
    assert [tuple(x.shape) for x in h] == [(2, 3, 8, 12, 16), (2, 5, 4, 6, 8)]


def test_each_view_goes_its_own_way_to_its_own_plane() -> None:
    module, image = spread_weights(conditioner()), normal(2, 2, 32, 32)
    z = normal(2, *module.disturbance_shape)
    with torch.no_grad():
        x1, x2 = module.interleaved(module.stem[0](image[:, 0:1]), module.stem[1](image[:, 1:2]))
        uw, vw = module.encoder(x1), module.encoder(x2)
        uv = [fuse(a, b) for fuse, a, b in zip(module.fusion, uw, vw, strict=True)]
        uv[2] = module.embedding(uv[2], z)
        decoded = [module.decoder(plane) for plane in (uv, uw, vw)]
        for i, h in enumerate(module(image, z)):
            expected = module.implicit[i](*(plane[i] for plane in decoded))
            assert torch.allclose(h, expected, atol=1e-4)
            crossed = module.implicit[i](decoded[0][i], decoded[2][i], decoded[1][i])
            assert not torch.allclose(h, crossed, atol=1e-2)


def test_a_batch_is_its_exams() -> None:
    module, image = spread_weights(conditioner()), normal(2, 2, 32, 32)
    with torch.no_grad():
        for i in range(2):
            for together, alone in zip(module(image), module(image[i : i + 1]), strict=True):
                assert torch.allclose(together[i : i + 1], alone, atol=1e-4)
        assert not torch.allclose(module(image)[0][0], module(image)[0][1], atol=1e-2)


def test_z_reaches_every_condition_through_the_deepest_uv_level() -> None:
    module, image = spread_weights(conditioner()), normal(1, 2, 32, 32)
    assert module.disturbance_shape == (8, 4, 4)
    z = normal(1, *module.disturbance_shape)
    with torch.no_grad():
        for calm, disturbed in zip(module(image), module(image, z), strict=True):
            assert not torch.allclose(calm, disturbed, atol=1e-3)
        for calm, disturbed in zip(module(image), module(image, torch.zeros_like(z)), strict=True):
            assert torch.allclose(calm, disturbed, atol=1e-5)


@pytest.mark.parametrize("fusion", [ViewModulators, SumFusion, ResidualFusion])
@pytest.mark.parametrize("embedding", [LearnableEmbedding, NoEmbedding])
def test_every_ablation_conditions_and_every_weight_of_it_learns(fusion, embedding) -> None:
    module = spread_weights(conditioner(fusion=fusion, embedding=embedding))
    h = module(normal(1, 2, 32, 32), normal(1, *module.disturbance_shape))
    sum((x * normal(*x.shape, seed=1)).sum() for x in h).backward()
    silent = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plane_channels": (4, 6)}, "2 grids .*3 plane_channels .*got 2 and 2"),
        ({"condition_channels": (3, 5, 7)}, "2 grids .*2 condition_channels, got 3 and 3"),
        ({"stem_stride": 3}, "detector_pixels 32 .*divisible by 12"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conditioner(**changes)
