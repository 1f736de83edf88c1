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
from scripts.intensity import AIR_BELOW_HU, MU_WATER_PER_MM, RADIOGRAPH_SCALE, TYPICAL_ERROR_HU, hu_to_network
from scripts.networks.diffux2ct import DiffuX2CT
from scripts.networks.lifting import Unexplained
from scripts.physics.consistency import FILM_NOISE, Consistency
from scripts.physics.tensor_shapes import views_present

REST_GAIN = 4.0
"""Factor that brings the residual (standard deviation in a body about 0.1 in network range) closer to x_t's scale."""
CONSISTENCY_STEPS = 4
"""Steps of conjugate gradients between two steps of a sampler."""
TRUSTED_MISFIT = 0.08
"""Largest misfit (relative L2) of a prediction to radiographs that it is made consistent with. With the shipped weights
it is 0.03 to 0.071 for the simulated radiographs of the training and validation patients, and 0.1 to 0.4 for films
that are cut off or processed for display, which no body fits exactly."""


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
    """Self-correcting network whose prediction meets the radiographs before the next step.

    Between two steps of a sampler, a few steps of conjugate gradients change the prediction as little as possible so
    that its re-projection meets the radiographs (decomposed diffusion sampling, Chung et al. 2024, arXiv:2303.05754).
    The next step starts from there. The last prediction stays as it is, and so does any that misses its radiographs by
    more than :data:`TRUSTED_MISFIT`, since these are then not what they are taken for. The weights are those of
    :class:`SelfCorrecting`.
    """

    is_consistent = True

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.consistency, self.cg_steps = Consistency(self.unexplained.spread.projector), CONSISTENCY_STEPS
        self.noise_std, self.trusted_misfit = RADIOGRAPH_SCALE * FILM_NOISE, TRUSTED_MISFIT
        self.error_std = RADIOGRAPH_SCALE * MU_WATER_PER_MM / 1000 * TYPICAL_ERROR_HU
        self.air_below = float(hu_to_network(torch.tensor(AIR_BELOW_HU)))

    @torch.jit.export
    def between_steps(self, x0: Tensor, condition: list[Tensor]) -> Tensor:
        """Return ``x0 [B, 1, U, V, W]``, made consistent with the radiographs where these are trusted."""
        image, rest = condition[0].double(), self.unexplained.rest(condition[0].double(), x0.double())
        variance = self.error_std**2 * (x0 > self.air_below).double()
        present = views_present(image).unsqueeze(2).unsqueeze(3)
        change = self.consistency(rest, variance, present, self.noise_std, self.cg_steps).to(x0.dtype)
        trusted = rest.square().sum(dim=[1, 2, 3]) <= self.trusted_misfit**2 * image.square().sum(dim=[1, 2, 3])
        consistent = (x0 + self.unexplained.scale.slope * change).clamp(-1.0, 1.0)
        return torch.where(trusted.reshape(-1, 1, 1, 1, 1), consistent, x0)
