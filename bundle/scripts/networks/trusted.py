"""Changes of volumes by those radiographs that they nearly meet already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from scripts.geometry import BiplanarGeometry
from scripts.intensity import RADIOGRAPH_SCALE, TRUSTED_MISFIT
from scripts.networks.lifting import Unexplained
from scripts.networks.tissue_prior import TissueCovariance
from scripts.physics.consistency import FILM_NOISE, Consistency
from scripts.physics.tensor_shapes import views_present

STEPS = 4
"""Steps of conjugate gradients."""


def trusted(rest: Tensor, image: Tensor, misfit: float) -> Tensor:
    """Return whether ``rest`` is at most a share ``misfit`` of ``image [B, 2, N, N]``, as ``[B, 1, 1, 1, 1]``."""
    small = rest.square().sum(dim=[1, 2, 3]) <= misfit**2 * image.square().sum(dim=[1, 2, 3])
    return small.reshape(-1, 1, 1, 1, 1)


class TrustedConsistency(nn.Module):
    """Smallest change of a volume that meets its radiographs, where these are trusted.

    A volume that misses its radiographs by more than ``TRUSTED_MISFIT`` stays as it is, since they are then not
    what they are taken for. TorchScript-able.

    Args:
        unexplained: computes the residual of the radiographs, in the exam's geometry.
        prior: covariance of the volume's error, such as :class:`~scripts.networks.tissue_prior.TissueVariance`.
    """

    def __init__(self, unexplained: Unexplained, prior: nn.Module) -> None:
        super().__init__()
        self.unexplained, self.steps = unexplained, STEPS
        self.consistency = Consistency(unexplained.spread.projector, prior)
        self.noise_std, self.trusted_misfit = RADIOGRAPH_SCALE * FILM_NOISE, TRUSTED_MISFIT

    def forward(self, volume: Tensor, image: Tensor) -> Tensor:
        """Return ``volume [B, 1, U, V, W]``, in network range, made consistent with ``image [B, 2, N, N]``."""
        rest = self.unexplained.rest(image, volume)
        present = views_present(image).unsqueeze(2).unsqueeze(3)
        weights = self.consistency.covariance.weights(volume)
        change = self.consistency(rest, weights, present, self.noise_std, self.steps)
        consistent = (volume + self.unexplained.scale.slope * change).clamp(-1.0, 1.0)
        return torch.where(trusted(rest, image, self.trusted_misfit), consistent, volume)


class WhereTrusted:
    """Change of volumes by radiographs where these are trusted, as by :class:`TrustedConsistency`.

    Args:
        change: called as ``change(volume, image)``, for instance :class:`~scripts.inference.refine.Refine`.
        network: network that computes the residual of the radiographs by its ``unexplained``.
    """

    def __init__(self, change: Callable[[Tensor, Tensor], Tensor], network: Any) -> None:
        self.change, self.network = change, network

    @torch.no_grad()
    def __call__(self, volume: Tensor, image: Tensor) -> Tensor:
        """Return ``volume [B, 1, U, V, W]``, in network range, changed by ``image [B, 2, N, N]``."""
        is_trusted = trusted(self.network.unexplained.rest(image, volume), image, TRUSTED_MISFIT)
        return torch.where(is_trusted, self.change(volume, image), volume) if is_trusted.any() else volume


def trusted_consistency(geometry: BiplanarGeometry, device: torch.device) -> TrustedConsistency:
    """Build :class:`TrustedConsistency` for an exam on a fine grid, on a device."""
    return TrustedConsistency(Unexplained(geometry), TissueCovariance(geometry)).to(device)
