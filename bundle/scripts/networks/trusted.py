"""Changes of volumes by those radiographs that one body can explain."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from scripts.geometry import BiplanarGeometry
from scripts.intensity import EXPLAINED_MISFIT, RADIOGRAPH_SCALE, TRUSTED_MISFIT
from scripts.networks.lifting import Unexplained
from scripts.networks.tissue_prior import TissueCovariance
from scripts.physics.consistency import FILM_NOISE, Consistency
from scripts.physics.tensor_shapes import views_present
from scripts.resolution import coarsened

STEPS = 4
"""Steps of conjugate gradients."""


class TrustedConsistency(nn.Module):
    """Smallest change of a volume that meets its radiographs, where these are trusted.

    Radiographs are trusted if the volume misses them by at most ``TRUSTED_MISFIT``, and, changed to meet them, by at
    most ``EXPLAINED_MISFIT``. The first fails if their values are wrong. The second fails if they contradict each
    other, for instance because one is shifted or cut off: no body explains both. Otherwise the volume stays as it is.
    TorchScript-able.

    Args:
        unexplained: computes the residual of the radiographs, in the exam's geometry.
        prior: covariance of the volume's error, such as :class:`~scripts.networks.tissue_prior.TissueVariance`.
    """

    def __init__(self, unexplained: Unexplained, prior: nn.Module) -> None:
        super().__init__()
        self.unexplained, self.steps, self.noise_std = unexplained, STEPS, RADIOGRAPH_SCALE * FILM_NOISE
        self.consistency = Consistency(unexplained.spread.projector, prior)
        self.trusted_misfit, self.explained_misfit = TRUSTED_MISFIT, EXPLAINED_MISFIT

    def forward(self, volume: Tensor, image: Tensor) -> Tensor:
        """Return ``volume [B, 1, U, V, W]``, in network range, made consistent with ``image [B, 2, N, N]``."""
        consistent, trusted = self._consistent(volume, image)
        return torch.where(trusted, consistent, volume)

    @torch.jit.export
    def trusts(self, volume: Tensor, image: Tensor) -> Tensor:
        """Return whether radiographs ``image [B, 2, N, N]`` are trusted to change ``volume``: ``[B, 1, 1, 1, 1]``."""
        return self._consistent(volume, image)[1]

    def _consistent(self, volume: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the changed volume, and whether the radiographs are trusted."""
        rest = self.unexplained.rest(image, volume)
        present = views_present(image).unsqueeze(2).unsqueeze(3)
        weights = self.consistency.covariance.weights(volume)
        change = self.consistency(rest, weights, present, self.noise_std, self.steps)
        consistent = (volume + self.unexplained.scale.slope * change).clamp(-1.0, 1.0)
        left = self.unexplained.rest(image, consistent)
        trusted = _at_most(rest, self.trusted_misfit, image) & _at_most(left, self.explained_misfit, image)
        return consistent, trusted.reshape(-1, 1, 1, 1, 1)


class WhereTrusted:
    """Change of volumes by radiographs where these are trusted.

    That is decided on a coarser grid, since it costs several projections.

    Args:
        change: called as ``change(volume, image)``, for instance :class:`~scripts.inference.refine.Refine`.
        consistency: decides whether radiographs are trusted.
        factor: voxels and pixels per side for each of those of ``consistency``.
    """

    def __init__(
        self, change: Callable[[Tensor, Tensor], Tensor], consistency: TrustedConsistency, factor: int = 2
    ) -> None:
        self.change, self.consistency, self.factor = change, consistency, factor

    @torch.no_grad()
    def __call__(self, volume: Tensor, image: Tensor) -> Tensor:
        """Return ``volume [B, 1, U, V, W]``, in network range, changed by ``image [B, 2, N, N]``."""
        trusted = self.consistency.trusts(coarsened(volume, self.factor), coarsened(image, self.factor))
        return torch.where(trusted, self.change(volume, image), volume) if trusted.any() else volume


def _at_most(rest: Tensor, share: float, image: Tensor) -> Tensor:
    """Return for each exam whether ``rest`` is at most a share of ``image``, in the L2 norm: ``[B]``."""
    return rest.square().sum(dim=[1, 2, 3]) <= share**2 * image.square().sum(dim=[1, 2, 3])


def trusted_consistency(geometry: BiplanarGeometry, device: torch.device) -> TrustedConsistency:
    """Build :class:`TrustedConsistency` for an exam's geometry, on a device."""
    return TrustedConsistency(Unexplained(geometry), TissueCovariance(geometry)).to(device)
