"""One reconstruction, all columns."""

import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from tests.refusal import refused

from scripts.geometry import preset
from scripts.intensity import hu_to_mu, hu_to_network, network_to_hu
from scripts.metrics.protocol import NOTES, measure
from scripts.metrics.slices import slice_psnr, slice_ssim, x2ct_compat
from scripts.physics.separable import SeparableProjector

SHAPE = (16, 16, 16)
PROJECTOR = SeparableProjector(preset("carm", SHAPE, 20.0, 24))


@pytest.fixture(scope="module")
def case() -> tuple[torch.Tensor, torch.Tensor]:
    """A true volume in network range, with all tissues, and its radiographs."""
    hu = torch.full((1, 1, *SHAPE), -1000.0)
    hu[..., 3:13, 3:13, :] = 40.0
    hu[..., 5:8, 5:11, :] = -800.0
    hu[..., 9:11, 4:6, :] = 700.0
    hu += 20 * torch.randn(hu.shape, generator=torch.Generator().manual_seed(0))
    return hu_to_network(hu), PROJECTOR(hu_to_mu(hu))


def test_the_truth_is_measured_as_perfect(case):
    target, line_integrals = case
    row = measure(target, target, line_integrals, PROJECTOR)
    assert row["psnr3d_db"] == math.inf and row["ssim3d"] == pytest.approx(1)
    assert all(value == 100 for name, value in row.items() if name.startswith("psnr2d")) and row["psnr2d_db"] == 100
    assert all(value == pytest.approx(1) for name, value in row.items() if name.startswith("ssim2d"))
    assert row["x2ct_compat_psnr_db"] == 100 and row["x2ct_compat_ssim"] == pytest.approx(1)
    assert all(row[f"bone_{name}"] == 1 for name in ("dice", "precision", "recall", "volume_ratio"))
    assert all(row[f"gradient_ratio_{axis}"] == 1 for axis in "uvw")
    assert all(value == 0 for name, value in row.items() if name.endswith("_hu"))
    assert all(value < 1e-4 for name, value in row.items() if name.startswith("reprojection"))


def test_image_metrics_take_the_networks_data_range_of_two(case):
    target, line_integrals = case
    prediction = (target + 0.1).clamp(-1, 1)
    row = measure(prediction, target, line_integrals, PROJECTOR)
    p, t = prediction.squeeze().double().numpy(), target.squeeze().double().numpy()
    ssim = structural_similarity(t, p, data_range=2, gaussian_weights=True, use_sample_covariance=False)
    assert row["psnr3d_db"] == pytest.approx(peak_signal_noise_ratio(t, p, data_range=2), rel=1e-5)
    assert row["ssim3d"] == pytest.approx(ssim, abs=2e-5)


def test_slice_metrics_stand_beside_those_of_the_volume(case):
    target, line_integrals = case
    prediction = (target + 0.1 * torch.randn(target.shape, generator=torch.Generator().manual_seed(1))).clamp(-1, 1)
    row = measure(prediction, target, line_integrals, PROJECTOR)
    for name, unit, metric in (("psnr2d", "_db", slice_psnr), ("ssim2d", "", slice_ssim)):
        by_axis = [row[f"{name}_{axis}{unit}"] for axis in "uvw"]
        assert by_axis == metric(prediction, target, 2.0)[0].tolist()
        assert row[name + unit] == pytest.approx(sum(by_axis) / 3)
    compat = x2ct_compat(network_to_hu(prediction), network_to_hu(target))
    assert (row["x2ct_compat_psnr_db"], row["x2ct_compat_ssim"]) == (compat.psnr_db.item(), compat.ssim.item())


def test_errors_land_in_the_tissue_they_were_made_in(case):
    target, line_integrals = case
    hu = network_to_hu(target)
    row = measure(hu_to_network(torch.where(hu > 200, hu - 150, hu)), target, line_integrals, PROJECTOR)
    assert row["bias_bone_hu"] == pytest.approx(-150, abs=0.1) and row["mae_bone_hu"] == pytest.approx(150, abs=0.1)
    assert all(abs(row[f"{kind}_{t}_hu"]) < 1e-2 for kind in ("mae", "bias") for t in ("air", "lung", "soft"))
    assert row["reprojection"] > 0.01


def test_a_tissue_that_is_absent_is_nan_and_not_zero():
    target = hu_to_network(torch.full((1, 1, *SHAPE), 40.0))
    row = measure(target, target, torch.ones(1, 2, 24, 24), PROJECTOR)
    assert row["mae_soft_hu"] == 0 and math.isnan(row["mae_bone_hu"]) and math.isnan(row["bias_lung_hu"])
    assert all(math.isnan(row[f"bone_{name}"]) for name in ("dice", "precision", "recall", "volume_ratio"))


def test_bone_is_everything_from_200_hu_on_and_no_brighter_than_the_clipped_range(case):
    target, line_integrals = case
    hu = network_to_hu(target)
    halved = hu.clone()
    halved[..., 8:][hu[..., 8:] >= 200] = 199  # the bone runs along w
    row = measure(hu_to_network(halved), target, line_integrals, PROJECTOR)
    assert row["bone_volume_ratio"] == 0.5 and row["bone_dice"] == pytest.approx(2 / 3) and row["bone_precision"] == 1
    assert row["bone_recall"] == 9 / 16  # one voxel beyond the end is near enough
    brighter = measure(hu_to_network(torch.where(hu >= 200, 3000.0, hu)), target, line_integrals, PROJECTOR)
    assert brighter["bone_dice"] == brighter["bone_volume_ratio"] == 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reconstruction_that_is_not_finite_is_refused(case, value):
    target, line_integrals = case
    prediction = target.clone()
    prediction[0, 0, 0, 0, :2] = value
    with refused(ValueError, "2 of 4096 voxels", "NaN", "--amp false"):
        measure(prediction, target, line_integrals, PROJECTOR)


def test_every_column_is_explained(case):
    text = " ".join(NOTES)
    for name in measure(case[0], *case, PROJECTOR):
        stem = name.replace("_frontal", "").replace("_lateral", "")
        for tissue in ("air", "lung", "soft", "bone"):
            stem = stem.replace(f"_{tissue}_hu", "_hu")
        assert f"`{stem}`" in text or f"`_{stem[-1]}`" in text, name
