"""The check of films is written with its geometry and limit, and its rates are those of upright films."""

import pytest
import torch
from tests.fixtures import GEOMETRY

from scripts.data.film_effects import RandomFilms
from scripts.exam.orientation import HYPOTHESES, SIDE, FilmCheck, field_of
from scripts.inference.weights import load_weights
from scripts.physics.separable import SeparableProjector
from scripts.studies.learn_orientation import Exams, learn, learn_orientation, rates


class Cubes:
    """Long volumes with one dense block in a corner, so that every mistake shows."""

    seed = 0

    def __getitem__(self, item):
        hu = torch.full((1, *GEOMETRY.volume_shape), -1000.0)
        hu[:, 4:12, 4:12, 1:15] = 0.0
        hu[:, 4:7, 4:8, 10:15] = 1000.0 + 10 * item
        return {"hu": hu}


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """The file of a check."""
    path = tmp_path_factory.mktemp("orientation") / "new" / "orientation.pt"
    learn_orientation(
        path, dict.fromkeys(("train", "val", "test"), Cubes()), SeparableProjector(GEOMETRY),
        RandomFilms(geometry=GEOMETRY), GEOMETRY, {"train": 6, "val": 2, "test": 2}, 20, 8, 0.003, seed=0,
    )  # fmt: skip
    return path


def test_the_file_states_its_geometry_and_a_limit(learnt):
    check = load_weights(FilmCheck(), learnt)
    torch.testing.assert_close(check.field, field_of(GEOMETRY), rtol=1e-3, atol=0)
    assert 0 < float(check.limit) < 1


def test_the_same_seed_learns_the_same_network():
    exams = Exams(torch.randn(4, SIDE, SIDE, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1]))
    one, same, other = (learn(exams, 3, 4, 0.003, seed).state_dict() for seed in (1, 1, 2))
    assert all(same[name].equal(value) for name, value in one.items())
    assert not all(other[name].equal(value) for name, value in one.items())


def test_rates_have_a_row_per_mistake_and_the_first_holds_the_false_alarms():
    check = FilmCheck().eval()
    exams = Exams(torch.randn(4, SIDE, SIDE, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1]))
    check.limit.fill_(1.1)  # warns of everything
    rows = rates(check, exams)
    assert [row["mistake"] for row in rows[:2]] == ["none", HYPOTHESES[1].words]
    assert len(rows) == len(HYPOTHESES) + 1 and rows[-1]["mistake"] == "the other view"
    assert all(row["frontal: warned"] == row["lateral: warned"] == 1 for row in rows)
    check.limit.fill_(0.0)
    assert all(row["frontal: warned"] == row["lateral: warned"] == 0 for row in rates(check, exams))
