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

    def forward(self, volume: Tensor, image: Tensor, rest: Tensor | None = None) -> Tensor:
        """Return ``volume``, made consistent with the radiographs where these are trusted.

        Args:
            volume: ``[B, 1, U, V, W]`` in network range.
            image: ``[B, 2, N, N]`` in network units.
            rest: residual of the radiographs, if it is known.
        """
        if rest is None:
            rest = self.unexplained.rest(image, volume)
        consistent = self.consistent(volume, image, rest)
        left = self.unexplained.rest(image, consistent)
        return torch.where(self._trusted(misfit(rest, image), misfit(left, image)), consistent, volume)

    @torch.jit.export
    def trusts(self, volume: Tensor, image: Tensor) -> Tensor:
        """Return whether the radiographs are trusted to change ``volume``, as ``[B, 1, 1, 1, 1]``."""
        before, after = self.misfits(volume, image)
        return self._trusted(before, after)

    @torch.jit.export
    def misfits(self, volume: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the misfits ``[B]`` of ``volume`` and of ``volume`` made consistent, whether trusted or not."""
        rest = self.unexplained.rest(image, volume)
        left = self.unexplained.rest(image, self.consistent(volume, image, rest))
        return misfit(rest, image), misfit(left, image)

    @torch.jit.export
    def consistent(self, volume: Tensor, image: Tensor, rest: Tensor) -> Tensor:
        """Return ``volume`` made consistent with ``image``, trusted or not."""
        present = views_present(image).unsqueeze(2).unsqueeze(3)
        weights = self.consistency.covariance.weights(volume)
        change = self.consistency(rest, weights, present, self.noise_std, self.steps)
        return (volume + self.unexplained.scale.slope * change).clamp(-1.0, 1.0)

    def _trusted(self, before: Tensor, after: Tensor) -> Tensor:
        return ((before <= self.trusted_misfit) & (after <= self.explained_misfit)).reshape(-1, 1, 1, 1, 1)


def misfit(rest: Tensor, image: Tensor) -> Tensor:
    """Return the relative L2 misfits ``[B]``, over both views, of a residual ``rest`` of ``image [B, 2, N, N]``."""
    return torch.linalg.vector_norm(rest, dim=[1, 2, 3]) / torch.linalg.vector_norm(image, dim=[1, 2, 3])


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


def trusted_consistency(geometry: BiplanarGeometry, device: torch.device) -> TrustedConsistency:
    """Build :class:`TrustedConsistency` for an exam's geometry, on a device."""
    return TrustedConsistency(Unexplained(geometry), TissueCovariance(geometry)).to(device)
