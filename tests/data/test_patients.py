"""Laws of the patients that training draws from: phantoms never end, never return, and depend on the item alone."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from tests.refusal import refused
from torch.utils.data import DataLoader

from scripts.cases.phantoms import phantom_scans
from scripts.data import patients
from scripts.data.augment import RandomDeformation, WholeBody
from scripts.data.contrast import RandomContrast
from scripts.data.datasets import RandomViews, StreamSampler
from scripts.data.patients import FIRST_SEED, Always, EndlessPhantoms, Mixture, draw_phantom, mixture
from scripts.geometry import preset
from scripts.phantom.torso import torso

GEOMETRY = preset("carm", (8, 8, 8), 40.0, 8)
SPACING_MM = 30.0


def views(phantoms: EndlessPhantoms, share: float = 1.0, length: int = 12) -> RandomViews:
    """Of endless phantoms, and of one patient of water for the rest."""
    water = Always(WholeBody.of(torch.zeros(20, 20, 20), 20.0))
    mixed = Mixture([water, phantoms], torch.tensor([1 - share, share]))
    return RandomViews(mixed, GEOMETRY, RandomDeformation(), RandomContrast(), length)


@pytest.fixture
def drawn(monkeypatch) -> list[int]:
    """Seeds of the phantoms that this process draws, which are empty but for the seed."""
    seeds = []

    def draw(scan) -> np.ndarray:
        seeds.append(scan.seed)
        return np.full((2, 2, 2), scan.seed % 1000, dtype=np.int16)

    monkeypatch.setattr(patients, "draw_phantom", draw)
    return seeds


# ---------------------------------------------------------------------------------------------------------------------
# Which phantom an item shows
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reuse", "at_once"), [(1, 1), (1, 4), (3, 1), (4, 16), (5, 3), (6, 4)])
def test_every_phantom_of_a_long_stream_is_shown_as_often_as_asked_and_never_again(reuse, at_once):
    phantoms = EndlessPhantoms(SPACING_MM, reuse=reuse, at_once=at_once)
    shown = [phantoms.number(i) for i in range(60 * reuse)]
    counts = Counter(shown)
    assert {counts[n] for n in range(60 - at_once)} == {reuse}
    last, first = {n: i for i, n in enumerate(shown)}, {n: i for i, n in reversed(list(enumerate(shown)))}
    assert all(last[n] - first[n] < reuse * at_once for n in counts)


def test_neighbouring_items_show_different_phantoms():
    phantoms = EndlessPhantoms(SPACING_MM, reuse=64, at_once=16)
    shown = [phantoms.number(i) for i in range(2000)]
    assert all(len(set(shown[i : i + 16])) == 16 for i in range(1984))


def test_no_two_phantoms_and_no_phantom_of_an_evaluation_have_one_seed():
    phantoms = EndlessPhantoms(SPACING_MM)
    seeds = [phantoms.scan(number).seed for number in range(-15, 5000)]
    assert len(set(seeds)) == len(seeds)
    assert all(FIRST_SEED <= seed < 2**32 for seed in seeds)


def test_a_generator_knows_the_last_32_bits_of_a_seed_only():
    one, other = (torch.rand(3, generator=torch.Generator().manual_seed(seed)) for seed in (7, 2**40 + 7))
    assert torch.equal(one, other), "FIRST_SEED may be as large as one likes"


def test_another_seed_gives_other_phantoms():
    seeds = [{EndlessPhantoms(SPACING_MM, seed=s).scan(n).seed for n in range(1000)} for s in (0, 1, 2)]
    assert not seeds[0] & seeds[1] and not seeds[1] & seeds[2]


def test_the_share_with_metal_is_the_one_asked_for():
    phantoms = EndlessPhantoms(SPACING_MM, metal_fraction=0.1)
    assert sum(phantoms.scan(n).metal for n in range(1000)) == 100


# ---------------------------------------------------------------------------------------------------------------------
# Drawing
# ---------------------------------------------------------------------------------------------------------------------


def test_a_drawn_phantom_is_the_torso_of_its_seed_cut_to_its_body():
    scan = EndlessPhantoms(10.0).scan(3)
    hu = draw_phantom(scan)
    whole = torso(scan.seed, (45, 35, 45), 10.0, scan.metal).hu.round().numpy()
    assert hu.dtype == np.int16 and all(a <= b for a, b in zip(hu.shape, whole.shape, strict=True))
    corners = np.ndindex(*(b - a + 1 for a, b in zip(hu.shape, whole.shape, strict=True)))
    inside = [tuple(slice(at, at + n) for at, n in zip(corner, hu.shape, strict=True)) for corner in corners]
    assert any(np.array_equal(whole[box], hu) for box in inside)
    assert (whole > -300).sum() == (hu > -300).sum()


def test_a_phantom_is_drawn_once_for_all_its_turns(drawn):
    phantoms = EndlessPhantoms(SPACING_MM, reuse=4, at_once=8)
    for i in range(400):
        phantoms(i)
        assert len(phantoms.bodies) <= 8
    assert len(set(drawn)) == len(drawn) and 92 <= len(drawn) <= 107


def test_an_item_out_of_turn_is_the_same(drawn):
    one, other = (EndlessPhantoms(SPACING_MM, reuse=2, at_once=3) for _ in range(2))
    in_turn = {i: one(i).above_air for i in range(40)}
    assert all(torch.equal(other(i).above_air, in_turn[i]) for i in (39, 0, 17, 5, 38))


def test_items_do_not_depend_on_order_batches_or_workers():
    def data() -> RandomViews:
        return views(EndlessPhantoms(SPACING_MM, at_once=3), share=0.6, length=8)

    alone = [data()[i]["hu"] for i in range(8)]
    for processes in (0, 2):
        stream = data()
        loader = DataLoader(stream, batch_size=4, sampler=StreamSampler(stream), num_workers=processes)
        assert torch.equal(torch.cat([batch["hu"] for batch in loader]), torch.stack(alone))
    backwards = data()
    assert all(torch.equal(backwards[i]["hu"], alone[i]) for i in reversed(range(8)))


def test_a_resumed_stream_shows_what_an_unbroken_one_would():
    unbroken, resumed = (views(EndlessPhantoms(SPACING_MM, reuse=2, at_once=4), length=4) for _ in range(2))
    shown = []
    for epoch in range(3):
        sampler = StreamSampler(unbroken)
        sampler.set_epoch(epoch)
        shown = [unbroken[i]["hu"] for i in sampler]
    sampler = StreamSampler(resumed)
    sampler.set_epoch(2)
    assert all(torch.equal(resumed[i]["hu"], hu) for i, hu in zip(sampler, shown, strict=True))


@pytest.mark.slow
def test_phantoms_drawn_ahead_are_those_drawn_when_needed():
    here, ahead = EndlessPhantoms(SPACING_MM, reuse=2), EndlessPhantoms(SPACING_MM, reuse=2, workers=2)
    for i in (*range(20), 3, 500):
        assert torch.equal(here(i).above_air, ahead(i).above_air)
        assert len(ahead.bodies) + len(ahead.awaited) == 16 + 4
    ahead.pool.terminate()


# ---------------------------------------------------------------------------------------------------------------------
# Mixtures
# ---------------------------------------------------------------------------------------------------------------------


def test_phantoms_have_their_share(drawn):
    data = views(EndlessPhantoms(SPACING_MM), share=0.3)
    generators = [torch.Generator().manual_seed(i) for i in range(1000)]
    water = data.patients.sources[0].body
    phantoms = sum(data.patients.draw(i, g) is not water for i, g in enumerate(generators))
    assert phantoms / 1000 == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 1000))


def test_with_phantoms_alone_no_data_set_is_read():
    mixed = mixture({"/nowhere": 1.0}, 5.0, EndlessPhantoms(SPACING_MM), phantom_share=1)
    assert len(mixed.sources) == 1 and mixed.weights.tolist() == [1.0]


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_that_is_none_is_refused(share):
    with refused(ValueError, "phantom_share", "0 to 1", "got"):
        mixture({"/nowhere": 1.0}, 5.0, EndlessPhantoms(SPACING_MM), phantom_share=share)


@pytest.mark.parametrize("numbers", [{"reuse": 0}, {"at_once": 0}, {"workers": -1}])
def test_numbers_that_leave_nothing_to_draw_are_refused(numbers):
    with refused(ValueError, "phantom_reuse >= 1", "phantoms_at_once >= 1", "phantom_workers >= 0"):
        EndlessPhantoms(SPACING_MM, **numbers)


def test_prepared_phantoms_have_none_of_the_seeds_that_training_draws():
    assert len(phantom_scans(3, 2**31 - 3, 5.0, 0.0)) == 3
    with refused(ValueError, "2**31 - 1", "got 3", "2147483646", "first_seed"):
        phantom_scans(3, 2**31 - 2, 5.0, 0.0)
