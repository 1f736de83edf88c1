"""Overlap of segmented structures.

Masks are bool ``[B, 1, U, V, W]``; :func:`dice` and :func:`hd95_mm` return ``[B]`` and raise ValueError if the masks
differ in shape. A value that an empty mask leaves undefined is NaN, never a placeholder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from monai.metrics import DiceMetric, HausdorffDistanceMetric
from torch import Tensor

from scripts.metrics.volume import check_same_shape, values_of

NOTES = (
    "`dice_<structure>`: 2 |A ∩ B| / (|A| + |B|), 1 is best. A structure found in only one volume counts as 0; one "
    "found in neither is omitted.",
    "`dice`: the case's mean over its structures.",
    "`hd95_<structure>_mm`: the larger of the two 95th percentiles of the distances from one surface to the other, in "
    "mm, 0 is best. It is omitted where either volume lacks the structure: a method that misses structures has fewer "
    "cases (n), and its mean covers only these.",
    "`missed`, `invented`: structures per case found only in the reference, and only in the reconstruction.",
)
"""Explanations of the columns, for readers of a table."""


def dice(prediction: Tensor, reference: Tensor) -> Tensor:
    """Return the Dice coefficient: 1 for equal masks, 0 for disjoint ones or if only one is empty, NaN if both are."""
    check_same_shape("dice", prediction, reference)
    values = values_of(DiceMetric(ignore_empty=False), prediction.float(), reference.float())
    return torch.where(_present(prediction) | _present(reference), values, math.nan)


def hd95_mm(prediction: Tensor, reference: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """Return the symmetric 95th percentile of the Hausdorff distance between the masks' surfaces; NaN if one is empty.

    A surface consists of the voxels of a mask that touch a voxel outside it or the border of the volume.

    Args:
        prediction: ``[B, 1, U, V, W]``.
        reference: ``[B, 1, U, V, W]``.
        spacing_mm: voxel spacing along u, v and w.
    """
    check_same_shape("hd95_mm", prediction, reference)
    both = _present(prediction) & _present(reference)
    values = torch.full(both.shape, math.nan, device=both.device)
    if both.any():
        metric = HausdorffDistanceMetric(include_background=True, percentile=95)
        values[both] = values_of(metric, prediction[both].float(), reference[both].float(), spacing=list(spacing_mm))
    return values


def measure_overlap(
    prediction: Mapping[str, Tensor], reference: Mapping[str, Tensor], spacing_mm: Sequence[float]
) -> dict[str, float]:
    """Return all metrics of one segmentation by column name; see :data:`NOTES`.

    Args:
        prediction: every structure's mask ``[1, 1, U, V, W]`` by name.
        reference: masks by name; the metrics of a structure that it lacks are NaN.
        spacing_mm: voxel spacing along u, v and w.
    """
    row = {}
    for name, found in prediction.items():
        known = reference.get(name)
        row[f"dice_{name}"] = math.nan if known is None else dice(found, known).item()
        row[f"hd95_{name}_mm"] = math.nan if known is None else hd95_mm(found, known, spacing_mm).item()
    scores = [row[f"dice_{name}"] for name in reference if not math.isnan(row[f"dice_{name}"])]
    alone = {"missed": math.nan, "invented": math.nan}
    if reference:
        pairs = [(bool(prediction[name].any()), bool(known.any())) for name, known in reference.items()]
        alone = {"missed": float(pairs.count((False, True))), "invented": float(pairs.count((True, False)))}
    return {"dice": sum(scores) / len(scores) if scores else math.nan, **alone, **row}


def _present(mask: Tensor) -> Tensor:
    return mask.flatten(1).any(1)
