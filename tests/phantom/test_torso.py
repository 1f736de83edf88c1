"""Laws of the procedural torso: it depends on the seed alone, it is laid out like a patient, and its HU are a CT's."""

import functools
import itertools
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from scripts.phantom.canvas import Label
from scripts.phantom.draw import Draw
from scripts.phantom.patient import Patient
from scripts.phantom.torso import Phantom, torso

# Patients whose tissues have the HU of patients.
SEEDS = tuple(itertools.islice((s for s in itertools.count() if not Patient.drawn(Draw(s), None).wide), 2))
CHEST_MM, PELVIS_MM = 150.0, -220.0
BODY_SHAPE = (84, 64, 150)  # at 5 mm: from the neck to the thighs


@functools.cache
def whole(seed: int) -> Phantom:
    """A patient from the neck to the thighs."""
    return torso(seed, BODY_SHAPE, 5.0, centre_mm=-10.0)


@functools.cache
def instrumented(seed: int) -> Phantom:
    """The metal of an operated spine, in fine voxels."""
    return torso(seed, (80, 80, 80), 2.5, metal=True)


def dilate(mask: torch.Tensor, steps: int) -> torch.Tensor:
    """The mask grown by `steps` voxels along every axis."""
    grown = mask.float()[None, None]
    for _ in range(steps):
        grown = F.max_pool3d(grown, 3, stride=1, padding=1)
    return grown[0, 0] > 0


def pieces(mask: torch.Tensor) -> int:
    """How many parts of a mask are connected by neighbouring voxels, diagonal ones too."""
    return ndimage.label(mask.numpy(), np.ones((3, 3, 3)))[1]


def centroid(mask: torch.Tensor) -> torch.Tensor:
    """Mean index (u, v, w) of the voxels of a mask."""
    return mask.nonzero().double().mean(0)


def test_same_seed_gives_same_phantom():
    first, second = torso(3, (24, 24, 24), 12.0, metal=True), torso(3, (24, 24, 24), 12.0, metal=True)
    assert torch.equal(first.hu, second.hu) and torch.equal(first.labels, second.labels)


def test_global_random_state_is_neither_read_nor_changed():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = torso(3, (8, 8, 8), 40.0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(torso(3, (8, 8, 8), 40.0).hu, first.hu)


def test_different_seeds_give_different_patients():
    patients = [torso(seed, (32, 32, 32), 10.0, centre_mm=CHEST_MM) for seed in range(3)]
    for i, one in enumerate(patients):
        for other in patients[:i]:
            assert (one.hu - other.hu).abs().mean() > 40
            assert (one.labels != other.labels).float().mean() > 0.05


def test_drawn_centres_reach_from_chest_to_pelvis():
    labels = [torso(seed, (20, 20, 20), 14.0).labels for seed in range(8)]
    for label in (Label.HEART, Label.PELVIS):
        holds = [bool((part == label).any()) for part in labels]
        assert any(holds) and not all(holds)


def test_given_centre_moves_the_field_of_view_and_not_the_anatomy():
    # In the millimetres of an average adult, so the shift in voxels depends on the patient: compare the volumes.
    high, low = torso(SEEDS[0], BODY_SHAPE, 5.0, centre_mm=10.0).labels, whole(SEEDS[0]).labels
    for label in (Label.HEART, Label.LIVER, Label.LUNG):
        assert int((high == label).sum()) == pytest.approx(int((low == label).sum()), rel=0.03)
    assert centroid(high == Label.LIVER)[2] < centroid(low == Label.LIVER)[2] - 2


def test_output_has_the_shape_and_types_of_the_contract():
    phantom = torso(0, (9, 10, 11), 30.0)
    assert phantom.hu.shape == phantom.labels.shape == (9, 10, 11)
    assert phantom.hu.dtype == torch.float32 and phantom.labels.dtype == torch.uint8


@pytest.mark.parametrize("seed", SEEDS)
def test_anatomy_does_not_depend_on_resolution(seed):
    coarse = torso(seed, (32, 28, 32), 10.0, centre_mm=CHEST_MM)
    fine = torso(seed, (64, 56, 64), 5.0, centre_mm=CHEST_MM)
    pooled = F.avg_pool3d(fine.hu[None, None], 2)[0, 0]
    assert (pooled - coarse.hu).abs().mean() < 25
    for label in (Label.LUNG, Label.HEART, Label.LIVER, Label.SOFT_TISSUE, Label.FAT, Label.SKIN):
        volume = 8 * int((coarse.labels == label).sum())
        assert volume == pytest.approx(int((fine.labels == label).sum()), rel=0.15), label.name


def test_anatomy_does_not_depend_on_the_extent_of_the_grid():
    large = torso(2, (48, 44, 48), 8.0)
    small = torso(2, (20, 24, 16), 8.0)
    inner = (slice(14, 34), slice(10, 34), slice(16, 32))
    torch.testing.assert_close(large.hu[inner], small.hu, atol=0.05, rtol=0)
    assert (large.labels[inner] != small.labels).float().mean() < 1e-3


@pytest.mark.parametrize("seed", SEEDS)
def test_every_tissue_is_present_in_a_whole_torso(seed):
    patient, found = Patient.drawn(Draw(seed), None), set(whole(seed).labels.unique().tolist())
    sometimes = {Label.METAL, Label.DEVICE, Label.EFFUSION, Label.HUMERUS, Label.FOREARM}
    assert found | sometimes == set(Label)
    assert ({Label.HUMERUS, Label.FOREARM} <= found) == patient.arms_down
    assert (Label.EFFUSION in found) == (max(patient.lungs.effusion_mm) > 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_chest_view_holds_the_chest_and_pelvis_view_the_pelvis(seed):
    chest = set(torso(seed, (43, 43, 43), 7.5, centre_mm=CHEST_MM).labels.unique().tolist())
    assert {Label.LUNG, Label.HEART, Label.VERTEBRA, Label.RIB, Label.SKIN} <= chest and Label.PELVIS not in chest
    pelvis = set(torso(seed, (43, 43, 43), 7.5, centre_mm=PELVIS_MM).labels.unique().tolist())
    assert {Label.PELVIS, Label.FEMUR, Label.VERTEBRA} <= pelvis and Label.LUNG not in pelvis


# Label, and the interval in HU for its median. Contrast medium explains the high ends.
MEDIANS = (
    (Label.LUNG, -930, -650),
    (Label.FAT, -125, -55),
    (Label.SOFT_TISSUE, 20, 80),
    (Label.HEART, 25, 350),
    (Label.LIVER, 0, 220),
    (Label.SPLEEN, 30, 220),
    (Label.KIDNEY, 20, 280),
    (Label.BLADDER, -15, 900),
    (Label.VESSEL, 20, 400),
    (Label.VERTEBRA, 100, 800),
    (Label.RIB, 100, 800),
    (Label.PELVIS, 100, 800),
    (Label.FEMUR, 100, 800),
    (Label.STERNUM, 100, 800),
    (Label.CARTILAGE, 30, 200),
    (Label.TRACHEA, -1000, -500),
)


@pytest.mark.parametrize(("label", "low", "high"), MEDIANS, ids=lambda value: getattr(value, "name", None))
@pytest.mark.parametrize("seed", SEEDS)
def test_hu_of_every_tissue_is_physiological(seed, label, low, high):
    phantom = whole(seed)
    assert low < phantom.hu[phantom.labels == label].median() < high


@pytest.mark.parametrize("seed", SEEDS)
def test_without_metal_hu_stays_between_air_and_cortical_bone(seed):
    hu, labels = whole(seed)
    assert hu.min() >= -1024 and hu.isfinite().all()
    assert hu[~dilate(labels == Label.DEVICE, 1)].max() < 1400


@pytest.mark.parametrize("seed", SEEDS)
def test_air_is_exactly_minus_1000_hu_beyond_the_soft_edge_of_the_body(seed):
    hu, labels = whole(seed)
    outside = labels == Label.AIR
    assert (hu[~dilate(~outside, 2)] == -1000).all()
    # An electrode on the skin may fill a third of a voxel.
    assert hu[outside & ~dilate(labels == Label.DEVICE, 2)].max() < -400


@pytest.mark.parametrize("seed", SEEDS)
def test_body_is_one_piece_and_all_air_is_outside_it(seed):
    outside = torso(seed, (48, 32, 75), 10.0, centre_mm=-10.0).labels == Label.AIR
    assert outside[0, 0, :].all() and not outside[24, 16, 37]
    assert pieces(outside) == pieces(~outside) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_bones_and_lungs_lie_under_the_skin(seed):
    labels = whole(seed).labels
    near_air = dilate(labels == Label.AIR, 1)
    for label in (Label.VERTEBRA, Label.RIB, Label.LUNG, Label.HEART, Label.PELVIS):
        assert not (near_air & (labels == label)).any(), label.name


@pytest.mark.parametrize("seed", SEEDS)
def test_liver_is_right_and_heart_left_of_the_spine(seed):
    labels = whole(seed).labels
    liver, heart, spleen, spine = (
        centroid(labels == label)[0] for label in (Label.LIVER, Label.HEART, Label.SPLEEN, Label.VERTEBRA)
    )
    assert liver > spine + 4 and heart < spine - 2 and spleen < spine - 8


@pytest.mark.parametrize("seed", SEEDS)
def test_spine_is_behind_the_heart_and_the_sternum_before_it(seed):
    labels = whole(seed).labels
    spine, heart, sternum = (centroid(labels == label)[1] for label in (Label.VERTEBRA, Label.HEART, Label.STERNUM))
    assert spine + 8 < heart < sternum


@pytest.mark.parametrize("seed", SEEDS)
def test_organs_are_stacked_from_the_pelvis_to_the_lungs(seed):
    labels = whole(seed).labels
    order = (Label.FEMUR, Label.PELVIS, Label.KIDNEY, Label.LIVER, Label.HEART, Label.CLAVICLE)
    heights = [centroid(labels == label)[2].item() for label in order]
    assert heights == sorted(heights)


@pytest.mark.parametrize("seed", range(8))
def test_chest_has_the_size_of_an_adult(seed):
    body = torso(seed, (112, 80, 1), 5.0, centre_mm=130.0).labels[..., 0] != Label.AIR
    width, depth = (5 * int(body.any(axis).sum()) for axis in (1, 0))
    arms_mm = 160 if Patient.drawn(Draw(seed), None).arms_down else 0
    assert 230 <= width - arms_mm <= 450 and 160 <= depth <= 330


def test_skeleton_is_as_dense_and_as_large_as_in_real_fields_of_view():
    # At 5 mm, voxels of 200 HU and more make 2 to 12 % of those above -400 HU in real scans, and have 260 to 420 HU.
    shares, means = [], []
    for seed in itertools.islice((s for s in itertools.count(100) if not Patient.drawn(Draw(s), None).wide), 5):
        hu, labels = torso(seed)
        bone = (hu >= 200) & (labels != Label.DEVICE)
        shares.append((bone.sum() / (hu > -400).sum()).item())
        means.append(hu[bone].mean().item())
    assert all(0.015 < share < 0.13 for share in shares) and 0.035 < sum(shares) / 5 < 0.08
    assert all(230 < mean < 430 for mean in means) and 270 < sum(means) / 5 < 370


@pytest.mark.parametrize("seed", SEEDS)
def test_volumes_of_organs_are_those_of_adults(seed):
    labels = whole(seed).labels
    for label, low, high in ((Label.LUNG, 1.2, 8.0), (Label.LIVER, 0.5, 3.5), (Label.HEART, 0.25, 1.6)):
        litres = int((labels == label).sum()) * 5.0**3 * 1e-6
        assert low < litres < high, label.name


@pytest.mark.parametrize("seed", SEEDS)
def test_metal_is_dense_and_near_vertebrae(seed):
    phantom = instrumented(seed)
    metal = phantom.labels == Label.METAL
    assert metal.any()
    assert phantom.hu[metal].median() > 2000 and phantom.hu[metal].min() > 1000 and phantom.hu.max() <= 3071
    assert not (metal & ~dilate(phantom.labels == Label.VERTEBRA, 8)).any()  # 20 mm


@pytest.mark.parametrize("seed", SEEDS)
def test_metal_changes_nothing_but_its_own_neighbourhood(seed):
    bare, operated = torso(seed, (80, 80, 80), 2.5), instrumented(seed)
    metal = operated.labels == Label.METAL
    assert metal.any() and not (bare.labels == Label.METAL).any()
    changed = bare.hu != operated.hu
    # The first and last planes may be near metal that lies beyond the grid.
    assert not (changed & ~dilate(metal, 3))[:, :, 4:-4].any()
    assert torch.equal(bare.labels[~metal], operated.labels[~metal])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, r"seed .*integer .*2\*\*32\), got -1"),
        ({"seed": 0.5}, "seed must be an integer"),
        ({"seed": True}, "seed must be an integer"),
        ({"seed": 0, "shape": (64, 64)}, r"shape .*three .*got \(64, 64\)"),
        ({"seed": 0, "shape": (64, 0, 64)}, "shape .*three positive integers"),
        ({"seed": 0, "shape": 64}, "shape .*three positive integers"),
        ({"seed": 0, "spacing_mm": 0.0}, "spacing_mm .*positive .*got 0.0; .*5.0"),
        ({"seed": 0, "spacing_mm": float("nan")}, "spacing_mm .*positive"),
        ({"seed": 0, "centre_mm": float("inf")}, "centre_mm .*finite .*got inf"),
    ],
)
def test_arguments_without_meaning_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        torso(**arguments)


def test_64_cubed_takes_well_under_a_second_of_one_core():
    def seconds() -> float:
        start = time.process_time()
        torso(0, (64, 64, 64), 5.0, metal=True)
        return time.process_time() - start

    assert any(seconds() < 1.0 for _ in range(3))
