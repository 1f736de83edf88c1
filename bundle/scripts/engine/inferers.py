"""How an engine calls a diffusion network: one noisy evaluation to train, a sampler's loop to reconstruct."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch import Tensor, nn
from tqdm import tqdm

from scripts.diffusion.parametrisation import Parametrisation
from scripts.diffusion.samplers import Sampler, draw_noise
from scripts.diffusion.schedules import marginal, q_sample, respaced_timesteps
from scripts.diffusion.training import Prediction
from scripts.engine.tiles import in_tiles
from scripts.io.options import as_bool, require_number, require_whole


def mixed_precision(device: torch.device, enabled: bool | str) -> AbstractContextManager:
    """bfloat16 autocast on any device; MONAI's engines only offer CUDA's."""
    return torch.autocast(device.type, torch.bfloat16, enabled=as_bool(enabled))


def bfloat16_pays(device: torch.device) -> bool:
    """Whether a device computes bfloat16 convolutions natively; a CPU that does not takes hundreds of times as long."""
    return device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class DiffusionTrainingInferer(Inferer):
    """Adds noise to the targets at random timesteps and asks the network about it, eq (1).

    The random numbers come from the global generators, which the trainer seeds at every iteration
    (:class:`~scripts.engine.seeding.SeedIterations`).

    A sampler never adds noise to the truth, but to what the network took for it, and errors that the network was never
    shown accumulate. With ``rollout`` some batches are made that way: noise is added to the network's own estimate from
    pure noise, and the target stays the truth (scheduled sampling, Bengio et al. 2015, arXiv:1506.03099).

    Args:
        parametrisation: what the network's output means.
        alphas_cumprod: the schedule, float64 ``[T]``.
        amp: evaluate the network in bfloat16.
        rollout: the probability of a batch of own estimates; the paper's is zero.
    """

    def __init__(
        self, parametrisation: Parametrisation, alphas_cumprod: Tensor, amp: bool = False, rollout: float = 0.0
    ) -> None:
        self.parametrisation, self.alphas_cumprod, self.amp = parametrisation, alphas_cumprod, amp
        self.rollout = rollout

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, x0: Tensor, **kwargs: Any) -> Prediction:
        """Evaluate ``network(image, x_t, t)`` on volumes ``x0 [B, 1, U, V, W]`` at random t."""
        t = torch.randint(len(self.alphas_cumprod), (len(x0),), device=x0.device)
        alpha, sigma = marginal(self.alphas_cumprod, t, x0.ndim)
        noise = torch.randn_like(x0)
        x_t = q_sample(x0, noise, alpha, sigma)
        if torch.rand(()) < self.rollout:
            x_t = q_sample(self._own_estimate(inputs, network, x0), noise, alpha, sigma)
            noise = (x_t - alpha * x0) / sigma  # what must be taken away to reach the truth
        output, x0_hat = self._evaluate(inputs, network, x_t, t)
        return Prediction(output, self.parametrisation.target(x0, noise, alpha, sigma), x0_hat)

    def _evaluate(self, inputs: Tensor, network: nn.Module, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = marginal(self.alphas_cumprod, t, x_t.ndim)
        with mixed_precision(x_t.device, self.amp):
            output = network(inputs, x_t, t)
        output = output.float()
        return output, self.parametrisation.to_x0(output, x_t, alpha, sigma)

    @torch.no_grad()
    def _own_estimate(self, inputs: Tensor, network: nn.Module, like: Tensor) -> Tensor:
        bare = getattr(network, "module", network)  # nothing to synchronise between processes
        last = torch.full((len(like),), len(self.alphas_cumprod) - 1, device=like.device)
        return self._evaluate(inputs, bare, torch.randn_like(like), last)[1].clamp(-1.0, 1.0)


class CorrectingTrainingInferer(Inferer):
    """Asks a network that carries its estimate about every exam twice, as a sampler does: at first, and later.

    At first it sees pure noise and the first estimate. Later it sees its own first answer as the estimate, through
    which no gradient flows, and noise at a random timestep on a volume that is for some exams the truth, for the others
    that answer: a sampler adds noise to answers, and only noise on the truth teaches what the radiographs leave open.

    Args:
        alphas_cumprod: the schedule, float64 ``[T]``.
        amp: evaluate the network in bfloat16.
        power: how timesteps are drawn, T u^power with u uniform; 1 evenly, larger prefers clean ones.
        from_truth: the share of exams whose later x_t is made of the truth.
    """

    def __init__(self, alphas_cumprod: Tensor, amp: bool = False, power: float = 2.0, from_truth: float = 0.5) -> None:
        self.alphas_cumprod, self.amp, self.power, self.from_truth = alphas_cumprod, amp, power, from_truth

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, x0: Tensor, **kwargs: Any) -> Prediction:
        """Both answers for volumes ``x0 [B, 1, U, V, W]``, the first B of 2 B being the first ones."""
        count, device, steps = len(x0), x0.device, len(self.alphas_cumprod)
        last = torch.full((count,), steps - 1, device=device)
        with mixed_precision(device, self.amp):
            first = network(inputs, torch.randn_like(x0), last).float()
        estimate = first.detach().clamp(-1.0, 1.0)
        t = (steps * torch.rand(count, device=device) ** self.power).long().clamp(max=steps - 1)
        truthful = (torch.rand(count, device=device) < self.from_truth).reshape(-1, 1, 1, 1, 1)
        x_t = q_sample(x0.where(truthful, estimate), torch.randn_like(x0), *marginal(self.alphas_cumprod, t, x0.ndim))
        with mixed_precision(device, self.amp):
            later = network(inputs, x_t, t, estimate).float()
        answers = torch.cat([first, later])
        return Prediction(answers, torch.cat([x0, x0]), answers)


class ReconstructionInferer(Inferer):
    """Samples volumes from radiographs: the condition once, then one denoiser evaluation per step and group of samples.

    Sample k of an exam depends on the exam and on ``seed + k`` alone: neither on the other exams of the batch, nor on
    how samples are grouped, up to the rounding of the device's kernels for different batch sizes.

    Args:
        sampler: the solver.
        alphas_cumprod: the schedule of training, float64 ``[T]``.
        steps: timesteps to visit.
        power: how they are spaced; see :func:`~scripts.diffusion.schedules.respaced_timesteps`.
        seed: of the initial noise and of all that the sampler draws; sample k of every exam uses ``seed + k``.
        samples: volumes per exam.
        sample_batch: samples that go through the network together; memory grows with it, see docs/uncertainty.md.
        amp: evaluate the network in bfloat16.
        callback: called as ``callback(step, steps)`` after every step of every group.
    """

    def __init__(
        self,
        sampler: Sampler,
        alphas_cumprod: Tensor,
        steps: int = 10,
        power: float = 1.0,
        seed: int = 0,
        samples: int = 1,
        sample_batch: int = 1,
        amp: bool = False,
        callback: Callable[[int, int], None] | None = None,
    ) -> None:
        require_whole(steps=steps, seed=seed, samples=samples, sample_batch=sample_batch)
        require_number(power=power)
        if min(samples, sample_batch) < 1:
            raise ValueError(f"samples and sample_batch must be at least 1, got {samples} and {sample_batch}")
        self.sampler, self.alphas_cumprod = sampler, alphas_cumprod
        self.timesteps = respaced_timesteps(len(alphas_cumprod), steps, power)
        self.seeds, self.sample_batch = range(seed, seed + samples), sample_batch
        self.amp, self.callback = amp, callback

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Volumes ``[B, samples, U, V, W]`` of images ``[B, 2, N, N]``; with one sample ``[B, 1, U, V, W]``."""
        inputs = convert_to_tensor(inputs)  # metadata would be carried through every operation of the network
        with mixed_precision(inputs.device, self.amp):
            condition = network.condition(inputs)
        groups = [self.seeds[i : i + self.sample_batch] for i in range(0, len(self.seeds), self.sample_batch)]
        return torch.cat([self._sample(inputs, network, condition, group) for group in groups], dim=1)

    def _sample(self, inputs: Tensor, network: nn.Module, condition: list[Tensor], seeds: Sequence[int]) -> Tensor:
        """One sample per seed and exam; in the network's batch all exams with the first seed come first."""
        exams, size = len(inputs), len(seeds)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds for _ in range(exams)]
        x_T = draw_noise(torch.empty(size * exams, *network.volume_shape, device=inputs.device), generators)
        # Views for a single exam or sample: the memory is not taken again.
        shared = [c.expand(size, *c.shape).flatten(0, 1) for c in condition]

        def denoise(x: Tensor, t: Tensor, estimate: Tensor) -> Tensor:
            with mixed_precision(x.device, self.amp):
                return network.predict_x0(x, t, shared, estimate)

        def report(step: int, steps: int, x: Tensor, x0: Tensor) -> None:
            if self.callback is not None:
                self.callback(step, steps)

        first = network.first_estimate(shared)
        volumes = self.sampler(denoise, x_T, self.timesteps, self.alphas_cumprod, generators, report, first)
        return volumes.unflatten(0, (size, exams)).transpose(0, 1).flatten(1, 2)


class SuperResolvingInferer(ReconstructionInferer):
    """Samples volumes from the stages in ``network.base``, and has ``network.upsampler`` draw each on a finer grid.

    Args:
        tile: voxels of a sampled volume along each side of the tiles that are drawn at a time.
        sampling: arguments of :class:`ReconstructionInferer`.
    """

    def __init__(self, *, tile: int = 64, **sampling: Any) -> None:
        super().__init__(**sampling)
        self.tile = tile

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Volumes ``[B, samples, f U, f V, f W]`` in [-1, 1] of images ``[B, 2, N, N]``."""
        coarse, upsampler = super().__call__(inputs, network.base), network.upsampler
        with mixed_precision(coarse.device, self.amp):
            samples = [
                in_tiles(upsampler, sample, self.tile, upsampler.halo, upsampler.factor).float()
                for sample in coarse.split(1, dim=1)
            ]
        return torch.cat(samples, dim=1).clamp(-1.0, 1.0)


def choose(options: Mapping[str, Sampler], name: str) -> Sampler:
    """The sampler called ``name``.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in options:
        raise ValueError(f"unknown sampler {name!r}; choose one of {', '.join(sorted(options))}")
    return options[name]


class StepProgress:
    """A progress bar over a sampler's steps, one per reconstruction; on a terminal only."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def __call__(self, step: int, steps: int) -> None:
        """Show that ``step`` (counted from zero) of ``steps`` is done."""
        if self.bar is None:
            self.bar = tqdm(total=steps, desc="sampling", unit="step", leave=False, disable=None)
        self.bar.update()
        if step + 1 == steps:
            self.bar.close()
            self.bar = None
