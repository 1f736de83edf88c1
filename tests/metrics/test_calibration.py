"""Laws of calibration: Gaussian closed forms against scipy, intervals against numpy, known coverages, invariances."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from tests.refusal import refused

from scripts.metrics.calibration import (
    LEVELS,
    Spread,
    calibration_error,
    coverage,
    fit_temperature,
    gaussian_crps,
    gaussian_nll,
    half_width,
    measure_calibration,
    rank_correlation,
    samples_coverage,
    samples_interval,
    spread_of,
)

N = 20_000
NOISE = 4 * math.sqrt(0.25 / N)  # four standard deviations of a share of N voxels, at most


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def posterior(count: int, confidence: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples and truth from one Gaussian per voxel, means and widths of all sizes; the samples' is narrowed."""
    mean, std = 300 * normal(N, seed=1), torch.exp(3 + normal(N, seed=2))
    return mean + std / confidence * normal(count, N, seed=3), mean + std * normal(N, seed=4)


def perfect(temperature: float = 1.0) -> Spread:
    """Errors at the very quantiles of their Gaussians, whose standard deviations are divided by ``temperature``."""
    quantiles = torch.from_numpy(stats.norm.ppf((np.arange(N) + 0.5) / N))
    std = torch.exp(normal(N))
    return Spread(quantiles * std, std / temperature)


# Coverage


@pytest.mark.parametrize("count", [5, 19, 200])
def test_gaussian_intervals_of_few_samples_cover_as_student_says(count):
    # (truth - mean) / std is sqrt(1 + 1/K) times Student's t of K - 1 degrees of freedom: nominal as K grows.
    expected = [stats.t(count - 1).cdf(half_width(level) / math.sqrt(1 + 1 / count)) * 2 - 1 for level in LEVELS]
    assert coverage(spread_of(*posterior(count))) == pytest.approx(expected, abs=NOISE)
    assert calibration_error(expected) < {5: 0.1, 19: 0.03, 200: 0.003}[count]


@pytest.mark.parametrize("count", [19, 40])
def test_intervals_between_samples_cover_nominally_without_any_gaussian(count):
    skewed = torch.exp(normal(count + 1, N))
    shares = samples_coverage(skewed[1:], skewed[0])
    reachable = [level for level in LEVELS if level <= (count - 1) / (count + 1)]
    assert shares[: len(reachable)] == pytest.approx(reachable, abs=2 * NOISE)
    assert all(math.isnan(share) for share in shares[len(reachable) :])
    assert len(reachable) == {19: 3, 40: 4}[count]


@pytest.mark.parametrize("count", [3, 10, 19, 40])
@pytest.mark.parametrize("level", [0.2, 0.5, 0.8, 0.9, 0.95])
def test_intervals_between_samples_are_numpys_weibull_quantiles(count, level):
    samples, interval = normal(count, 50), samples_interval(normal(count, 50), level)
    if level > (count - 1) / (count + 1):
        assert interval is None
        return
    expected = np.quantile(samples.numpy(), [(1 - level) / 2, (1 + level) / 2], axis=0, method="weibull")
    np.testing.assert_allclose(torch.stack(interval), expected, atol=1e-12)


def test_the_gaussian_interval_is_scipys():
    assert [half_width(level) for level in LEVELS] == pytest.approx([stats.norm.interval(p)[1] for p in LEVELS])


def test_coverage_grows_with_the_level_and_with_the_temperature():
    spread, levels = spread_of(*posterior(7)), [i / 50 for i in range(1, 50)]
    by_temperature = [coverage(spread.tempered(t), levels) for t in (0.5, 1.0, 2.0)]
    assert all(np.all(np.diff(shares) > 0) for shares in by_temperature)
    assert np.all(np.diff(by_temperature, axis=0) > 0)


def test_perfectly_calibrated_errors_have_no_calibration_error():
    assert calibration_error(coverage(perfect())) <= 1 / N
    assert calibration_error(coverage(perfect(3.0))) > 0.3


# The temperature


@pytest.mark.parametrize("confidence", [0.5, 1.0, 4.0])
def test_the_temperature_makes_an_over_or_under_confident_sampler_nominal(confidence):
    samples, truth = posterior(100, confidence)
    spread = spread_of(samples, truth)
    temperature = fit_temperature([spread])
    assert temperature == pytest.approx(math.sqrt(confidence**2 + 1 / 100), rel=0.02)  # the mean of 100 errs too
    assert coverage(spread.tempered(temperature)) == pytest.approx(LEVELS, abs=0.01)
    assert samples_coverage(samples, truth, temperature) == pytest.approx(LEVELS, abs=0.01)


@pytest.mark.parametrize("power", [1, 3])  # Gaussian errors, and heavy tails
def test_the_temperature_makes_the_mean_coverage_the_mean_level_exactly(power):
    spread = Spread(normal(N) ** power, 1 + normal(N, seed=1).abs())
    tempered = spread.tempered(fit_temperature([spread]))
    assert np.mean(coverage(tempered)) == pytest.approx(np.mean(LEVELS), abs=1 / N)


def test_the_temperature_is_the_likelihoods_where_the_errors_are_gaussian():
    spread = spread_of(*posterior(200, 3.0))
    likelihoods = (spread.error / spread.std).square().mean().sqrt()
    assert fit_temperature([spread]) == pytest.approx(likelihoods.item(), rel=0.02)
    around = [gaussian_nll(spread.tempered(t * likelihoods.item())) for t in (0.97, 1.0, 1.03)]
    assert min(around) == around[1]


def test_a_few_absurd_voxels_hardly_move_the_temperature():
    spread = perfect(2.0)
    error, std = spread.error.clone(), spread.std.clone()
    error[: N // 100] *= 1e4
    std[-N // 100 :] = 0
    assert fit_temperature([Spread(error, std)]) == pytest.approx(2.0, rel=0.03)


def test_the_temperature_scales_with_the_errors_and_against_the_spread():
    spread = spread_of(*posterior(9))
    fitted = fit_temperature([spread])
    assert fit_temperature([Spread(8 * spread.error, spread.std)]) == pytest.approx(8 * fitted)
    assert fit_temperature([spread.tempered(8)]) == pytest.approx(fitted / 8)
    assert fit_temperature([spread.tempered(fitted)]) == pytest.approx(1)


def test_cases_fitted_together_are_their_voxels_fitted_together():
    spread = spread_of(*posterior(9))
    parts = [Spread(*(v[piece] for v in spread)) for piece in (slice(0, 99), slice(99, N))]
    assert fit_temperature(parts) == fit_temperature([spread])


def test_no_temperature_fits_samples_that_do_not_vary_or_are_the_truth():
    error, zero = normal(N), torch.zeros(N, dtype=torch.float64)
    assert fit_temperature([Spread(error, zero)]) == math.inf
    assert fit_temperature([Spread(zero, error.abs())]) == fit_temperature([Spread(zero, zero)]) == 0


# Scores


@pytest.mark.parametrize(("error", "std"), [(0.0, 2.0), (3.0, 2.0), (-70.0, 15.0), (5.0, 400.0)])
def test_crps_is_the_integral_of_the_squared_distance_of_distributions(error, std):
    cdf = stats.norm(0, std).cdf
    below, above = (
        integrate.quad(lambda x: cdf(x) ** 2, -12 * std - abs(error), error),
        integrate.quad(lambda x: (1 - cdf(x)) ** 2, error, 12 * std + abs(error)),
    )
    one = Spread(*(torch.tensor([v], dtype=torch.float64) for v in (error, std)))
    assert gaussian_crps(one) == pytest.approx(below[0] + above[0], rel=1e-6)


def test_nll_is_scipys():
    spread = spread_of(*posterior(5))
    expected = -stats.norm(0, spread.std.clamp(min=1.0)).logpdf(spread.error).mean()
    assert gaussian_nll(spread) == pytest.approx(expected)


def test_scores_of_the_right_spread_beat_those_of_a_wrong_one():
    spread = spread_of(*posterior(200))
    for score in (gaussian_crps, gaussian_nll):
        wrong = [score(spread.tempered(t)) for t in (0.3, 0.7, 1.4, 3.0)]
        assert score(spread) < min(wrong)


def test_samples_without_spread_have_finite_scores():
    still = Spread(normal(N), torch.zeros(N, dtype=torch.float64))
    assert gaussian_crps(still) == gaussian_crps(Spread(still.error, torch.ones_like(still.std)))
    assert math.isfinite(gaussian_nll(still))


def test_rank_correlation_sees_the_order_alone():
    std = torch.exp(normal(200))
    sign = normal(200, seed=1).sign()
    assert rank_correlation(Spread(sign * std**3, std)) == pytest.approx(1)
    assert rank_correlation(Spread(sign / std, std)) == pytest.approx(-1)
    assert rank_correlation(Spread(normal(N), torch.exp(normal(N, seed=1)))) == pytest.approx(0, abs=0.03)
    assert math.isnan(rank_correlation(Spread(sign * std, torch.ones(200))))


# All measurements of a case


def test_a_temperature_changes_the_widths_but_neither_the_error_nor_the_order():
    samples, truth = posterior(19)
    raw, tempered = measure_calibration(samples, truth), measure_calibration(samples, truth, 2.5)
    for name in ("mae_hu", "rank_correlation"):
        assert tempered[name] == pytest.approx(raw[name])
    for name in ("width_90_hu", "width_90_bone_hu"):
        assert tempered[name] == pytest.approx(2.5 * raw[name])
    assert tempered["own_temperature"] == pytest.approx(raw["own_temperature"] / 2.5)
    assert math.isnan(raw["samples_coverage_95"]) and not math.isnan(raw["samples_coverage_90"])


def test_tissues_are_chosen_by_the_truth_and_missing_ones_are_empty():
    truth = torch.tensor([0.0] * 10 + [800.0] * 10)
    samples = torch.stack([truth - 10, truth + 10])
    samples[:, 10:] += 100  # far outside
    row = measure_calibration(samples, truth)
    assert row["coverage_90_soft"] == 1 and row["coverage_90_bone"] == 0
    assert row["coverage_50"] == row["coverage_95"] == 0.5
    assert math.isnan(row["coverage_90_lung"]) and math.isnan(row["width_90_lung_hu"])
    assert row["width_90_bone_hu"] == pytest.approx(2 * 1.6448536 * math.sqrt(200))


@pytest.mark.parametrize("shape", [(1, 4), (3, 5), (4,)])
def test_samples_that_have_no_spread_or_other_voxels_are_refused(shape):
    with refused(ValueError, "[K, N]", "K >= 2", "--samples 2"):
        spread_of(torch.zeros(shape), torch.zeros(4))
