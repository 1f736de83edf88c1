"""Training of the prediction of errors (:mod:`scripts.networks.error_scale`) on finished reconstructions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from tqdm import tqdm

from scripts.inference.measured import prepare_measured
from scripts.intensity import HU_PER_UNIT, hu_to_network
from scripts.io.atomic import require_writable, whole_file
from scripts.io.options import require_number, require_whole
from scripts.studies.cases import ReadableCases

logger = logging.getLogger(__name__)
FLOOR = 5 / HU_PER_UNIT
"""Error, in network range, below which errors count as alike."""
OUTSIDE = 0.25
"""Voxels of the air around a body, relative to those of the body."""


class Voxels(NamedTuple):
    """Voxels of a case.

    Attributes:
        evidence: what the network reads, ``[N, C, 1, 1, 1]``.
        error: the true error in network range, ``[N]``.
        inside: whether they are of the body, ``[N]``.
    """

    evidence: Tensor
    error: Tensor
    inside: Tensor


def learn_error(
    output: str | Path,
    network: Any,
    reconstruct: Callable[[Tensor], Tensor],
    device: torch.device,
    cases: Mapping[str, ReadableCases],
    body: Callable[[np.ndarray], np.ndarray],
    voxels: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    prepare: Callable[..., tuple[Tensor, Tensor | None]] = prepare_measured,
) -> None:
    """Train the network on reconstructions of ``train``, write its weights, and print how well it ranks errors.

    Args:
        output: the file to write, a state_dict; its folder is created if needed.
        network: an untrained :class:`~scripts.networks.error_scale.ErrorScale`.
        reconstruct: maps images ``[B, 2, N, N]`` to volumes ``[B, samples, U, V, W]`` in network range.
        device: where the networks are.
        cases: prepared cases of ``train`` and ``val``, with ``line_integrals`` and ``hu``; unreadable ones are left
            out with a warning.
        body: maps true HU ``[U, V, W]`` to the patient's voxels.
        voxels: voxels of each case's body, drawn at random, beside :data:`OUTSIDE` times as many around it.
        steps, batch_size, learning_rate, seed: see :func:`learn`.
        prepare: makes the networks' image from a batch, and a target that is not used.

    Raises:
        ValueError: a number is impossible.
    """
    output = Path(output)
    require_whole(voxels=voxels, learning_steps=steps, learning_batch=batch_size)
    require_number(learning_rate=learning_rate)
    if min(voxels, steps, batch_size) < 1:
        raise ValueError(
            f"--voxels, --learning_steps and --learning_batch must be at least 1, got {voxels}, {steps}, {batch_size}"
        )
    require_writable(output.parent)
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for split, some in cases.items():
        for error in some.failures.values():
            logger.warning("left out: %s", error)
        known = tqdm(some, f"reconstruct {split}", unit="case")
        drawn[split] = [
            draw_voxels(case, network, reconstruct, device, body, voxels, generator, prepare) for case in known
        ]
    learn(network, drawn["train"], steps, batch_size, learning_rate, generator)
    output.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(output) as partial:
        torch.save({name: value.cpu() for name, value in network.state_dict().items()}, partial)
    for split, found in drawn.items():
        print(f"{split}: rank correlation with the true error {np.mean([rank(network, case) for case in found]):.3f}")


@torch.no_grad()
def draw_voxels(
    case: Mapping[str, Any],
    network: Any,
    reconstruct: Callable[[Tensor], Tensor],
    device: torch.device,
    body: Callable[[np.ndarray], np.ndarray],
    count: int,
    generator: torch.Generator,
    prepare: Callable[..., tuple[Tensor, Tensor | None]],
) -> Voxels:
    """Reconstruct a case and draw ``count`` voxels of its body and some around it, or all if there are fewer."""
    image, _ = prepare({"line_integrals": case["line_integrals"][None]}, device)
    volume = reconstruct(image).mean(dim=1, keepdim=True)
    inside = torch.from_numpy(body(case["hu"][0].numpy())).flatten()
    chosen = torch.cat(
        [
            where[torch.randperm(len(where), generator=generator)[:number]]
            for where, number in ((inside.nonzero()[:, 0], count), ((~inside).nonzero()[:, 0], round(OUTSIDE * count)))
        ]
    )
    evidence = network.evidence(image, volume)[0].flatten(1).cpu()[:, chosen].T
    truth = hu_to_network(case["hu"].float()).clamp(-1, 1)
    error = (truth.flatten() - volume.flatten().cpu()).abs()[chosen]
    return Voxels(evidence[..., None, None, None], error, inside[chosen])


def learn(
    network: Any,
    cases: list[Voxels],
    steps: int,
    batch_size: int,
    learning_rate: float,
    generator: torch.Generator,
) -> None:
    """Train the network by AdamW, with a learning rate that falls to 0 along half a cosine."""
    device = next(network.parameters()).device
    evidence = torch.cat([case.evidence for case in cases]).to(device)
    error = torch.cat([case.error for case in cases]).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in tqdm(range(steps), "training", unit="step"):
        chosen = torch.randint(len(error), (batch_size,), generator=generator).to(device)
        loss = log_error_loss(network.size(evidence[chosen]).flatten(), error[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def log_error_loss(size: Tensor, error: Tensor) -> Tensor:
    """Return the mean squared difference of the logarithms of predicted and true errors, with :data:`FLOOR`.

    The best prediction is the geometric mean of all errors that are possible in a voxel. Rare large errors affect it
    less than the arithmetic mean, which a Laplace likelihood would teach, so that it orders errors better.
    """
    return (size.log() - (error + FLOOR).log()).square().mean()


@torch.no_grad()
def rank(network: Any, case: Voxels) -> float:
    """Return Spearman's rank correlation of a case's predicted and true errors in its body."""
    device = next(network.parameters()).device
    size = network.size(case.evidence.to(device)).flatten().cpu()
    return float(spearmanr(size[case.inside], case.error[case.inside]).statistic)
