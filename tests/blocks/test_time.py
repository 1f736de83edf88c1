"""The sinusoidal embedding of time against its formula."""

import math

import torch

from scripts.blocks.time import TimeEmbedding


def test_the_embedding_is_the_perceptron_of_the_sinusoids_of_ho_et_al() -> None:
    module = TimeEmbedding(6, 5)
    timesteps = torch.tensor([0, 1, 7, 999])
    rows = []
    for t in timesteps.tolist():
        angles = [t * math.exp(-math.log(10000) * k / 3) for k in range(3)]
        rows.append([math.cos(a) for a in angles] + [math.sin(a) for a in angles])
    expected = module.refine(torch.tensor(rows))
    assert torch.allclose(module(timesteps), expected, atol=1e-4)


def test_neighbouring_times_differ_and_a_batch_is_its_members() -> None:
    module = TimeEmbedding(16, 8)
    together = module(torch.arange(1000))
    assert (together[1:] - together[:-1]).abs().amax(dim=1).min() > 1e-3
    assert torch.allclose(module(torch.tensor([437])), together[437:438], atol=1e-6)
