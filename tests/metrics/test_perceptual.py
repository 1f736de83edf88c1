"""LPIPS against numpy, FID against SciPy and closed forms; nothing is measured without a backbone."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from tests.refusal import refused
from torch import Tensor, nn

from scripts.metrics.perceptual import NOTES, Backbone, Perceptual, SliceFeatures, frechet_distance, load_backbone
from scripts.metrics.slices import slices

SHAPE = (6, 5, 4)


class TwoMaps(nn.Module):
    """Two convolutions of different resolution; with LPIPS's weights, if given."""

    def __init__(self, linear: tuple[list[float], ...] = ()) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("fine", torch.randn(3, 3, 1, 1, generator=generator))
        self.register_buffer("coarse", torch.randn(2, 3, 2, 2, generator=generator))
        for i, weights in enumerate(linear):
            self.register_buffer(f"lin{i}", torch.tensor(weights).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [torch.conv2d(x, self.fine) + 0.5, torch.conv2d(x, self.coarse, stride=2)]


class Moments(nn.Module):
    """Three features of every slice: mean, mean square, and one pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x.mean((1, 2, 3)), x.square().mean((1, 2, 3)), x[:, 0, 0, 0]], 1)


class Map(nn.Module):
    """The slice itself and its square, as a map."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x.square()], 1)


def volumes(seed: int, batch: int = 1, spread: float = 1.0) -> Tensor:
    return spread * torch.randn(batch, 1, *SHAPE, generator=torch.Generator().manual_seed(seed))


def features(seed: int, n: int, d: int) -> Tensor:
    """Correlated features ``[n, d]``."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mixing + torch.rand(d, generator=generator)


def white(seed: int, n: int, d: int) -> Tensor:
    """``[n, d]`` whose sample mean is exactly 0 and whose sample covariance exactly the identity."""
    x = features(seed, n, d)
    return torch.linalg.qr(x - x.mean(0)).Q * math.sqrt(n - 1)


def by_scipy(a: Tensor, b: Tensor, root=lambda p, q: scipy.linalg.sqrtm(p @ q)) -> float:
    p, q = np.cov(a.numpy(), rowvar=False), np.cov(b.numpy(), rowvar=False)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(p + q - 2 * root(p, q).real))


def test_frechet_distance_is_scipys():
    a, b = features(0, 60, 6), features(1, 50, 6)
    assert frechet_distance(a, b).item() == pytest.approx(by_scipy(a, b), rel=1e-9)

    def as_if_they_commuted(p, q):
        return scipy.linalg.sqrtm(p) @ scipy.linalg.sqrtm(q)

    assert abs(frechet_distance(a, b).item() / by_scipy(a, b, as_if_they_commuted) - 1) > 0.01


def test_frechet_distance_of_fewer_vectors_than_features_is_scipys_with_symmetric_roots():
    a, b = features(0, 7, 12), features(1, 5, 12)

    def symmetric(p, q):
        """(P^(1/2) Q P^(1/2))^(1/2), of matrices that have real roots although they are singular."""
        values, vectors = scipy.linalg.eigh(p)
        half = vectors * np.sqrt(values.clip(0)) @ vectors.T
        return np.diag(np.sqrt(scipy.linalg.eigvalsh(half @ q @ half).clip(0)))

    assert frechet_distance(a, b).item() == pytest.approx(by_scipy(a, b, symmetric), rel=1e-6)


@pytest.mark.parametrize("n, d", [(30, 4), (9, 8)])
def test_frechet_distance_of_gaussians_with_common_axes_is_the_closed_form(n, d):
    rotation = torch.linalg.qr(features(2, d, d)).Q
    scale_a, scale_b, shift = torch.linspace(0.5, 2, d), torch.linspace(3, 0, d), torch.linspace(-1, 1, d)  # one is 0
    a, b = white(0, n, d) * scale_a @ rotation.T, (white(1, n, d) * scale_b + shift) @ rotation.T
    expected = shift.square().sum() + (scale_a - scale_b).square().sum()
    torch.testing.assert_close(frechet_distance(a, b), expected.double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("n, d", [(40, 5), (3, 20), (2, 1)])
def test_frechet_distance_of_a_shift_is_its_square_and_of_equal_sets_zero(n, d):
    a = features(0, n, d).float()
    assert frechet_distance(a, a).item() == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 0.5).item() == pytest.approx(0.25 * d, rel=1e-5)


def test_frechet_distance_is_symmetric_and_ignores_the_order():
    a, b = features(0, 8, 10), features(1, 12, 10)
    torch.testing.assert_close(frechet_distance(a, b), frechet_distance(b, a))
    torch.testing.assert_close(frechet_distance(a, b), frechet_distance(a.flip(0), b))


@pytest.mark.parametrize("a, b, message", [
    ((5, 3), (5, 4), r"of one backbone, got \(5, 3\) and \(5, 4\)"), ((5, 3, 2), (5, 3, 2), "of one backbone"),
    ((1, 3), (5, 3), "at least 2 vectors, got 1 and 5"),
])  # fmt: skip
def test_frechet_distance_refuses_what_has_no_covariance_or_differs(a, b, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(torch.zeros(a), torch.zeros(b))


def lpips_of_images(p: np.ndarray, t: np.ndarray, network: TwoMaps, weights) -> float:
    """One pair of slices, pixel by pixel."""
    total = 0.0
    images = (torch.from_numpy(image)[None, None].repeat(1, 3, 1, 1) for image in (p, t))
    for fp, ft, w in zip(*(network(image) for image in images), weights, strict=True):
        fp, ft = (f[0].reshape(f.shape[1], -1).double().numpy() for f in (fp, ft))
        fp, ft = fp / np.linalg.norm(fp, axis=0), ft / np.linalg.norm(ft, axis=0)
        total += (np.array(w) @ (fp - ft) ** 2).mean()
    return total


@pytest.mark.parametrize("linear", [(), ([0.5, 0.0, 2.0], [1.0, 0.1])])
@pytest.mark.parametrize("batch_size", [4, 32])
def test_lpips_is_numpys_slice_by_slice(linear, batch_size):
    network = TwoMaps(linear)
    p, t = volumes(0, batch=2), volumes(1, batch=2)
    expected = [
        [
            np.mean([lpips_of_images(x.numpy(), y.numpy(), network, linear or ([1] * 3, [1] * 2)) for x, y in pairs])
            for pairs in (list(zip(slices(p, axis)[i], slices(t, axis)[i], strict=True)) for axis in range(3))
        ]
        for i in range(2)
    ]
    ours = Perceptual(Backbone(network, batch_size=batch_size))(p, t)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    columns = Perceptual(Backbone(network)).measure(p[:1], t[:1])
    assert list(columns) == ["lpips_u", "lpips_v", "lpips_w"]
    np.testing.assert_allclose(list(columns.values()), expected[0], rtol=1e-5)


def test_lpips_of_the_truth_is_zero_and_grows_with_the_error():
    lpips, t = Perceptual(Backbone(TwoMaps())), volumes(0)
    assert (lpips(t, t) == 0).all()
    values = torch.cat([lpips(t + s * volumes(1), t) for s in (0.01, 0.1, 1.0)])
    assert (values.diff(dim=0) > 0).all()


def test_lpips_needs_maps_and_a_weight_per_channel():
    for network, found in ((Moments(), "[(3,)]"), (TwoMaps(([1.0, 1.0],)), "[2] weights")):
        with refused(ValueError, "linear weights", "channels", found):
            Perceptual(Backbone(network))(volumes(0), volumes(1))


def test_lpips_refuses_volumes_of_different_shape():
    with pytest.raises(ValueError, match="differ in shape"):
        Perceptual(None)(volumes(0), volumes(0)[..., 1:])


@pytest.mark.parametrize("network", [Moments(), Map()])
def test_fid_is_the_distance_of_all_slices_of_all_cases_by_axis(network):
    backbone = Backbone(network, channels=1, batch_size=4)
    truths, good, bad = ([volumes(10 * k + i, spread=s) for i in range(3)] for k, s in enumerate((1.0, 1.1, 2.0)))
    fid = SliceFeatures(backbone)
    for case in range(3):
        fid.add(truths[case], {("a", "single"): good[case], ("b", "single"): bad[case]})
    columns = fid.finish()
    assert list(columns) == [("a", "single"), ("b", "single")]

    def of(cases, axis):
        x = slices(torch.cat(cases), axis).flatten(0, 1)[:, None]
        return network(x).mean((2, 3)) if network(x).ndim == 4 else network(x)

    for key, estimates in ((("a", "single"), good), (("b", "single"), bad)):
        expected = [frechet_distance(of(estimates, axis), of(truths, axis)).item() for axis in range(3)]
        assert columns[key] == pytest.approx(dict(zip(("fid_u", "fid_v", "fid_w"), expected, strict=True)), rel=1e-4)
    assert all(columns["b", "single"][name] > 2 * value for name, value in columns["a", "single"].items())


def test_fid_of_the_truth_is_zero():
    fid = SliceFeatures(Backbone(Moments()))
    for seed in range(2):
        fid.add(volumes(seed), {"truth": volumes(seed)})
    assert all(value == pytest.approx(0, abs=1e-9) for value in fid.finish()["truth"].values())


def test_fid_refuses_several_maps():
    with refused(ValueError, "fid", "one vector"):
        SliceFeatures(Backbone(TwoMaps())).add(volumes(0), {"a": volumes(1)})


def test_without_a_backbone_nothing_is_measured():
    assert load_backbone(None) is None
    lpips, fid = Perceptual(None), SliceFeatures(None)
    assert all(math.isnan(value) for value in lpips.measure(volumes(0), volumes(1)).values())
    fid.add(volumes(0), {"a": volumes(0)})
    assert list(fid.finish()) == ["a"] and all(math.isnan(value) for value in fid.finish()["a"].values())


def test_a_backbone_is_a_torchscript_file_with_its_linear_weights(tmp_path):
    network = TwoMaps(([0.5, 0.0, 2.0], [1.0, 0.1]))
    torch.jit.script(network).save(tmp_path / "backbone.ts")
    loaded = load_backbone(tmp_path / "backbone.ts")
    assert [weights.tolist() for weights in loaded.linear_weights()] == [[0.5, 0.0, 2.0], [1.0, pytest.approx(0.1)]]
    pair = volumes(0), volumes(1)
    torch.testing.assert_close(Perceptual(loaded)(*pair), Perceptual(Backbone(network))(*pair))


def test_a_damaged_backbone_is_refused(tmp_path):
    path = tmp_path / "backbone.ts"
    torch.jit.script(TwoMaps(([0.5, 0.0, 2.0], [1.0, 0.1]))).save(path)
    value = torch.tensor([0.5, 0.0, 2.0]).numpy().tobytes()
    path.write_bytes(path.read_bytes().replace(value, bytes([value[0] ^ 1]) + value[1:]))
    with refused(ValueError, "backbone.ts", "damaged", "checksum"):
        load_backbone(path)


def test_files_that_are_no_backbone_are_refused(tmp_path):
    with refused(ValueError, "none.ts", "no such backbone", "TorchScript"):
        load_backbone(tmp_path / "none.ts")
    torch.save(TwoMaps().state_dict(), tmp_path / "weights.pt")
    (tmp_path / "text.ts").write_text("no network")
    for name in ("weights.pt", "text.ts"):
        with refused(ValueError, name, "TorchScript", "torch.jit.script"):
            load_backbone(tmp_path / name)


def test_features_that_are_not_finite_are_refused_and_not_taken_for_unmeasured():
    broken = volumes(1)
    broken[0, 0, 0, 0, 0] = math.nan
    with refused(ValueError, "features", "(4, 5)", "NaN"):
        SliceFeatures(Backbone(Moments())).add(volumes(0), {"a": broken})


def test_every_column_is_explained():
    text = " ".join(NOTES)
    assert all(f"`{name}`" in text for name in ("lpips_u", "fid_u", "_v", "_w")) and "not measured" in text
