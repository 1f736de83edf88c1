"""Inferers for training: with noise at random timesteps, once or twice, or directly.

Each class is an inferer for MONAI's engines, like those of :mod:`scripts.inference.reconstruct`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scripts.diffusion.parametrisation import Parametrisation
from scripts.diffusion.schedules import marginal, q_sample
from scripts.diffusion.training import Prediction
from scripts.inference.network import DenoisingNetwork, DirectNetwork, RefiningNetwork, SuperResolvingNetwork
from scripts.inference.precision import mixed_precision
from scripts.io.options import require_number, require_probability


def _unwrapped(network: Any) -> Any:
    """Return the network without its wrapper for several processes."""
    return getattr(network, "module", network)


class DiffusionTrainingInferer:
    """Inferer that evaluates the network on targets with noise at random timesteps, eq (1).

    The random numbers come from the global generators, which the trainer seeds at every iteration
    (:class:`~scripts.training.seeding.SeedIterations`).

    A sampler adds noise not to the truth but to the network's estimate, so errors that the network has never seen
    accumulate. With ``rollout``, some batches are made that way: noise is added to the network's own estimate from pure
    noise, while the target remains the truth (scheduled sampling, Bengio et al. 2015, arXiv:1506.03099).

    Args:
        parametrisation: meaning of the network's output.
        alphas_cumprod: the schedule, float64 ``[T]``.
        amp: whether to evaluate the network in bfloat16.
        rollout: probability of a batch of own estimates, zero in the paper.

    Raises:
        ValueError: ``rollout`` is no probability.
    """

    def __init__(
        self, parametrisation: Parametrisation, alphas_cumprod: Tensor, amp: bool = False, rollout: float = 0.0
    ) -> None:
        require_probability(rollout=rollout)
        self.parametrisation, self.alphas_cumprod, self.amp = parametrisation, alphas_cumprod, amp
        self.rollout = rollout

    def __call__(self, inputs: Tensor, network: DenoisingNetwork, *args: Any, x0: Tensor, **kwargs: Any) -> Prediction:
        """Evaluate ``network(image, x_t, t)`` on volumes ``x0 [B, 1, U, V, W]`` at random t."""
        t = torch.randint(len(self.alphas_cumprod), (len(x0),), device=x0.device)
        alpha, sigma = marginal(self.alphas_cumprod, t, x0.ndim)
        noise = torch.randn_like(x0)
        x_t = q_sample(x0, noise, alpha, sigma)
        if torch.rand(()) < self.rollout:
            x_t = q_sample(self._own_estimate(inputs, network, x0), noise, alpha, sigma)
            noise = (x_t - alpha * x0) / sigma  # the noise to remove to reach the truth
        output, x0_hat = self._evaluate(inputs, network, x_t, t)
        return Prediction(output, self.parametrisation.target(x0, noise, alpha, sigma), x0_hat)

    def _evaluate(self, inputs: Tensor, network: DenoisingNetwork, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = marginal(self.alphas_cumprod, t, x_t.ndim)
        with mixed_precision(x_t.device, self.amp):
            output = network(inputs, x_t, t)
        output = output.float()
        return output, self.parametrisation.to_x0(output, x_t, alpha, sigma)

    @torch.no_grad()
    def _own_estimate(self, inputs: Tensor, network: DenoisingNetwork, like: Tensor) -> Tensor:
        last = torch.full((len(like),), len(self.alphas_cumprod) - 1, device=like.device)
        return self._evaluate(inputs, _unwrapped(network), torch.randn_like(like), last)[1].clamp(-1.0, 1.0)


class CorrectingTrainingInferer:
    """Inferer that evaluates a network with its own estimate twice per exam: at a sampler's first and a later step.

    First the network sees pure noise and the first estimate. Then it sees its own first prediction as the estimate,
    without gradient and changed to meet the radiographs as in a sampler, and noise at a random timestep on a volume:
    for some exams the truth, for the others that prediction. A sampler adds noise to predictions, but only noise on the
    truth teaches what the radiographs leave undetermined.

    Args:
        alphas_cumprod: the schedule, float64 ``[T]``.
        amp: whether to evaluate the network in bfloat16.
        power: exponent of the timesteps T u^power with u uniform; 1 is even, larger prefers clean ones.
        from_truth: fraction of exams with a later x_t made from the truth.

    Raises:
        ValueError: ``from_truth`` is no fraction, or ``power`` not positive.
    """

    def __init__(self, alphas_cumprod: Tensor, amp: bool = False, power: float = 2.0, from_truth: float = 0.5) -> None:
        require_probability(from_truth=from_truth)
        require_number(noise_power=power)
        if power <= 0:
            raise ValueError(f"--noise_power must be positive, got {power}")
        self.alphas_cumprod, self.amp, self.power, self.from_truth = alphas_cumprod, amp, power, from_truth

    def __call__(self, inputs: Tensor, network: DenoisingNetwork, *args: Any, x0: Tensor, **kwargs: Any) -> Prediction:
        """Return both predictions for volumes ``x0 [B, 1, U, V, W]``; the first B of 2 B are the first ones."""
        count, device, steps = len(x0), x0.device, len(self.alphas_cumprod)
        last = torch.full((count,), steps - 1, device=device)
        bare = _unwrapped(network)
        with mixed_precision(device, self.amp):
            condition = bare.condition(inputs)
            first = network(inputs, torch.randn_like(x0), last, None, condition).float()
        with torch.no_grad():
            estimate = bare.meet(first.clamp(-1.0, 1.0), condition)
        t = (steps * torch.rand(count, device=device) ** self.power).long().clamp(max=steps - 1)
        truthful = (torch.rand(count, device=device) < self.from_truth).reshape(-1, 1, 1, 1, 1)
        x_t = q_sample(x0.where(truthful, estimate), torch.randn_like(x0), *marginal(self.alphas_cumprod, t, x0.ndim))
        with mixed_precision(device, self.amp):
            later = network(inputs, x_t, t, estimate, condition).float()
        answers, truth = torch.cat([first, later]), torch.cat([x0, x0])
        return Prediction(answers, truth, answers, truth)


class RefiningTrainingInferer:
    """Inferer of a refining stage: random tiles of volumes that its coarse stage reconstructs.

    The coarse stage samples a volume from new noise. With several passes, each batch trains a random one of them; the
    passes before it compute its input without gradients.

    Args:
        tiles: tiles per exam.
        side: side of the tiles, in cells of the coarse grid; at most the whole volume.
        mirror: probability that the refiner sees a batch's tiles mirrored.
        amp: whether to evaluate the networks in bfloat16.

    Raises:
        ValueError: there is no tile, its side is not a positive even number, or ``mirror`` is no probability.
    """

    def __init__(self, tiles: int = 1, side: int = 48, mirror: float = 0.5, amp: bool = False) -> None:
        if not (isinstance(tiles, int) and tiles >= 1):
            raise ValueError(f"--tiles must be a whole number of at least 1, got {tiles!r}")
        if not (isinstance(side, int) and side >= 2 and side % 2 == 0):
            raise ValueError(f"--training_tile must be an even whole number of at least 2, got {side!r}")
        require_probability(**{"training_inferer#mirror": mirror})
        self.tiles, self.side, self.mirror, self.amp = tiles, side, mirror, amp

    def __call__(self, inputs: Tensor, network: RefiningNetwork, *args: Any, x0: Tensor, **kwargs: Any) -> Prediction:
        """Compute tiles ``[K B, 1, 2 side, 2 side, 2 side]`` of exams with volumes ``x0 [B, 1, 2U, 2V, 2W]``."""
        cells = torch.tensor(x0.shape[2:]) // 2
        side = min(self.side, int(cells.min()))
        corners = 2 * torch.floor(torch.rand(self.tiles, 3) * ((cells - side) // 2 + 1)).long()
        mirror = bool(torch.rand(()) < self.mirror)
        bare = _unwrapped(network)
        with mixed_precision(inputs.device, self.amp):
            volume = self._volume(inputs, bare)
            answer = network(inputs, volume, corners, side, mirror)
        answer, truth = answer.float(), bare.crop(x0, 2 * corners, 2 * side)
        return Prediction(answer, truth, answer, truth)

    @torch.no_grad()
    def _volume(self, image: Tensor, network: RefiningNetwork) -> Tensor:
        return _refined(image, network, passes=int(torch.randint(network.passes, ())))


def _sampled(image: Tensor, network: Any) -> Tensor:
    """Sample volumes from new noise, stage by stage."""
    if isinstance(network, SuperResolvingNetwork):
        return _refined(image, network, network.passes)
    noise = torch.randn(len(image), *network.volume_shape, device=image.device)
    return network.reconstruct_from(noise, network.condition(image)).float()


def _refined(image: Tensor, network: SuperResolvingNetwork, passes: int) -> Tensor:
    """Sample coarse volumes and refine them in some of the network's passes."""
    volume = network.start(_sampled(network.coarse_image(image), network.base))
    for _ in range(passes):
        volume = network.upsampler(network.evidence(image, volume)).float()
    return volume


class DirectTrainingInferer:
    """Inferer of direct networks that returns volume and target as a :class:`Prediction`, like diffusion.

    Args:
        amp: whether to evaluate the network in bfloat16.
    """

    def __init__(self, amp: bool = False) -> None:
        self.amp = amp

    def __call__(self, inputs: Tensor, network: DirectNetwork, *args: Any, x0: Tensor, **kwargs: Any) -> Prediction:
        """Evaluate ``network(image)`` on images ``[B, 2, N, N]`` with true volumes ``x0 [B, 1, U, V, W]``."""
        with mixed_precision(inputs.device, self.amp):
            volume = network(inputs)
        volume = volume.float()
        return Prediction(volume, x0, volume)
