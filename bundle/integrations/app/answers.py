"""What the page can ask about films, and the options of ``inference.json`` that answers become."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from scripts.exam.acquisition import SIDES
from scripts.geometry import VIEWS

_PARTS = {"R": "right side", "L": "left side", "A": "front", "P": "back", "H": "head", "F": "feet"}
_STOOD = {"anterior": "in front (AP)", "posterior": "behind (PA)", "right": "at the right", "left": "at the left"}


class Question(NamedTuple):
    """A question with an answer per view.

    Attributes:
        words: the question.
        example: a possible answer in millimetres; empty if there are choices.
        choices: words of the possible answers by view and value; empty for a number.
    """

    words: str
    example: str
    choices: Mapping[str, Mapping[str, str]]


def _orientations(view: str) -> dict[str, str]:
    """Return the words of all eight orientations, the usual one first and those of a patient lying last."""
    across = {"frontal": "LR", "lateral": "PA"}[view]
    upright = [along_row + along_column for along_column in "FH" for along_row in across]
    both = (*upright, *(pair[::-1] for pair in upright))
    return {right + bottom: f"{_PARTS[right]} at the right, {_PARTS[bottom]} at the bottom" for right, bottom in both}


QUESTIONS = {
    "source_to_detector_mm": Question("Distance from the tube to the detector (mm)", "1800", {}),
    "source_to_isocentre_mm": Question("Distance from the tube to the middle of the patient (mm)", "1600", {}),
    "pixel_spacing_mm": Question("Size of a pixel on the detector (mm)", "0.15", {}),
    "orientation": Question("Where the patient's parts are in the picture", "", {v: _orientations(v) for v in VIEWS}),
    "source_side": Question(
        "Where the tube stood", "", {view: {side: _STOOD[side] for side in SIDES[view]} for view in VIEWS}
    ),
}
"""Questions by the name of the option, see docs/radiographs.md."""


def asked(message: str) -> set[str]:
    """Return the names of the options that an error message of the bundle names."""
    return set(re.findall(r"--(\w+)", message))


def options(answers: Mapping[str, str], films: Sequence[str]) -> dict[str, Any]:
    """Convert answers to options; no text of an answer becomes one, because a configuration may hold expressions.

    Args:
        answers: texts by ``OPTION.VIEW``; ``VIEW`` alone names the film of a view. Empty texts count as missing.
        films: names of the films.

    Raises:
        ValueError: an answer is neither a number nor one of the choices.
    """
    told: dict[str, Any] = {}
    for name, question in QUESTIONS.items():
        given = {view: answers.get(f"{name}.{view}", "").strip() for view in VIEWS}
        values = {view: _value(question, view, text) for view, text in given.items() if text}
        if values:
            told[name] = values
    return told | _views(answers, films)


def _views(answers: Mapping[str, str], films: Sequence[str]) -> dict[str, str]:
    """Return the film of each view if at least one is told; of two films, the other one is of the other view."""
    named = {view: answers[view] for view in VIEWS if answers.get(view)}
    if unknown := [name for name in named.values() if name not in films]:
        raise ValueError(f"views: no film {unknown[0]!r}; choose one of the films on the page")
    missing, left = [view for view in VIEWS if view not in named], [f for f in films if f not in named.values()]
    if named and len(missing) == len(left) == 1:
        named[missing[0]] = left[0]
    return {view: films[films.index(name)] for view, name in named.items()}


def _value(question: Question, view: str, text: str) -> float | str:
    if question.choices:
        if text not in question.choices[view]:
            raise ValueError(f"{question.words}, {view} film: choose one of the list, got {text!r}")
        return text
    try:
        return float(text.replace(",", "."))
    except ValueError:
        raise ValueError(
            f"{question.words}, {view} film: give a number like {question.example}, got {text!r}"
        ) from None
