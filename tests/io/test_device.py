"""A device that is there, or one line that says what is."""

import pytest
import torch
from tests.refusal import refused

from scripts.io.device import device_of


@pytest.mark.parametrize("name", ["cpu", torch.device("cpu"), "cpu:0"])
def test_the_processor_is_always_there(name):
    assert device_of(name).type == "cpu"


@pytest.mark.parametrize("name", ["gpu", "", "CUDA", "cuda:x", "cuda:-1", 3.5, None])
def test_what_is_no_device_is_refused_with_the_known_ones(name):
    with refused(ValueError, "--device", "cpu, cuda or cuda:N"):
        device_of(name)


@pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:0", 0), ("cuda:2", 2), (torch.device("cuda:2"), 1)])
def test_a_device_that_this_machine_lacks_is_refused_with_what_it_has(name, count, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with refused(ValueError, "--device", str(name), "torch ", f"{count} devices"):
        device_of(name)


def test_devices_are_counted_from_zero(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [device_of(name) for name in ("cuda", "cuda:1")] == [torch.device("cuda"), torch.device("cuda:1")]
