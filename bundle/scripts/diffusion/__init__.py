"""Schedules, parametrisations and samplers of diffusion, independent of any network.

A parametrisation turns a network's output into ``denoise(x_t, t, estimate) -> x0``, and a sampler sees only that
function.

Symbols, after DDPM (arXiv:2006.11239) and DPM-Solver (arXiv:2206.00927):

==============  =====================  ================================================================
symbol          name in the code       meaning
==============  =====================  ================================================================
y_0, x_0        ``x0``                 clean data, in the network's range
y_t, x_t        ``x_t``, ``x``         noisy data, x_t = α_t x_0 + σ_t ε
ᾱ_t             ``alphas_cumprod``     product of (1 - β_i) up to t
α_t             ``alpha``              √ᾱ_t, the signal's share (*not* DDPM's 1 - β_t)
σ_t             ``sigma``              √(1 - ᾱ_t), the noise's share
λ_t             ``lambda_t``           log(α_t / σ_t), half the log signal-to-noise ratio
t, s            ``_t``, ``_s``         the present noise level and the next, cleaner one
==============  =====================  ================================================================

The papers count t from 1 to T; tensors count from 0, so timestep ``k`` in the code is t = k + 1 in print.
"""
