"""The best weights survive: worse validations, interruptions, and a smaller floating-point type."""

import copy

import pytest
import torch
from torch import nn

from scripts.training.best_weights import BestWeights, save_weights


class Validator:
    """As much of a validator as BestWeights looks at."""

    def __init__(self, value: float) -> None:
        self.state = self
        self.key_metric_name, self.metrics = "psnr", {"psnr": value}


def network(value: float) -> nn.Module:
    layer = nn.Linear(2, 1)
    nn.init.constant_(layer.weight, value)
    return layer


def kept(path) -> float:
    return torch.load(path)["weight"][0, 0].item()


def show(best: BestWeights, values: dict[float, float]) -> None:
    """Validate networks of constant weight: ``{weight: metric}``."""
    for weight, metric in values.items():
        nn.init.constant_(best.network.weight, weight)
        best(Validator(metric))


def test_file_holds_the_weights_of_the_largest_metric(tmp_path):
    best = BestWeights(network(0), tmp_path / "model.pt")
    show(best, {1.0: 10.0, 2.0: 12.0, 3.0: 11.0, 4.0: 12.0})
    assert kept(tmp_path / "model.pt") == 2.0 and best.best == 12.0


def test_comparison_can_be_reversed(tmp_path):
    best = BestWeights(network(0), tmp_path / "model.pt", better=lambda new, best: new < best)
    show(best, {1.0: 10.0, 2.0: 12.0, 3.0: 9.0})
    assert kept(tmp_path / "model.pt") == 3.0


def test_nan_is_never_the_best(tmp_path):
    best = BestWeights(network(0), tmp_path / "model.pt")
    show(best, {1.0: float("nan"), 2.0: 3.0, 3.0: float("nan")})
    assert kept(tmp_path / "model.pt") == 2.0 and best.best == 3.0


def test_resumed_run_does_not_replace_better_weights_by_worse(tmp_path):
    first = BestWeights(network(0), tmp_path / "model.pt")
    show(first, {1.0: 10.0})
    resumed = BestWeights(network(0), tmp_path / "model.pt")
    resumed.load_state_dict(copy.deepcopy(first.state_dict()))
    show(resumed, {2.0: 9.0})
    assert kept(tmp_path / "model.pt") == 1.0
    show(resumed, {3.0: 11.0})
    assert kept(tmp_path / "model.pt") == 3.0


def test_process_that_is_no_writer_knows_the_best_but_writes_nothing(tmp_path):
    best = BestWeights(network(0), tmp_path / "model.pt", is_writer=False)
    show(best, {1.0: 10.0})
    assert best.best == 10.0 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_stored_smaller_reload_in_a_float32_network(tmp_path, dtype):
    saved, loaded = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    nn.init.uniform_(saved.weight)
    saved.register_buffer("geometry", torch.tensor([785.123456789], dtype=torch.float64))
    loaded.register_buffer("geometry", torch.zeros(1, dtype=torch.float64))
    save_weights(saved, tmp_path / "model.pt", dtype)
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    loaded.load_state_dict(state)
    assert state["weight"].dtype == dtype and loaded.weight.dtype == torch.float32
    assert torch.equal(loaded.weight, saved.weight.to(dtype).float())
    assert torch.equal(loaded.geometry, saved.geometry)  # only float32 is stored smaller
    assert loaded.num_batches_tracked.dtype == torch.int64
