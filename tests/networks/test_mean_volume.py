"""The baseline that does not look."""

import torch

from scripts.networks.mean_volume import MeanVolume


def test_every_exam_is_answered_with_the_same_volume():
    volume = torch.rand(1, 3, 4, 5)
    answer = MeanVolume(volume)(torch.rand(2, 2, 8, 8))
    assert answer.shape == (2, 1, 3, 4, 5)
    assert torch.equal(answer[0], volume) and torch.equal(answer[1], volume)
