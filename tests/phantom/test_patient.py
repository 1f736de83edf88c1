"""Laws of what is drawn before a grid exists: every variation occurs, age and sex show, the spine is a spine."""

import dataclasses
import functools
import itertools

import pytest
import torch

from scripts.phantom.draw import Draw
from scripts.phantom.patient import RIB_PAIRS_MOST, Device, Patient
from scripts.phantom.tissue import Phase

COUNT = 200


@functools.cache
def patients() -> list[Patient]:
    """Cheap: nobody is painted."""
    return [Patient.drawn(Draw(seed), None) for seed in range(COUNT)]


VARIATIONS = {
    "female": lambda p: p.female,
    "arms down": lambda p: p.arms_down,
    "wide HU": lambda p: p.wide,
    "effusion": lambda p: max(p.lungs.effusion_mm) > 0,
    "emphysema": lambda p: p.lungs.emphysema > 0,
    "opacities": lambda p: p.lungs.opacities > 0,
    "aortic plaques": lambda p: p.plaques > 0,
    "oral contrast": lambda p: p.tissue.oral_hu is not None,
    "scoliosis": lambda p: abs(p.spine.scoliosis_mm) > 12,
    "fracture": lambda p: max(p.spine.wedges) > 0.15,
    "osteophytes": lambda p: max(p.spine.osteophytes) > 0.1,
    "11 pairs of ribs": lambda p: p.cage.pairs == 11,
    "13 pairs of ribs": lambda p: p.cage.pairs == 13,
    "obese": lambda p: p.fat_mm > 30,
    "lean": lambda p: p.fat_mm < 6,
    **{phase.value: lambda p, phase=phase: p.tissue.phase is phase for phase in Phase},
    **{device.value: lambda p, device=device: device in p.devices for device in Device},
}


@pytest.mark.parametrize("name", VARIATIONS)
def test_every_variation_occurs_and_none_always(name):
    assert 2 <= sum(map(VARIATIONS[name], patients())) <= 0.6 * COUNT


def test_most_patients_carry_no_device():
    assert 0.5 < sum(not p.devices for p in patients()) / COUNT < 0.8


def test_given_centre_changes_the_positioning_alone():
    for seed in range(20):
        drawn, given = (Patient.drawn(Draw(seed), centre) for centre in (None, 7.0))
        assert given.isocentre == (*drawn.isocentre[:2], 7.0)
        assert torch.equal(given.cage.shift_mm, drawn.cage.shift_mm)
        assert dataclasses.replace(given, isocentre=drawn.isocentre, cage=drawn.cage) == drawn


def test_age_thins_bone_and_bends_the_back():
    young, old = ([p for p in patients() if low < p.age_years < low + 25 and not p.wide] for low in (18, 65))

    def mean(values) -> float:
        return torch.tensor(list(values)).mean().item()

    assert mean(p.bone.spongy_hu for p in old) < mean(p.bone.spongy_hu for p in young) - 40
    assert mean(p.bone.thickness for p in old) < mean(p.bone.thickness for p in young)
    assert mean(p.spine.kyphosis for p in old) > mean(p.spine.kyphosis for p in young) + 0.1


def test_women_are_smaller_than_men_in_the_mean():
    heights = {sex: [p.scale[2] for p in patients() if p.female is sex] for sex in (True, False)}
    assert sum(heights[True]) / len(heights[True]) < sum(heights[False]) / len(heights[False])


def test_shell_of_bone_is_denser_than_its_filling():
    assert all(p.bone.cortical_hu > 1.5 * p.bone.spongy_hu > 0 and p.bone.thickness > 0.3 for p in patients())


def test_medium_is_in_the_arteries_before_it_is_in_the_urine():
    medians = {
        phase: torch.tensor(
            [(p.tissue.artery_hu, p.tissue.urine_hu) for p in patients() if p.tissue.phase is phase and not p.wide]
        ).median(0)[0]
        for phase in Phase
    }
    assert medians[Phase.ARTERIAL][0] > 200 and medians[Phase.ARTERIAL][1] < 30
    assert medians[Phase.EXCRETORY][1] > 150
    assert medians[Phase.NATIVE].max() < 70


@pytest.mark.parametrize("seed", range(8))
def test_spine_is_twelve_thoracic_and_five_lumbar_vertebrae_below_four_of_the_neck(seed):
    spine = patients()[seed].spine
    heights = [v.centre[2] for v in spine.vertebrae]
    assert heights == sorted(heights, reverse=True)
    assert [v.thoracic for v in spine.vertebrae] == [0] * 4 + list(range(1, 13)) + [0] * 5
    assert [v.lumbar for v in spine.vertebrae] == [False] * 16 + [True] * 5
    for v, below in itertools.pairwise(spine.vertebrae):
        gap = v.centre[2] - below.centre[2] - v.half_height - below.half_height
        assert gap == pytest.approx(v.half_disc + below.half_disc, abs=1e-3) and gap > 0


@pytest.mark.parametrize("seed", range(8))
def test_axes_of_a_vertebra_are_orthonormal_and_right_handed(seed):
    for v in patients()[seed].spine.vertebrae:
        torch.testing.assert_close(v.axes @ v.axes.T, torch.eye(3), atol=1e-5, rtol=0)
        assert torch.linalg.det(v.axes) == pytest.approx(1, abs=1e-5)


def test_vertebral_bodies_turn_to_the_convex_side():
    bent = dataclasses.replace(patients()[0].spine, scoliosis_mm=25.0)
    for v in bent.vertebrae:
        if abs(v.centre[0]) > 5:
            assert v.axes[1, 0] * v.centre[0] > 0


def test_every_rib_has_a_level():
    for p in patients():
        assert p.cage.shift_mm.shape == (2, RIB_PAIRS_MOST) and p.cage.pairs <= RIB_PAIRS_MOST
