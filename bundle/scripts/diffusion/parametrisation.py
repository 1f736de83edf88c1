"""Meaning of a network's output: the noise ε, the clean data x_0, or the velocity v.

A parametrisation has no parameters. It defines the training target (`target`) and how to compute the clean data from
the output (`to_x0`); the two are inverse: ``to_x0(target(x0, noise, ...), x_t, ...) == x0``. All three can be scripted,
alone or as a submodule.

Everywhere ``x_t = alpha * x0 + sigma * noise``; ``alpha`` and ``sigma`` come from `schedules.marginal` and broadcast
over ``[B, ...]``; every result has the shape of ``x_t``.
"""

from __future__ import annotations

from torch import Tensor, nn


class Parametrisation(nn.Module):
    """Base class of `Epsilon`, `X0` and `V`; calling one calls its `to_x0`."""

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the training target for x_t, given the data and the noise that x_t was made from."""
        raise NotImplementedError

    def to_x0(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the clean data that the network's ``output`` for ``x_t`` implies."""
        raise NotImplementedError

    def forward(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Call `to_x0`."""
        return self.to_x0(output, x_t, alpha, sigma)


class Epsilon(Parametrisation):
    """Prediction of the noise ε, as in DDPM and DiffuX2CT (eq (7)).

    Ill-conditioned where α_t is small: an error in ε̂ reaches x̂_0 multiplied by σ_t / α_t, about 157 at the last
    timestep of the linear schedule.
    """

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return ε, the regression target of DiffuX2CT eq (7)."""
        return noise

    def to_x0(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return x̂_0 = (x_t - √(1 - ᾱ_t) ε̂) / √ᾱ_t.

        DiffuX2CT eq (8) prints ŷ_0 = (y_t - (1 - α_t) ε̂) / √α_t, where its α_t is our ᾱ_t: the square root over
        1 - α_t is missing. As printed it does not invert eq (1), and the projection loss of eq (9) would compare a
        wrong volume. The formula here is DDPM's (arXiv:2006.11239, eq (4) solved for x_0; its eq (15)).
        """
        return (x_t - sigma * output) / alpha


class X0(Parametrisation):
    """Prediction of the clean data itself."""

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return x_0."""
        return x0

    def to_x0(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return x̂_0 = output."""
        return output


class V(Parametrisation):
    """Prediction of the velocity v, which is well conditioned at every timestep.

    Source: Salimans & Ho, "Progressive distillation" (arXiv:2202.00512), section 4 and appendix D.
    """

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return v = α_t ε - σ_t x_0."""
        return alpha * noise - sigma * x0

    def to_x0(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return x̂_0 = α_t x_t - σ_t v̂, which requires α_t² + σ_t² = 1 (variance preserving)."""
        return alpha * x_t - sigma * output
