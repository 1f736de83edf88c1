"""Random contrasts are increasing curves that leave air alone and move each tissue by what they say."""

import pytest
import torch

from scripts.data.contrast import ContrastCurve, RandomContrast
from scripts.intensity import AIR_HU

DEFAULT = RandomContrast()
STILL = RandomContrast(0, 0, 0, 0, 0)
HU = torch.linspace(-1100, 3000, 4101)


def curves(distribution: RandomContrast = DEFAULT, count: int = 300) -> list[ContrastCurve]:
    generator = torch.Generator().manual_seed(0)
    return [distribution.draw(generator) for _ in range(count)]


def test_without_spread_nothing_changes() -> None:
    (curve,) = curves(STILL, 1)
    torch.testing.assert_close(curve(HU), HU, atol=1e-2, rtol=0)


def test_every_curve_increases_and_leaves_air_as_it_is() -> None:
    for curve in curves():
        mapped = curve(HU)
        assert (mapped.diff() > 0).all()
        assert curve(torch.tensor(AIR_HU)) == pytest.approx(AIR_HU, abs=1e-2)


def test_the_curve_goes_through_its_nodes_and_is_straight_between_them() -> None:
    curve = ContrastCurve(torch.tensor([0.0, 100.0, 300.0]), torch.tensor([10.0, 60.0, 660.0]))
    hu = torch.tensor([-50.0, 0.0, 50.0, 100.0, 200.0, 300.0, 400.0])
    torch.testing.assert_close(curve(hu), torch.tensor([-15.0, 10.0, 35.0, 60.0, 360.0, 660.0, 960.0]))


def test_the_map_leaves_its_argument_alone() -> None:
    hu = HU.clone()
    curves(count=1)[0](hu)
    assert torch.equal(hu, HU)


@pytest.mark.parametrize(
    ("name", "hu", "spread"), [("lung_hu", -800.0, 40.0), ("fat_hu", -100.0, 12.0), ("soft_hu", 40.0, 8.0)]
)
def test_a_tissue_moves_by_its_standard_deviation(name: str, hu: float, spread: float) -> None:
    moved = torch.stack([curve(torch.tensor(hu)) for curve in curves(RandomContrast(**{name: spread}), 1000)])
    assert float(moved.mean()) == pytest.approx(hu, abs=4 * spread / 1000**0.5)
    assert float(moved.std()) == pytest.approx(0.97 * spread, rel=0.08)  # clipped at two standard deviations


def test_contrast_medium_and_bone_are_scaled_apart() -> None:
    few = {"lung_hu": 0, "fat_hu": 0, "soft_hu": 0}
    for curve in curves(RandomContrast(**few, enhancement=0.4, bone=0), 20):
        soft, blood, bone = curve(torch.tensor([40.0, 200.0, 1500.0])).tolist()
        assert soft == pytest.approx(40, abs=1e-2) and bone - blood == pytest.approx(1300, abs=0.1)
    for curve in curves(RandomContrast(**few, enhancement=0, bone=0.25), 20):
        soft, blood, bone = curve(torch.tensor([40.0, 200.0, 1500.0])).tolist()
        assert (soft, blood) == pytest.approx((40, 200), abs=1e-2) and 1300 * 0.6 < bone - blood < 1300 * 1.66


def test_the_same_state_draws_the_same_curve_and_the_next_another() -> None:
    one, two = curves(count=2)
    assert torch.equal(curves(count=1)[0].values_hu, one.values_hu)
    assert not torch.equal(one.values_hu, two.values_hu)
