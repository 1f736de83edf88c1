"""Laws of the data sets: what is drawn depends on seed and index alone, and processes share it without overlap."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.refusal import refused

from scripts.cases.manifest import case_folders
from scripts.data import patients
from scripts.data.augment import RandomDeformation, WholeBody
from scripts.data.contrast import RandomContrast
from scripts.data.datasets import PreparedCases, RandomViews, StreamSampler
from scripts.data.patients import Shelf, mixture
from scripts.geometry import BiplanarGeometry, preset
from scripts.io.case import CT_FILE, Volume, write_case

GEOMETRY = preset("carm", (8, 8, 8), 10.0, 8)
STILL = RandomDeformation(rotation_deg=0, scale=0, stretch=0, shift_mm=(0, 0, 0), displacement_mm=0)
SAME_CONTRAST = RandomContrast(0, 0, 0, 0, 0)


def grid(shape: tuple[int, int, int], spacing_mm: float) -> np.ndarray:
    return GEOMETRY.with_volume(shape, spacing_mm).volume_affine()


def random_hu(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1500, shape).astype(np.int16)


def make_case(folder: Path, source: np.ndarray, spacing_mm: float = 5.0) -> None:
    """A case of noise with the given whole body."""
    image = np.random.default_rng(0).random((2, 8, 8)).astype(np.float32)
    volumes = [Volume(random_hu((8, 8, 8), 0), grid((8, 8, 8), 10.0)), Volume(source, grid(source.shape, spacing_mm))]
    write_case(folder, GEOMETRY, image, *volumes, labels=None, record={})


def make_set(folder: Path, **splits: dict[str, np.ndarray]) -> Path:
    """A prepared data set: ``{split: {case: whole body}}``."""
    for cases in splits.values():
        for name, source in cases.items():
            make_case(folder / "cases" / name, source)
    (folder / "splits.json").write_text(json.dumps({split: list(cases) for split, cases in splits.items()}))
    return folder


@pytest.fixture(scope="module")
def noise_set(tmp_path_factory) -> Path:
    """Three patients of noise to train on, one to validate with."""
    train = {f"t{seed}": random_hu((16, 18, 20), seed) for seed in range(3)}
    return make_set(tmp_path_factory.mktemp("noise"), train=train, val={"v": random_hu((16, 16, 16), 9)})


def flat(value: int) -> np.ndarray:
    """A whole body of one HU, large enough to fill the grid however it is posed."""
    return np.full((40, 40, 40), value, dtype=np.int16)


# ---------------------------------------------------------------------------------------------------------------------
# Splits and prepared cases
# ---------------------------------------------------------------------------------------------------------------------


def test_prepared_case_is_what_was_written(noise_set):
    (item,) = PreparedCases(case_folders(noise_set, "val"), GEOMETRY)
    assert item["name"] == "v"
    np.testing.assert_allclose(item["line_integrals"], np.random.default_rng(0).random((2, 8, 8)), rtol=1e-6)
    assert np.array_equal(item["hu"][0], random_hu((8, 8, 8), 0)) and item["hu"].shape == (1, 8, 8, 8)


@pytest.mark.parametrize("other", [GEOMETRY.with_volume((8, 8, 8), 9.0), preset("chest", (8, 8, 8), 10.0, 8)])
def test_case_of_another_geometry_is_refused_with_both(noise_set, other):
    with refused(ValueError, "v: geometry Biplanar", "differs", "prepare"):
        list(PreparedCases(case_folders(noise_set, "val"), other))


def test_case_without_ct_is_refused(tmp_path):
    make_case(tmp_path / "case", random_hu((16, 16, 16), 0))
    (tmp_path / "case" / CT_FILE).unlink()
    with refused(ValueError, "case: ", "ct.nii.gz"):
        list(PreparedCases([tmp_path / "case"], GEOMETRY))


# ---------------------------------------------------------------------------------------------------------------------
# Random views
# ---------------------------------------------------------------------------------------------------------------------


def views(
    sets: Path | dict,
    deformation=None,
    seed: int = 0,
    geometry: BiplanarGeometry = GEOMETRY,
    contrast: RandomContrast = SAME_CONTRAST,
    kept: int | None = None,
) -> RandomViews:
    sets = sets if isinstance(sets, dict) else {str(sets): 1.0}
    drawn = mixture(sets, geometry.volume_spacing_mm, kept=kept)
    return RandomViews(drawn, geometry, deformation or RandomDeformation(), contrast, length=10, seed=seed)


def test_item_depends_on_seed_and_index_alone(noise_set):
    one, other = views(noise_set), views(noise_set)
    torch.manual_seed(1)
    forwards = [one[i]["hu"] for i in range(12)]
    torch.manual_seed(2)
    backwards = [other[i]["hu"] for i in reversed(range(12))]
    assert all(torch.equal(a, b) for a, b in zip(forwards, reversed(backwards), strict=True))


@pytest.mark.parametrize("kept", [0, 1, 5])
def test_reading_cts_when_they_are_drawn_changes_nothing(noise_set, kept):
    all_kept, read = views(noise_set), views(noise_set, kept=kept)
    assert all(torch.equal(all_kept[i]["hu"], read[i]["hu"]) for i in range(12))


def test_no_more_cts_are_kept_than_asked_and_the_last_used_ones(tmp_path, monkeypatch):
    opened, empty = [], WholeBody.of(torch.zeros(2, 2, 2), 1.0)
    monkeypatch.setattr(patients, "_load", lambda file, *_: opened.append(file) or empty)
    shelf = Shelf(2, 10.0)
    for name in "abacbca":
        shelf(Path(name))
        assert len(shelf.bodies) <= 2
    assert "".join(map(str, opened)) == "abcba"


def test_a_number_of_kept_cts_that_cannot_be_is_refused(noise_set):
    for wrong in (-1, 1.5, "many"):
        with refused(ValueError, "kept_cts", str(wrong)):
            views(noise_set, kept=wrong)


def test_the_contrast_is_drawn_anew_for_every_item(tmp_path):
    data = views(make_set(tmp_path, train={"a": flat(40)}), STILL, contrast=RandomContrast(soft_hu=10.0))
    means = torch.stack([data[i]["hu"].mean() for i in range(8)])
    assert len(set(means.tolist())) == 8 and 1 < means.std() < 30


def test_items_of_other_indices_and_seeds_differ(noise_set):
    items = [views(noise_set, seed=seed)[i]["hu"] for seed in (0, 1) for i in range(4)]
    assert not any(torch.equal(a, b) for i, a in enumerate(items) for b in items[:i])


def test_drawing_leaves_the_global_generator_alone(noise_set):
    data = views(noise_set)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    data[3]
    assert torch.equal(torch.get_rng_state(), before)


def test_undeformed_view_on_an_aligned_grid_is_the_block_averaged_ct(tmp_path):
    source = random_hu((16, 16, 16), 5)
    item = views(make_set(tmp_path, train={"a": source}), STILL)[0]["hu"]
    expected = F.avg_pool3d(torch.as_tensor(source, dtype=torch.float32)[None], 2)
    assert item.shape == (1, 8, 8, 8) and item.dtype == torch.float32
    torch.testing.assert_close(item, expected, atol=0.05, rtol=0)


def test_ct_as_coarse_as_the_grid_is_not_averaged(tmp_path):
    source = random_hu((16, 16, 16), 5)
    geometry = GEOMETRY.with_volume((16, 16, 16), 5.0)
    item = views(make_set(tmp_path, train={"a": source}), STILL, geometry=geometry)[0]["hu"]
    torch.testing.assert_close(item[0], torch.as_tensor(source, dtype=torch.float32), atol=0.05, rtol=0)


def test_smaller_ct_is_surrounded_by_air(tmp_path):
    item = views(make_set(tmp_path, train={"a": np.zeros((8, 8, 8), dtype=np.int16)}), STILL)[0]["hu"][0]
    assert (item[3:5, 3:5, 3:5] > -1).all() and (item[[0, -1]] == -1000).all()


def test_data_sets_are_drawn_in_their_proportions(tmp_path):
    sets = {
        str(make_set(tmp_path / "one", train={"a": flat(0)})): 1.0,
        str(make_set(tmp_path / "three", train={name: flat(500) for name in "bcd"})): 3.0,
    }
    data = views(sets, STILL)
    drawn = [data[i]["hu"].mean().item() > 250 for i in range(400)]
    assert sum(drawn) / 400 == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / 400))


def test_every_case_of_a_data_set_is_drawn_alike(tmp_path):
    data = views(make_set(tmp_path, train={f"{value}": flat(value) for value in (0, 300, 600)}), STILL)
    counts = np.bincount([round(data[i]["hu"].mean().item() / 300) for i in range(300)])
    assert (abs(counts / 300 - 1 / 3) < 4 * math.sqrt(2 / 9 / 300)).all()


def test_data_set_without_weight_is_never_drawn(tmp_path):
    sets = {
        str(make_set(tmp_path / "never", train={"a": flat(0)})): 0.0,
        str(make_set(tmp_path / "always", train={"b": flat(500)})): 1.0,
    }
    data = views(sets, STILL)
    assert all(data[i]["hu"].mean() > 250 for i in range(50))


@pytest.mark.parametrize("sets", [["a"], {}, {"a": 0.0}, {"a": -1.0, "b": 2.0}, {"a": math.nan}, {"a": "1"}])
def test_weights_that_are_no_proportions_are_refused(sets):
    with refused(ValueError, "training_sets", "proportion", "got"):
        mixture(sets, 10.0)


def test_only_the_training_split_is_drawn(tmp_path):
    data = views(make_set(tmp_path, train={"a": flat(0)}, val={"b": flat(500)}), STILL)
    assert len(data.patients.sources) == 1 and all(data[i]["hu"].abs().max() < 1 for i in range(20))


# ---------------------------------------------------------------------------------------------------------------------
# The stream
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_number_is_dealt_once_over_all_epochs_and_processes(processes):
    samplers = [StreamSampler(range(6), processes, rank) for rank in range(processes)]
    dealt = []
    for epoch in range(4):
        for sampler in samplers:
            sampler.set_epoch(epoch)
            dealt += list(sampler)
    assert sorted(dealt) == list(range(24))


def test_step_of_all_processes_together_is_the_step_of_one_with_their_common_batch():
    one, two = StreamSampler(range(8)), [StreamSampler(range(8), 2, rank) for rank in (0, 1)]
    alone = list(one)
    shared = list(zip(*two, strict=True))
    assert [tuple(alone[i : i + 2]) for i in range(0, 8, 2)] == shared


def test_resumed_stream_continues_where_it_was():
    unbroken, resumed = StreamSampler(range(5)), StreamSampler(range(5))
    for epoch in range(3):
        unbroken.set_epoch(epoch)
        list(unbroken)
    unbroken.set_epoch(3)
    resumed.set_epoch(3)
    assert list(resumed) == list(unbroken) == [15, 16, 17, 18, 19]


def test_length_is_the_share_of_one_process():
    assert len(StreamSampler(range(6), 3, 1)) == 2
