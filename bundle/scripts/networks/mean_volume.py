"""The mean training volume as a network: a baseline that every use of the radiographs must beat."""

from __future__ import annotations

from torch import Tensor, nn


class MeanVolume(nn.Module):
    """Network that returns the same volume for every exam.

    Args:
        volume: ``[1, U, V, W]`` in the network's range.
    """

    def __init__(self, volume: Tensor) -> None:
        super().__init__()
        self.volume = nn.Buffer(volume.unsqueeze(0))

    def forward(self, image: Tensor) -> Tensor:
        """Return the volume as ``[B, 1, U, V, W]`` for images ``[B, 2, N, N]``."""
        return self.volume.expand(len(image), -1, -1, -1, -1)
