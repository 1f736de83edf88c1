"""The benchmark of a GPU runs on any device and counts what it says."""

import re
from pathlib import Path

import pytest
import torch
from tests.fixtures import TINY

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    """The benchmark with a tiny size and small phantoms."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu
    import training

    monkeypatch.setattr(training, "PATIENTS", 1)
    monkeypatch.setattr(training, "SPACING_MM", 18.0)
    monkeypatch.setitem(gpu.SIZES, "tiny", (["train.json"], TINY))
    return gpu


def test_the_table_has_every_measurement_of_a_size(gpu, capsys):
    options = {"device": "cpu", "sizes": "tiny", "repetitions": 1, "batch_size": 2, "side": 64, "copied_mib": 1}
    gpu.main([text for name, value in options.items() for text in (f"--{name}", str(value))])
    head, _, row = (line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[2:])
    assert [cell.strip() for cell in head] == list(gpu.COLUMNS)
    cells = [cell.strip() for cell in row]
    assert cells[0] == "tiny" and cells[-1] == "not measured"
    assert all(float(re.sub("%$", "", cell)) > 0 for cell in cells[1:-1]), cells


def test_a_product_and_a_copy_are_counted_in_operations_and_bytes(gpu, monkeypatch):
    monkeypatch.setattr(gpu, "seconds", lambda work, device, repetitions: work() is None or 2.0)
    cpu = torch.device("cpu")
    assert gpu.multiplied_per_second(cpu, 1, 10, False) == 1000  # a multiplication and an addition each
    assert gpu.copied_per_second(cpu, 1, 4000) == 4000  # read and written
