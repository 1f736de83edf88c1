"""The sensitivity study: perturbed radiographs are what they say, and their cost is that of a method known in full."""

import csv
import json
import math

import pytest
import torch
from tests.refusal import refused
from torch import nn

from scripts.geometry import VIEWS, preset
from scripts.intensity import network_to_hu
from scripts.io.errors import SomeFailed
from scripts.physics.pose import seen_from
from scripts.studies.sensitivity import UNPERTURBED, SensitivityStudy, perturbations

N = 12
GEOMETRY = preset("carm", (N, N, N), 20.0, N)
CPU = torch.device("cpu")
FOUND = perturbations(GEOMETRY, CPU, [90, -5], [1.2, 0.5], [1.05])
MU = torch.rand(1, 1, N, N, N, generator=torch.Generator().manual_seed(0)) * 0.02
PLAIN = FOUND[UNPERTURBED](MU)


def test_one_thing_is_perturbed_at_a_time_and_the_first_is_none():
    turned = [f"{views} turned by {turn} deg" for views in ("lateral view", "both views") for turn in ("+90", "-5")]
    assert list(FOUND) == ["unperturbed", *turned, "exposure x 1.2", "exposure x 0.5", "gain x 1.05"]


def test_exposure_and_gain_are_an_exact_offset_and_factor():
    torch.testing.assert_close(FOUND["exposure x 1.2"](MU), PLAIN - math.log(1.2))
    torch.testing.assert_close(FOUND["exposure x 0.5"](MU), PLAIN + math.log(2))
    torch.testing.assert_close(FOUND["gain x 1.05"](MU), 1.05 * PLAIN)


def test_a_turned_lateral_view_leaves_the_frontal_one_alone():
    for turn in ("+90", "-5"):
        lateral, both = (FOUND[f"{views} turned by {turn} deg"](MU) for views in ("lateral view", "both views"))
        assert torch.equal(lateral[:, 0], PLAIN[:, 0]) and torch.equal(lateral[:, 1], both[:, 1])
        assert not torch.allclose(both, PLAIN, rtol=1e-3)


def test_both_views_turned_are_a_patient_turned_the_other_way():
    quarter = torch.tensor([[[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]])
    turned = seen_from(MU, quarter, torch.zeros(1, 3), 20.0)
    torch.testing.assert_close(FOUND["both views turned by +90 deg"](MU), FOUND[UNPERTURBED](turned))


class MeanBrightness:
    """A method that answers with a uniform volume, the mean of the lateral image, and keeps what it was shown."""

    def __init__(self):
        self.images = []

    def __call__(self, image, network):
        self.images.append(image)
        return image[:, 1].mean().expand(1, 1, N, N, N)


def case(name: str, value: float) -> dict:
    return {"name": name, "hu": network_to_hu(torch.zeros(1, N, N, N)) + value}


def seen(offset: float = 0.0, gain: float = 1.0):
    """Radiographs of whatever CT: line integrals 4, brighter or stronger."""
    return lambda mu: torch.full((1, 2, 8, 8), gain * 4.0) + offset


def study(folder, inferer, cases, views=VIEWS, perturbed=None, failures=()):
    perturbed = {UNPERTURBED: seen(), "offset": seen(-1.0), "gain": seen(gain=0.5)} if perturbed is None else perturbed
    return SensitivityStudy(nn.Identity(), inferer, CPU, perturbed, views, cases, dict(failures), folder, {"seed": 7})


def test_the_cost_of_each_perturbation_is_that_of_the_closed_form(tmp_path, capsys):
    # The truth is 0 and the answer a quarter of the line integrals, so PSNR = 20 log10(2 / answer).
    study(tmp_path / "out", MeanBrightness(), [case("a", 0), case("b", 0)])()
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    rows = {row["method"]: {key: value["mean"] for key, value in row["metrics"].items()} for row in found["methods"]}
    for name, answer in {"unperturbed": 1.0, "offset": 0.75, "gain": 0.5}.items():
        assert rows[name]["psnr3d_db"] == pytest.approx(20 * math.log10(2 / answer), abs=1e-3)
        assert rows[name]["psnr3d_db_change"] == pytest.approx(-20 * math.log10(answer), abs=1e-3)
    cases = list(csv.DictReader((tmp_path / "out" / "cases.csv").open()))
    assert [(row["case"], row["method"]) for row in cases] == [(c, name) for c in "ab" for name in rows]
    page = (tmp_path / "out" / "summary.md").read_text()
    assert "| gain | 12.04 | +6.02 | " in page and "- seed: 7" in page and "- cases: 2" in page
    assert "| gain | 12.04 | +6.02 | " in capsys.readouterr().out


def test_a_view_that_the_method_is_not_shown_is_zero_however_it_was_taken(tmp_path):
    method = MeanBrightness()
    study(tmp_path, method, [case("a", 0)], views=["frontal"])()
    assert all(image[:, 0].any() and not image[:, 1].any() for image in method.images)


def test_a_lost_case_fails_the_run_and_costs_no_other(tmp_path):
    def nan_for_bone(image, network):
        return torch.full((1, 1, N, N, N), math.nan if image.max() > 4 else 0.5)

    perturbed = {UNPERTURBED: lambda mu: torch.full((1, 2, 8, 8), 400 * mu.max().item())}
    cases = [case("a", 0), case("bone", 2000), case("c", 0)]
    with refused(SomeFailed, "2 of 4 cases", "\nx: no CT\nbone: ", "NaN"):
        study(tmp_path, nan_for_bone, cases, perturbed=perturbed, failures={"x": "x: no CT"})()
    assert [row["case"] for row in csv.DictReader((tmp_path / "cases.csv").open())] == ["a", "c"]


def test_without_a_case_nothing_is_written(tmp_path):
    def broken(image, network):
        return torch.full((1, 1, N, N, N), math.nan)

    with refused(ValueError, "no case", "\na: ", "NaN"):
        study(tmp_path / "out", broken, [case("a", 0)])()
    assert not (tmp_path / "out").exists()
