"""Inferers of evaluators: a sampler's loop for a diffusion network, one evaluation for a direct one.

MONAI's engines call each class as ``inferer(inputs, network, ...)``. None inherits from MONAI's ``Inferer``, which
takes any callable as the network; these classes state the interface that they need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import torch
from monai.utils import convert_to_tensor
from torch import Tensor
from tqdm import tqdm

from scripts.diffusion.samplers import Sampler, draw_noise
from scripts.diffusion.schedules import respaced_timesteps
from scripts.inference.network import DiffusionNetwork, DirectNetwork, SuperResolvingNetwork
from scripts.inference.precision import mixed_precision
from scripts.inference.refine import Refine
from scripts.io.options import require_number, require_seed, require_whole


class Sampling:
    """Sampling of volumes: the condition once, then one evaluation of the denoiser per step and group of samples.

    Sample k of an exam depends only on the exam and on ``seed + k``, not on the other exams of the batch or on how
    samples are grouped, up to the rounding of the device's kernels for different batch sizes.

    Args:
        sampler: the solver.
        alphas_cumprod: the schedule of training, float64 ``[T]``.
        steps: number of timesteps to visit.
        power: exponent of their spacing; see :func:`~scripts.diffusion.schedules.respaced_timesteps`.
        seed: seed of the initial noise and all noise of the sampler; sample k of every exam uses ``seed + k``.
        samples: volumes per exam.
        sample_batch: samples per evaluation of the network; memory grows with it, see docs/uncertainty.md.
        amp: whether to evaluate the network in bfloat16.
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
        require_seed(seed=seed)
        require_whole(steps=steps, samples=samples, sample_batch=sample_batch)
        require_number(power=power)
        if min(samples, sample_batch) < 1:
            raise ValueError(f"samples and sample_batch must be at least 1, got {samples} and {sample_batch}")
        self.sampler, self.alphas_cumprod = sampler, alphas_cumprod
        self.timesteps = respaced_timesteps(len(alphas_cumprod), steps, power)
        self.seeds, self.sample_batch = range(seed, seed + samples), sample_batch
        self.amp, self.callback = amp, callback

    @torch.no_grad()
    def sample(self, inputs: Tensor, network: DiffusionNetwork) -> Tensor:
        """Return volumes ``[B, samples, U, V, W]`` for images ``[B, 2, N, N]``."""
        inputs = convert_to_tensor(inputs)  # metadata would be carried through every operation of the network
        with mixed_precision(inputs.device, self.amp):
            condition = network.condition(inputs)
        groups = [self.seeds[i : i + self.sample_batch] for i in range(0, len(self.seeds), self.sample_batch)]
        return torch.cat([self._group(inputs, network, condition, group) for group in groups], dim=1)

    def _group(
        self, inputs: Tensor, network: DiffusionNetwork, condition: list[Tensor], seeds: Sequence[int]
    ) -> Tensor:
        """Draw one sample per seed and exam; in the network's batch, all exams with the first seed come first."""
        exams, size = len(inputs), len(seeds)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds for _ in range(exams)]
        noise = draw_noise(torch.empty(size * exams, *network.volume_shape, device=inputs.device), generators)
        # For a single exam or sample, these are views without memory of their own.
        shared = [c.expand(size, *c.shape).flatten(0, 1) for c in condition]

        def denoise(x: Tensor, t: Tensor, estimate: Tensor) -> Tensor:
            with mixed_precision(x.device, self.amp):
                return network.predict_x0(x, t, shared, estimate)

        def report(step: int, steps: int, x: Tensor, x0: Tensor) -> None:
            if self.callback is not None:
                self.callback(step, steps)

        first = network.first_estimate(shared)
        volumes = self.sampler(denoise, noise, self.timesteps, self.alphas_cumprod, generators, report, first)
        return volumes.unflatten(0, (size, exams)).transpose(0, 1).flatten(1, 2)


class ReconstructionInferer(Sampling):
    """Inferer that reconstructs by sampling, with the arguments of :class:`Sampling`."""

    def __call__(self, inputs: Tensor, network: DiffusionNetwork, *args: Any, **kwargs: Any) -> Tensor:
        """Return volumes ``[B, samples, U, V, W]`` for images ``[B, 2, N, N]``."""
        return self.sample(inputs, network)


class SuperResolvingInferer(Sampling):
    """Inferer that samples volumes from the coarsest network and refines each on finer grids, one stage after another.

    Every second sample is refined mirrored.

    Args:
        tile: side of the tiles that are computed at a time, in voxels of the volume that a stage refines.
        sampling: arguments of :class:`Sampling`.
    """

    def __init__(self, *, tile: int = 64, **sampling: Any) -> None:
        super().__init__(**sampling)
        require_whole(tile=tile)
        if tile < 1:
            raise ValueError(f"--tile must be at least 1, got {tile}")
        self.tile = tile

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: SuperResolvingNetwork, *args: Any, **kwargs: Any) -> Tensor:
        """Return volumes ``[B, samples, f U, f V, f W]`` in [-1, 1] for images ``[B, 2, N, N]``."""
        return self._volumes(convert_to_tensor(inputs), network)

    def _volumes(self, image: Tensor, network: SuperResolvingNetwork | DiffusionNetwork) -> Tensor:
        if not isinstance(network, SuperResolvingNetwork):
            return self.sample(image, network)
        coarse = self._volumes(network.coarse_image(image), network.base)
        turns = cycle([Refine(network, self.tile, self.amp, mirror) for mirror in (False, True)])
        samples = zip(coarse.split(1, dim=1), turns, strict=False)
        return torch.cat([refine(network.start(sample), image) for sample, refine in samples], dim=1)


def choose(options: Mapping[str, Sampler], name: str) -> Sampler:
    """Return the sampler called ``name``.

    Raises:
        ValueError: there is no sampler of that name.
    """
    if name not in options:
        raise ValueError(f"unknown sampler {name!r}; choose one of {', '.join(sorted(options))}")
    return options[name]


class StepProgress:
    """Progress bar over a sampler's steps, one per reconstruction, shown only on a terminal."""

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


class DirectInferer:
    """Inferer that reconstructs with one evaluation of the network, clipped to its range.

    Args:
        amp: whether to evaluate the network in bfloat16.
    """

    def __init__(self, amp: bool = False) -> None:
        self.amp = amp

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: DirectNetwork, *args: Any, **kwargs: Any) -> Tensor:
        """Return volumes ``[B, 1, U, V, W]`` in [-1, 1] for images ``[B, 2, N, N]``."""
        inputs = convert_to_tensor(inputs)  # metadata would be carried through every operation of the network
        with mixed_precision(inputs.device, self.amp):
            volume = network(inputs)
        return volume.float().clamp(-1.0, 1.0)
