"""A grid of pictures: a column per volume, a row per view, and notes below."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scripts.report.sheet import LINE, Sheet, head_height, note_lines

COLUMNS = 7
"""Largest number of columns side by side; further ones start a new band below."""
# Inches: the gap between pictures, the left edge with the names of the rows, and the smallest width of a column, which
# fits a line of its name.
GAP, LEFT, NARROWEST = 0.12, 2 * LINE, 1.7


class Tile(NamedTuple):
    """Picture in a grid: its size in inches, and the function that draws it."""

    width: float
    height: float
    draw: Callable[[Axes], None]


def grid(columns: Mapping[str, Mapping[str, Tile]], notes: Sequence[str]) -> Figure:
    """Draw a grid; the label of each axes names its row and column, e.g. ``"frontal, truth"``.

    Args:
        columns: for each column name, tiles by row name. All columns have the same rows, and all tiles of a row the
            same height.
        notes: notes below the grid.
    """
    rows = next(iter(columns.values()))
    bands = -(-len(columns) // COLUMNS)
    per_band = -(-len(columns) // bands)
    column_width = max(NARROWEST, *(tile.width for tiles in columns.values() for tile in tiles.values()))
    head = head_height(columns)
    band_height = head + sum(tile.height + GAP for tile in rows.values())
    width = LEFT + per_band * (column_width + GAP)
    lines = note_lines(notes, width)
    sheet = Sheet(width, bands * band_height + (len(lines) + 0.5) * LINE)
    sheet.notes(LINE, bands * band_height, lines)
    for i, (name, tiles) in enumerate(columns.items()):
        band, column = divmod(i, per_band)
        y, middle = band * band_height + head, LEFT + column * (column_width + GAP) + column_width / 2
        sheet.head(middle, y, name)
        for row, tile in tiles.items():
            tile.draw(sheet.axes(middle - tile.width / 2, y, tile.width, tile.height, f"{row}, {name}"))
            if column == 0:
                sheet.row_name(LEFT, y + tile.height / 2, row)
            y += tile.height + GAP
    return sheet.figure
