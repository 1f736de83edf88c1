"""Recognition of films that are turned, mirrored, inverted or exchanged, by what they show.

A small network scores how much an image looks like an upright frontal and an upright lateral radiograph. The score of a
hypothesis is that of the film after undoing it, so a softmax over all hypotheses gives their probabilities, and no
orientation is preferred by construction. Grey values enter by rank only, whatever scale they have.

If there are two films, they also tell about each other: a body explains both of them, even its perspective, but seldom
one of them and the mirror image of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Tensor, nn

from scripts.exam.acquisition import DIRECTIONS
from scripts.exam.exam import ViewInput
from scripts.geometry import VIEWS, BiplanarGeometry

SIDE = 24
"""Pixels along each side of the images that are scored, 17 mm wide: enough for the heart, too few for markers."""
CHANNELS = (16, 32, 48)
"""Channels of the scoring network's convolutions, each of which halves the image."""
HIDDEN = 64
DROPOUT = 0.3
FIT_EXPONENT = 10.0
"""Two films are as likely as their misfit to the power of minus this, as if it were noise of unknown variance in as
many independent values. Chosen on the validation patients."""
FIT_LIMIT = 0.1
"""Probability that two films are as stated below which readers are warned of a mistake whose fit is known. Chosen on
the validation patients."""
SUSPECTED = 0.01
"""Probability, from a film alone, of being turned by 90 degrees above which the fit of such a film is found."""


class Hypothesis(NamedTuple):
    """How an image must be changed to be upright: transposed, then flipped along (u or v) and w, then inverted."""

    inverted: bool
    transposed: bool
    flipped_across: bool
    flipped_along: bool

    def undo(self, images: Tensor) -> Tensor:
        """Return the images ``[..., N, N]`` put right; values are symmetric about 0."""
        images = images.mT if self.transposed else images
        flipped = [axis for axis, flip in ((-2, self.flipped_across), (-1, self.flipped_along)) if flip]
        return (-1 if self.inverted else 1) * images.flip(flipped)

    @property
    def words(self) -> str:
        """The finding, in words."""
        odd = self.flipped_across != self.flipped_along
        if self.transposed:
            turn = "turned by 90 degrees" if odd else "turned by 90 degrees and mirrored"
        else:
            turn = {(0, 0): "", (1, 0): "mirrored", (0, 1): "upside down and mirrored", (1, 1): "upside down"}[
                self.flipped_across, self.flipped_along
            ]
        return " and ".join(filter(None, (turn, "inverted" if self.inverted else "")))

    def orientation(self, stated: str, view: str, geometry: BiplanarGeometry) -> str:
        """Return the value of ``--orientation`` that puts right a film read with ``stated``."""
        axes = (geometry.view(view).column_axis, 2)
        signs = [-1 if flip else 1 for flip in (self.flipped_across, self.flipped_along)]
        letters = {where: letter for letter, where in DIRECTIONS.items()}
        seen = []
        for letter in stated:
            axis, sign = DIRECTIONS[letter]
            to = axes.index(axis) ^ int(self.transposed)
            seen.append(letters[axes[to], sign * signs[to]])
        return "".join(seen)


HYPOTHESES = tuple(Hypothesis(*flags) for flags in product((False, True), repeat=4))
"""All of them; the first leaves the image as it is."""
FLIPS = range(1, 4)
"""Numbers of the hypotheses that only flip the image."""
TURNS = range(4, 8)
"""Numbers of those that turn it by 90 degrees, and may flip it."""
Seen = tuple[str, Hypothesis]
"""What a film seems to show: a view, and how it lies."""
Misfit = Callable[[Tensor], Tensor]
"""Misfits ``[B]`` of pairs of radiographs ``[B, 2, N, N]`` to a body that explains both, as well as one can."""


class Scores(nn.Sequential):
    """Map of images ``[B, SIDE, SIDE]`` by rank to log-probabilities, up to a constant, of being upright ``[B, 2]``."""

    def __init__(self) -> None:
        first, second, third = CHANNELS
        super().__init__(
            nn.Unflatten(1, (1, SIDE)),
            *(nn.Conv2d(1, first, 5, stride=2, padding=2), nn.ReLU()),
            *(nn.Conv2d(first, second, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(second, third, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Flatten(), nn.Dropout(DROPOUT), nn.Linear(third * (SIDE // 8) ** 2, HIDDEN), nn.ReLU()),
            nn.Linear(HIDDEN, len(VIEWS)),
        )

    def hypotheses(self, images: Tensor, among: Sequence[Hypothesis] = HYPOTHESES) -> Tensor:
        """Return scores ``[B, 2, H]`` of every view and hypothesis for images ``[B, SIDE, SIDE]``."""
        undone = torch.stack([hypothesis.undo(images) for hypothesis in among], dim=1)
        return self(undone.flatten(0, 1)).unflatten(0, undone.shape[:2]).mT


def ranked(images: np.ndarray) -> Tensor:
    """Return the ranks, -1 to 1, of the pixels of ``[B, N, N]`` averaged to ``[B, SIDE, SIDE]``, float32."""
    coarse = F.adaptive_avg_pool2d(torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)), SIDE).flatten(1)
    ranks = (rankdata(coarse.numpy(), axis=1) - 0.5) * (2 / SIDE**2) - 1
    return torch.from_numpy(ranks).float().unflatten(1, (SIDE, SIDE))


def field_of(geometry: BiplanarGeometry) -> Tensor:
    """Return what decides which part of a body radiographs show, and in which perspective, float32 ``[4]``.

    These are the width in mm that a detector sees at the isocentre, the reciprocal distance in 1/m of the source from
    there, and the sides of the two sources. The number of pixels and the volume's grid do not matter.
    """
    width_mm = geometry.isocentre_pitch_mm * geometry.detector_pixels
    sides = [geometry.view(view).source_sign for view in VIEWS]
    return torch.tensor([width_mm, 1000 / geometry.source_to_isocentre_mm, *sides])


class FilmCheck(nn.Module):
    """Check of the films of an exam against what upright radiographs of training patients look like.

    Attributes:
        scores: the scoring network.
        limit: probability of the stated view and orientation below which readers are warned, a 0-dimensional buffer.
        field: what the training radiographs showed, see :func:`field_of`, a buffer ``[4]``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scores, self.limit, self.field = Scores(), nn.Buffer(torch.tensor(0.0)), nn.Buffer(torch.zeros(4))

    @torch.no_grad()
    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return the probabilities ``[B, 2, H]`` of views and :data:`HYPOTHESES` for images ``[B, N, N]``.

        The images are in the network's frame and increase with attenuation.
        """
        scores = self.scores.hypotheses(ranked(images))
        return scores.flatten(1).softmax(dim=1).unflatten(1, scores.shape[1:]).numpy()

    def warnings(
        self,
        images: np.ndarray,
        geometry: BiplanarGeometry,
        inputs: Mapping[str, ViewInput],
        views: Sequence[str] = VIEWS,
        misfit: Misfit | None = None,
    ) -> list[str]:
        """Return warnings about films that hardly show what is stated, each with the remedy.

        Args:
            images: ``[2, N, N]`` in the network's frame, increasing with attenuation.
            geometry: geometry of the network.
            inputs: processing by view, for the stated orientation; empty for line integrals in a stated geometry.
            views: views that are present.
            misfit: finds how well two films fit each other; None if unknown.
        """
        if not torch.allclose(self.field.cpu(), field_of(geometry), rtol=1e-3):  # a file holds half precision
            return [
                "the films are not checked for being the wrong way round: the check was trained for another geometry; "
                "give --film_check one for this geometry (orientation.json), or '' for none"
            ]
        alone = self.probabilities(images)
        if misfit is None or len(views) < len(VIEWS):
            found = self._of_each(alone, views)
        else:
            found = self._of_both(alone, fit_of(torch.from_numpy(images), misfit, _suspected(alone)))
        if len(found) == len(VIEWS) and all(seen != view for view, (seen, _) in found.items()):
            return ["the two films look exchanged; if they are, exchange --frontal and --lateral"]
        return [_advice(view, *what, geometry, inputs.get(view)) for view, what in found.items()]

    def _of_each(self, alone: np.ndarray, views: Sequence[str]) -> dict[str, Seen]:
        """Return what films seem to show, by view, that are unlikely to be as stated by themselves."""
        numbers = [VIEWS.index(view) for view in views]
        return {VIEWS[n]: _likeliest(alone[n]) for n in numbers if alone[n, n, 0] < float(self.limit)}

    def _of_both(self, alone: np.ndarray, fit: np.ndarray) -> dict[str, Seen]:
        """Return the likeliest mistake in two films, by view, if it is likely enough.

        Each film by itself decides about mistakes whose fit is not known.

        Args:
            alone: probabilities ``[2, 2, H]`` from each film alone.
            fit: see :func:`fit_of`.
        """
        frontal, lateral = np.log(np.maximum(alone.astype(np.float64), 1e-30)).reshape(len(VIEWS), -1)
        logarithms = frontal[:, None] + lateral + np.nan_to_num(fit)
        likeliest = np.unravel_index(logarithms.argmax(), fit.shape)
        if np.isnan(fit[likeliest]):
            return self._of_each(alone, VIEWS)
        if np.exp(logarithms[_STATED] - np.logaddexp.reduce(logarithms, axis=None)) >= FIT_LIMIT:
            return {}
        return {
            view: (VIEWS[number // len(HYPOTHESES)], HYPOTHESES[number % len(HYPOTHESES)])
            for view, number, upright in zip(VIEWS, likeliest, _STATED, strict=True)
            if number != upright
        }


def fit_of(images: Tensor, misfit: Misfit, suspected: Sequence[tuple[int, int]] = ()) -> np.ndarray:
    """Return how well two films fit each other under what is supposed of each, ``[2 H, 2 H]``.

    This is a log-likelihood ratio to the films as they are. It is found if a single one is flipped or lies as
    suspected, or if they are exchanged, and then taken to be the same however they lie; NaN elsewhere.

    Args:
        images: the films, ``[2, N, N]``.
        misfit: finds the misfits of pairs.
        suspected: numbers of a view and of a hypothesis.
    """
    suppositions, pairs = [_STATED], [images]
    for number, supposed in [*product(range(len(VIEWS)), FLIPS), *suspected]:
        undone = images.clone()
        undone[number] = HYPOTHESES[supposed].undo(images[number])
        frontal, lateral = _STATED
        suppositions.append((frontal, lateral + supposed) if number else (frontal + supposed, lateral))
        pairs.append(undone)
    suppositions.append(_STATED[::-1])
    pairs.append(images.flip(0))
    logarithms = misfit(torch.stack(pairs)).double().log()
    fit = np.full((len(VIEWS) * len(HYPOTHESES),) * 2, np.nan)
    fit[tuple(np.transpose(suppositions))] = (FIT_EXPONENT * (logarithms[0] - logarithms)).numpy()
    fit[_STATED[1] :, : _STATED[1]] = fit[_STATED[::-1]]
    return fit


_STATED = 0, len(HYPOTHESES)
"""Numbers, among views and hypotheses, of an upright frontal and an upright lateral film."""


def _suspected(alone: np.ndarray) -> list[tuple[int, int]]:
    """Return a view's and a hypothesis' number for films that may be turned, by :data:`SUSPECTED`."""
    return [(view, turn) for view, turn in product(range(len(VIEWS)), TURNS) if alone[view, view, turn] >= SUSPECTED]


def _likeliest(probabilities: np.ndarray) -> Seen:
    seen, most = np.unravel_index(probabilities.argmax(), (len(VIEWS), len(HYPOTHESES)))
    return VIEWS[seen], HYPOTHESES[most]


def _advice(view: str, seen: str, hypothesis: Hypothesis, geometry: BiplanarGeometry, given: ViewInput | None) -> str:
    """Return one warning."""
    if seen != view:
        return f"{view} film: looks like a {seen} view; if it is, give a {view} one"
    if not hypothesis.words:  # the stated orientation is the likeliest, though not likely
        return f"{view} film: unlike an upright {view} radiograph of a trunk; check what it shows"
    remedies = []
    stated = None if given is None or given.film is None else given.acquisition.orientation
    if hypothesis._replace(inverted=False) != HYPOTHESES[0]:
        remedies.append(
            "turn the image in its file"
            if stated is None
            else f"""give --orientation "{{'{view}': '{hypothesis.orientation(stated, view, geometry)}'}}\""""
        )
    if hypothesis.inverted:
        remedies.append("invert its grey values so that bone is bright, or give --intensity counts if they are counts")
    return f"{view} film: looks {hypothesis.words}; if it is, {' and '.join(remedies)}"
