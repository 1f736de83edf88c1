"""The record of a reconstruction: what ``result.json`` says about how a volume was made and how good it is."""

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
_DIFFERS_BY_RUN = ("device", "software")
"""What of the provenance may differ between two runs whose results are the same to a reader."""


@dataclass(frozen=True)
class Settings:
    """What decides a result: equal settings give an equal volume, and with an equal truth equal metrics.

    Attributes:
        inputs_sha256: digest of every file, by its path.
        truth_sha256: of the true CT; None if it is not known.
        options: what the user said about films.
        views: those that were used.
        geometry: of the network.
        std_temperature: factor on the standard deviation.
        writers: names of their classes, sorted.
        provenance: how the volume was made; see :func:`provenance`.
    """

    inputs_sha256: Mapping[str, str]
    truth_sha256: str | None
    options: Mapping[str, Any]
    views: tuple[str, ...]
    geometry: BiplanarGeometry
    std_temperature: float
    writers: tuple[str, ...]
    provenance: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Flat and JSON-ready: the provenance's entries stand among the others."""
        named = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "provenance"}
        return {**named, "geometry": asdict(self.geometry), **self.provenance}

    def gave(self, stated: Mapping[str, Any]) -> bool:
        """Whether a ``result.json`` states these settings; the machine may be another one."""
        expected = json.loads(strict_json(self.to_dict()))
        return all(name in _DIFFERS_BY_RUN or stated.get(name) == value for name, value in expected.items())


@dataclass(frozen=True)
class Record:
    """One reconstruction in words and numbers.

    Attributes:
        exam: its name.
        settings: what decided the result.
        inputs: how each view became what the network saw.
        seconds: time the reconstruction took.
        reprojection_error: by view, see :data:`_ERROR_IS`.
        metrics: against the truth, by name; None for one of a tissue or view that is not there.
        warnings: what a reader should know.
        created: when, ISO 8601 with time zone.
        files: what the writers have left, bytes by path below the result's folder.
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
        """What the volume is, and what it is not for."""
        views = self.settings.views
        return _NOTICE.format("two radiographs" if len(views) > 1 else f"the {views[0]} radiograph alone")

    def to_dict(self) -> dict[str, Any]:
        """What ``result.json`` says, JSON-ready."""
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
    """The record in a file if these settings gave it; None if there is none, or a damaged one."""
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
    """How a run makes its volumes: bundle version, weights, sampler, seed and software.

    Args:
        bundle_root: folder with ``configs/metadata.json``.
        weights: file that was loaded.
        choices: sampler, steps, seed and whatever else decides the result; one that is None does not apply.
    """
    metadata = json.loads((Path(bundle_root) / "configs" / "metadata.json").read_text())
    return {
        "bundle": {"name": metadata["name"], "version": metadata["version"]},
        "weights_sha256": sha256(weights),
        **{k: v if isinstance(v, (int, float, bool)) else str(v) for k, v in choices.items() if v is not None},
        "software": {"python": platform.python_version(), "torch": torch.__version__, "monai": monai.__version__},
    }
