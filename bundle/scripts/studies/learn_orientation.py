"""Training of the check of films (:mod:`scripts.exam.orientation`) on simulated films, and its error rates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from tqdm import tqdm

from scripts.data.datasets import RandomViews
from scripts.data.film_effects import RandomFilms
from scripts.exam.orientation import HYPOTHESES, SIDE, FilmCheck, Scores, field_of, ranked
from scripts.geometry import VIEWS, BiplanarGeometry
from scripts.intensity import hu_to_mu
from scripts.io.atomic import require_writable, whole_file
from scripts.io.options import require_number, require_whole
from scripts.metrics.tables import to_csv

WEIGHT_DECAY = 0.05
FALSE_ALARMS = 0.002
"""Share of the films of the fitted patients that the limit warns of: a tenth of what is wanted, as new ones differ."""


class Exams(NamedTuple):
    """Ranked images ``[n, SIDE, SIDE]`` and their views ``[n]``, by number."""

    images: Tensor
    views: Tensor


def learn_orientation(
    output: str | Path,
    datasets: Mapping[str, RandomViews],
    projector: nn.Module,
    films: RandomFilms,
    geometry: BiplanarGeometry,
    exams: Mapping[str, int],
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> None:
    """Train the check of films, choose its limit, write it, and print its error rates on new patients as CSV.

    Args:
        output: the file to write, a state_dict of :class:`~scripts.exam.orientation.FilmCheck` in half precision; its
            folder is created if needed.
        datasets: random views of the patients by split: ``train``, ``val`` for the limit, ``test`` for the error rates.
        projector, films: see :func:`draw_films`.
        geometry: geometry of the radiographs.
        exams: number of exams to simulate by split.
        steps, batch_size, learning_rate, seed: see :func:`learn`.

    Raises:
        ValueError: a number is impossible.
    """
    output = Path(output)
    require_whole(steps=steps, batch_size=batch_size, **{f"exams#{split}": count for split, count in exams.items()})
    if min(steps, batch_size, *exams.values()) < 1:
        raise ValueError(
            f"orientation: steps, batch_size and exams must be at least 1, got {steps}, {batch_size}, {exams}"
        )
    require_number(learning_rate=learning_rate)
    require_writable(output.parent)
    drawn = {split: draw_films(dataset, projector, films, exams[split]) for split, dataset in datasets.items()}
    check = FilmCheck().eval()
    check.scores = learn(drawn["train"], steps, batch_size, learning_rate, seed)
    check.field.copy_(field_of(geometry))
    check.half().float()  # as it will be read
    check.limit.fill_(min(limit_of(check, drawn[split]) for split in ("train", "val")))
    output.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(output) as partial:
        torch.save({name: value.half() for name, value in check.state_dict().items()}, partial)
    for split, films_of_split in drawn.items():
        print(f"{split}, limit {float(check.limit):.4f}\n{to_csv(rates(check, films_of_split))}")


def draw_films(dataset: RandomViews, projector: nn.Module, films: RandomFilms, count: int) -> Exams:
    """Simulate the films of ``count`` items of a data set, each with and without film effects.

    Args:
        dataset: random views of patients.
        projector: maps mu in 1/mm ``[B, 1, U, V, W]`` to line integrals ``[B, 2, N, N]``; may draw pose errors with the
            global generator, which is seeded for every item.
        films: distribution of film effects.
        count: number of items.
    """
    found = []
    for item in tqdm(range(count), "films", unit="exam"):
        torch.manual_seed(dataset.seed * 1_000_003 + item)
        line_integrals = projector(hu_to_mu(dataset[item]["hu"][None]))
        made = films.draw(1, torch.default_generator)(line_integrals)
        found += [ranked(images[0].numpy()) for images in (line_integrals, made)]
    return Exams(torch.cat(found), torch.arange(len(VIEWS)).repeat(len(found)))


def learn(exams: Exams, steps: int, batch_size: int, learning_rate: float, seed: int) -> Scores:
    """Train a network so that the true hypothesis is likelier than others, as films are upright."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():  # for the initial weights and the dropout
        torch.manual_seed(seed)
        scores = Scores()
        optimizer = torch.optim.AdamW(scores.parameters(), learning_rate, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in tqdm(range(steps), "training", unit="step"):
            chosen = torch.randint(len(exams.views), (batch_size,), generator=generator)
            some = torch.randperm(len(HYPOTHESES) - 4, generator=generator)[:3] + 4
            # the four that keep the long axis upright in place are hard to tell apart, so they are always among them
            among = [*HYPOTHESES[:4], *(HYPOTHESES[number] for number in some)]
            rated = scores.hypotheses(varied(exams.images[chosen], generator), among)
            loss = F.cross_entropy(rated.flatten(1), exams.views[chosen] * len(among))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return scores.eval()


def varied(images: Tensor, generator: Generator) -> Tensor:
    """Return ranked images that are also enlarged, shifted, turned and unevenly exposed at random."""
    n = len(images)
    maps = torch.zeros(n, 2, 3)
    maps[:, [0, 1], [0, 1]] = torch.exp(0.08 * torch.randn(n, 2, generator=generator))
    turn = 0.03 * torch.randn(n, generator=generator)
    maps[:, 0, 1], maps[:, 1, 0] = turn, -turn
    maps[:, :, 2] = 0.05 * torch.randn(n, 2, generator=generator)
    grid = F.affine_grid(maps, [n, 1, SIDE, SIDE], align_corners=False)
    moved = F.grid_sample(images[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    uneven = F.interpolate(torch.randn(n, 1, 4, 4, generator=generator), SIDE, mode="bicubic")[:, 0]
    return moved + 0.08 * uneven + 0.03 * torch.randn(moved.shape, generator=generator)


def limit_of(check: FilmCheck, exams: Exams) -> float:
    """Return the probability below which :data:`FALSE_ALARMS` of upright films lie."""
    return float(np.quantile(_stated(check, exams)[0], FALSE_ALARMS))


def rates(check: FilmCheck, exams: Exams) -> list[dict[str, str | float]]:
    """Return per mistake the shares of frontal and lateral films that raise a warning, and that name the mistake.

    By construction of the check, the film with a mistake needs no further scoring: its probabilities are those of the
    upright film, in another order. The first row, without mistake, holds the false alarms.
    """
    rows = []
    for hypothesis in HYPOTHESES:
        mistaken = Exams(hypothesis.undo(exams.images), exams.views)
        stated, likeliest = _stated(check, mistaken)
        right = np.array([HYPOTHESES[found].undo(hypothesis.undo(_MARK)).equal(_MARK) for found in likeliest[1]])
        rows.append(
            _row(hypothesis.words or "none", check, exams, stated, right & (likeliest[0] == exams.views.numpy()))
        )
    stated, likeliest = _stated(check, Exams(exams.images, 1 - exams.views))
    rows.append(_row("the other view", check, exams, stated, likeliest[0] == exams.views.numpy()))
    return rows


_MARK = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0))
"""An image without symmetry, to see what two hypotheses make together."""


def _stated(check: FilmCheck, exams: Exams) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Return the probability ``[n]`` of the stated view and orientation, and the likeliest view and hypothesis."""
    with torch.no_grad():
        p = torch.cat([check.scores.hypotheses(part).flatten(1).softmax(1) for part in exams.images.split(256)]).numpy()
    stated = p[np.arange(len(p)), exams.views.numpy() * len(HYPOTHESES)]
    return stated, np.divmod(p.argmax(axis=1), len(HYPOTHESES))


def _row(mistake: str, check: FilmCheck, exams: Exams, stated: np.ndarray, named: np.ndarray) -> dict[str, str | float]:
    warned = stated < float(check.limit)
    row: dict[str, str | float] = {"mistake": mistake}
    for number, view in enumerate(VIEWS):
        of_view = exams.views.numpy() == number
        row |= {f"{view}: warned": warned[of_view].mean(), f"{view}: named": (warned & named)[of_view].mean()}
    return row
