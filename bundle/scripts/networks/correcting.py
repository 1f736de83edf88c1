"""A diffusion network that corrects its own estimate using the estimate's residuals in the radiographs.

The paper's denoiser sees the radiographs only through features that are computed before the first step; it is never
shown where its volume contradicts them. This one reads, in addition to x_t,

- x̂, its prediction at the previous step (self-conditioning, Chen et al. 2022, arXiv:2208.04202), initially the mean of
  both views' back-projections, and
- for each view the back-projected residual A_i^T (p_i - A_i x̂) / A_i^T A_i 1, as in learned iterative reconstruction
  (Adler & Oktem 2018, arXiv:1707.06474),

and adds its output to x̂. The design is ours; it works with any conditioning mechanism and any denoiser.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scripts.diffusion.parametrisation import X0
from scripts.networks.diffux2ct import DiffuX2CT
from scripts.networks.lifting import Unexplained
from scripts.networks.tissue_prior import TissueVariance
from scripts.networks.trusted import TrustedConsistency

REST_GAIN = 4.0
"""Factor that brings the residual (standard deviation in a body about 0.1 in network range) closer to x_t's scale."""


class SelfCorrecting(DiffuX2CT):
    """DiffuX2CT with a denoiser that carries its estimate along and reads the estimate's residuals.

    Args:
        arguments: arguments of :class:`~scripts.networks.diffux2ct.DiffuX2CT`; the denoiser takes ``reads`` volumes.

    Raises:
        ValueError: the parametrisation is not x_0.
    """

    reads = 4

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if not isinstance(self.parametrisation, X0):
            raise ValueError(
                "a network that corrects its estimate must predict x_0, got the parametrisation "
                f"{type(self.parametrisation).__name__}; use X0"
            )
        self.unexplained, self.rest_gain = Unexplained(self.exam), REST_GAIN

    def _condition(self, image: Tensor, z: Tensor | None) -> list[Tensor]:
        return [image] + self.denoiser.project_condition(self.conditioner(image, z))

    @torch.jit.export
    def first_estimate(self, condition: list[Tensor]) -> Tensor:
        """Return the mean of both views' back-projections ``[B, 1, U, V, W]``, in network range."""
        return self.unexplained.first_estimate(condition[0])

    def _output(self, x: Tensor, timesteps: Tensor, condition: list[Tensor], estimate: Tensor) -> Tensor:
        rest = self.rest_gain * self.unexplained(condition[0], estimate)
        correction = self.denoiser(torch.cat([x, estimate, rest], dim=1), timesteps, condition[1:]).float()
        # An untrained network, with a last layer of zeros, must not present a back-projection as a reconstruction.
        return torch.where(correction.abs().amax() > 0, estimate, 0.0) + correction


class SelfConsistent(SelfCorrecting):
    """Self-correcting network whose predictions meet the radiographs.

    A few steps of conjugate gradients change each prediction as little as possible so that its re-projection meets the
    radiographs (decomposed diffusion sampling, Chung et al. 2024, arXiv:2303.05754); see
    :class:`~scripts.networks.trusted.TrustedConsistency`. The weights are those of :class:`SelfCorrecting`.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.consistency = TrustedConsistency(self.unexplained, TissueVariance())

    @torch.jit.export
    def meet(self, x0: Tensor, condition: list[Tensor]) -> Tensor:
        """Return ``x0 [B, 1, U, V, W]``, made consistent with the radiographs where these are trusted."""
        return self.consistency(x0, condition[0])
