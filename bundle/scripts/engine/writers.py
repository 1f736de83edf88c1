"""The files of a result: each writer puts one kind of them into the exam's folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scripts.engine.outputs import Result
from scripts.io.nifti import write_volume

Writer = Callable[[Path, Result], None]


def chosen(writers: Mapping[str, Writer], names: str | Sequence[str]) -> list[Writer]:
    """The writers of these names, given as a list or as one text with commas.

    Raises:
        ValueError: there is none of a name.
    """
    wanted = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    unknown = [name for name in wanted if name not in writers]
    if unknown:
        raise ValueError(f"--outputs: unknown {', '.join(map(repr, unknown))}; choose from {', '.join(writers)}")
    return [writers[name] for name in wanted]


class WriteNifti:
    """``ct.nii.gz``, int16 HU (of several samples the mean), and ``std.nii.gz``, float32 HU, if there are several."""

    def __call__(self, folder: Path, result: Result) -> None:
        """Write them."""
        write_volume(folder / "ct.nii.gz", np.rint(result.mean).astype(np.int16), result.affine)
        if result.std is not None:
            write_volume(folder / "std.nii.gz", result.std, result.affine)


@dataclass(frozen=True)
class DrawFigure:
    """``figure.png``: inputs, re-projections, slices.

    Attributes:
        draw: ``draw(path, hu, measured, reprojected, spacing_mm, title)``.
    """

    draw: Callable[..., None]

    def __call__(self, folder: Path, result: Result) -> None:
        """Draw it."""
        images = (result.mean, result.measured, result.reprojected)
        self.draw(folder / "figure.png", *images, result.spacing_mm, result.name)
