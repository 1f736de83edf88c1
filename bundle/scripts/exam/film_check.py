"""Check of the films of a loaded exam."""

from __future__ import annotations

from dataclasses import dataclass

from monai.data import MetaTensor

from scripts.exam.exam import exam_of
from scripts.exam.orientation import FilmCheck, Misfit
from scripts.geometry import BiplanarGeometry
from scripts.intensity import network_to_radiograph
from scripts.resolution import coarsened


@dataclass(frozen=True, eq=False)
class CheckFilms:
    """Check that the films of an exam show what is stated, by each film alone and by how they fit each other.

    Attributes:
        check: knows what upright films look like.
        geometry: geometry of the network; an exam may be finer by a whole factor.
        misfit: finds how well two films fit each other; None if unknown.
    """

    check: FilmCheck
    geometry: BiplanarGeometry
    misfit: Misfit | None = None

    def __call__(self, image: MetaTensor) -> list[str]:
        """Return warnings about an exam, ``[2, N, N]`` in network units."""
        exam = exam_of(image)
        pixels = image.as_tensor().float().cpu()[None]
        seen = network_to_radiograph(coarsened(pixels, pixels.shape[-1] // self.geometry.detector_pixels))[0]
        return self.check.warnings(seen.numpy(), self.geometry, exam.inputs, exam.views, self.misfit)
