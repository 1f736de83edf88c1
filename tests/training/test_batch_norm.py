"""Averaged weights are validated with the batch statistics of their own activations."""

import torch
from ignite.engine import Engine
from torch import nn

from scripts.training.batch_norm import RecalibrateBatchNorm


def prepare(batch, device):
    return batch.to(device), None


def batches(count, generator):
    return [3 + 2 * torch.randn(4, 5, 8, generator=generator) for _ in range(count)]


def test_the_running_statistics_become_those_of_the_first_batches_of_the_networks_own_activations():
    generator = torch.Generator().manual_seed(0)
    data = batches(6, generator)
    network = nn.Sequential(nn.Conv1d(5, 7, 1), nn.BatchNorm1d(7)).eval()
    validation = Engine(lambda engine, batch: None)
    RecalibrateBatchNorm(network, data, prepare, torch.device("cpu"), count=3).attach(validation)
    validation.run([0])
    with torch.no_grad():
        activations = [network[0](x) for x in data[:3]]
    mean = torch.stack([a.mean(dim=(0, 2)) for a in activations]).mean(dim=0)
    variance = torch.stack([a.var(dim=(0, 2)) for a in activations]).mean(dim=0)
    torch.testing.assert_close(network[1].running_mean, mean)
    torch.testing.assert_close(network[1].running_var, variance)
    assert network[1].momentum == 0.1 and not network.training


def test_a_network_without_batch_normalisation_costs_no_batch_and_no_random_number():
    def never():
        raise AssertionError("a batch was read")
        yield

    before = torch.random.get_rng_state()
    RecalibrateBatchNorm(nn.GroupNorm(1, 4), never(), prepare, torch.device("cpu"))(Engine(lambda engine, batch: None))
    assert torch.equal(torch.random.get_rng_state(), before)
