"""The record of a reconstruction in ``result.json``: provenance and quality of a volume."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import monai
import torch

from scripts.exam.exam import ViewInput
from scripts.geometry import BiplanarGeometry
from scripts.io.digest import sha256
from scripts.io.text import strict_json

_NOTICE = "Synthetic volume estimated from {}. Research only; NOT FOR DIAGNOSTIC USE."
_ERROR_IS = "relative L2 to the input line integrals; necessary, not sufficient"
DECISIVE = (
    "weights_sha256",
    "sampler",
    "steps",
    "power",
    "only_view",
    "samples",
    "grid_factor",
    "refining_sha256",
    "passes",
    "consistency",
    "consistency_steps",
)
"""Entries of the provenance that decide how a volume is made, and so how large its errors are."""
_DIFFERS_BY_RUN = ("device", "software")
"""Entries of the provenance that may differ between runs with equivalent results."""


@dataclass(frozen=True)
class Settings:
    """Settings that determine a result: equal settings give an equal volume and, with an equal truth, equal metrics.

    Attributes:
        inputs_sha256: digest of every file by path.
        truth_sha256: digest of the true CT; None if it is not known.
        options: the user's options for films.
        views: views that were used.
        geometry: geometry of the result.
        std_temperature: factor on the standard deviation.
        interval: level of the interval that is saved; None if there is none.
        writers: sorted class names of the writers.
        provenance: provenance of the volume; see :func:`provenance`.
    """

    inputs_sha256: Mapping[str, str]
    truth_sha256: str | None
    options: Mapping[str, Any]
    views: tuple[str, ...]
    geometry: BiplanarGeometry
    std_temperature: float
    interval: float | None
    writers: tuple[str, ...]
    provenance: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return a flat, JSON-ready dictionary that includes the entries of the provenance."""
        named = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "provenance"}
        return {**named, "geometry": asdict(self.geometry), **self.provenance}

    def gave(self, stated: Mapping[str, Any]) -> bool:
        """Return whether a ``result.json`` states these settings, on this or another machine."""
        expected = json.loads(strict_json(self.to_dict()))
        return all(name in _DIFFERS_BY_RUN or stated.get(name) == value for name, value in expected.items())


@dataclass(frozen=True)
class Record:
    """Record of one reconstruction.

    Attributes:
        exam: name of the exam.
        settings: settings that determined the result.
        inputs: processing of each view.
        seconds: duration of the reconstruction.
        reprojection_error: error by view, see :data:`_ERROR_IS`.
        metrics: metrics against the truth by name; None for an absent tissue or view.
        warnings: notes for readers.
        created: creation time, ISO 8601 with time zone.
        files: size in bytes of each file of the result, by its path in the result's folder.
    """

    exam: str
    settings: Settings
    inputs: Mapping[str, ViewInput]
    seconds: float
    reprojection_error: Mapping[str, float]
    metrics: Mapping[str, float | None]
    warnings: tuple[str, ...]
    created: str
    files: Mapping[str, int] = field(default_factory=dict)

    @property
    def notice(self) -> str:
        """Return a statement of the volume's nature and of its limits of use."""
        views = self.settings.views
        return _NOTICE.format("two radiographs" if len(views) > 1 else f"the {views[0]} radiograph alone")

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON-ready content of ``result.json``."""
        return {
            "notice": self.notice,
            "exam": self.exam,
            **self.settings.to_dict(),
            "inputs": {view: given.to_dict() for view, given in self.inputs.items()},
            "seconds": self.seconds,
            "reprojection_error": self.reprojection_error,
            "reprojection_error_is": _ERROR_IS,
            "metrics": self.metrics,
            "warnings": self.warnings,
            "created": self.created,
            "files": self.files,
        }


def read_record(path: Path, settings: Settings) -> Record | None:
    """Read a record if it has these settings; return None if it is missing, damaged or has other settings."""
    try:
        stated = json.loads(path.read_text())
        if not settings.gave(stated):
            return None
        return Record(
            exam=stated["exam"],
            settings=replace(settings, provenance={name: stated[name] for name in settings.provenance}),
            inputs={view: ViewInput.from_dict(given) for view, given in stated["inputs"].items()},
            seconds=stated["seconds"],
            reprojection_error=stated["reprojection_error"],
            metrics=stated["metrics"],
            warnings=tuple(stated["warnings"]),
            created=stated["created"],
            files=dict(stated["files"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def provenance(bundle_root: str | Path, weights: str | Path, **choices: Any) -> dict[str, Any]:
    """Return the provenance of a run's volumes: bundle version, weights, sampler, seed and software.

    Args:
        bundle_root: folder with ``configs/metadata.json``.
        weights: file of the loaded weights.
        choices: sampler, steps, seed and other settings that determine the result; None if not applicable.

    Raises:
        ValueError: several samples are wanted of a network without a sampler.
    """
    if choices.get("sampler", True) is None and choices.get("samples", 1) != 1:
        raise ValueError(
            f"--samples {choices['samples']}: a network without diffusion has a single answer; leave the option out"
        )
    metadata = json.loads((Path(bundle_root) / "configs" / "metadata.json").read_text())
    return {
        "bundle": {"name": metadata["name"], "version": metadata["version"]},
        "weights_sha256": sha256(weights),
        **{k: v if isinstance(v, (int, float, bool)) else str(v) for k, v in choices.items() if v is not None},
        "software": {"python": platform.python_version(), "torch": torch.__version__, "monai": monai.__version__},
    }


def made_by(provenance: Mapping[str, Any], scale_weights: str | Path) -> dict[str, Any]:
    """Return what decides how large errors are, for error intervals: weights, views, sampling and consistency."""
    return {name: provenance[name] for name in DECISIVE if name in provenance} | {
        "scale_weights_sha256": sha256(scale_weights)
    }
