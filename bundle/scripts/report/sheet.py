"""Figures laid out in inches, shared by all pictures with several volumes side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke

from scripts.report.planes import as_displayed

NOTICE = "synthetic reconstructions, NOT FOR DIAGNOSTIC USE"
LINE = 0.16
"""Height of a line of text in inches."""


class Sheet:
    """Figure with positions in inches from the top left corner.

    Args:
        width: width of the figure in inches.
        height: height of the figure in inches.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height, self.figure = width, height, Figure(figsize=(width, height))

    def axes(self, x: float, y: float, width: float, height: float, label: str) -> Axes:
        """Add axes with their top left corner at (x, y)."""
        place = x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height
        return self.figure.add_axes(place, label=label)

    def text(self, x: float, y: float, text: str, size: float, **style: Any) -> None:
        """Write text verbatim, centred above (x, y); a dollar sign does not start a formula."""
        style = {"ha": "center", "va": "bottom", "fontsize": size, "parse_math": False, **style}
        self.figure.text(x / self.width, 1 - y / self.height, text, **style)

    def head(self, x: float, y: float, name: str) -> None:
        """Write the name of a column, centred at ``x``, above pictures that start at ``y``."""
        self.text(x, y - LINE / 4, wrapped(name), 9)

    def row_name(self, x: float, y: float, name: str) -> None:
        """Write the name of a row upwards, centred at ``y``, left of pictures that start at ``x``."""
        self.text(x - LINE / 4, y, name, 9, rotation=90, ha="right", va="center")

    def notes(self, x: float, y: float, lines: Iterable[str]) -> None:
        """Write small lines of text downwards from (x, y)."""
        self.text(x, y, "\n".join(lines), 7, ha="left", va="top")


def wrapped(name: str, width: int = 18) -> str:
    """Break a name into lines of at most ``width`` characters; a line may end at an underscore as at a hyphen."""
    return "\n".join(textwrap.wrap(name.replace("_", "_ "), width)).replace("_ ", "_")


def head_height(names: Iterable[str]) -> float:
    """Return the inches that the tallest of these column names takes, see :meth:`Sheet.head`."""
    return (1.5 + max(wrapped(name).count("\n") for name in names)) * LINE


def note_lines(notes: Iterable[str], inches: float) -> list[str]:
    """Break notes into lines that fit a width, starting each note on a new line; see :meth:`Sheet.notes`."""
    return [line for note in notes for line in textwrap.wrap(note, int(18 * inches))]


def show(axes: Axes, plane: np.ndarray, colours: str, low: float, high: float) -> AxesImage:
    """Show a plane or radiograph ``[a, b]`` on the whole of ``axes``: b runs upwards, a from right to left."""
    axes.set_axis_off()
    return axes.imshow(as_displayed(plane), cmap=colours, vmin=low, vmax=high, aspect="auto")


def mark(
    axes: Axes, x: float, y: float, text: str, colour: str = "white", edge: str = "black", ha: str = "left"
) -> None:
    """Write small outlined text on a picture, at (x, y) as fractions of its width and height."""
    outline = [withStroke(linewidth=1.5, foreground=edge)]
    axes.text(x, y, text, color=colour, fontsize=7, ha=ha, va="center", path_effects=outline, transform=axes.transAxes)
