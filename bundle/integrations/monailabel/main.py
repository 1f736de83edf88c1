"""MONAI Label app that returns the reconstructed CT as int16 NIfTI, or as a zip of its DICOM series."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.app import app as server
from monailabel.config import settings
from monailabel.endpoints import infer, info, session
from monailabel.interfaces.app import MONAILabelApp
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.utils.others.generic import remove_file
from monailabel.utils.sessions import Sessions

MODEL = "biplanar_ct"
FORMATS = ("nifti", "dicom")
"""Accepted values of a request's ``format``, named after the bundle's writers; the first is the default."""
BUNDLE = Path(__file__).resolve().parents[2]
logger = logging.getLogger(__name__)


class ReconstructionApp(MONAILabelApp):
    """App with the model ``biplanar_ct``, which turns two radiographs of a session into a CT.

    Only MONAI Label's endpoints ``/info``, ``/session`` and ``/infer`` are enabled: the others let anyone who can reach
    the port write files outside their folder, replace the weights and read the log.

    ``--conf bundle FOLDER`` names the bundle; by default it is the one that contains this file.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        self.bundle = Path(conf.get("bundle", BUNDLE))
        told = json.loads((self.bundle / "configs" / "metadata.json").read_text())
        super().__init__(app_dir, studies, conf, told["name"], told["description"], told["version"])
        self._sessions = Uploads(settings.MONAI_LABEL_SESSION_PATH, settings.MONAI_LABEL_SESSION_EXPIRY)
        server.router.routes.clear()
        for endpoints in (info, session, infer):
            server.include_router(endpoints.router, prefix=settings.MONAI_LABEL_API_STR)

    def init_infers(self) -> dict[str, ReconstructionTask]:
        """Return the only model."""
        return {MODEL: ReconstructionTask(self.bundle, self.conf, lambda: Path(self.sessions().store_path))}


class Uploads(Sessions):
    """Sessions that keep files as uploaded.

    MONAI Label would unpack links, and names that lead out of the folder; the bundle reads zips directly.
    """

    def add_session(
        self, data_file: str, expiry: int = 0, uncompress: bool = False, session_id: str | None = None
    ) -> Any:
        """Store an upload.

        Raises:
            HTTPException: 422 if the request asks to unpack it.
        """
        if uncompress:
            remove_file(data_file)
            raise HTTPException(422, "uncompress: not offered; upload the files, or a zip of them without uncompress")
        return super().add_session(data_file, expiry, uncompress, session_id)


class ReconstructionTask(BundleInferTask):
    """Task that runs ``inference.json`` on a session's files and writes the result with the bundle's own writers.

    Only the bundle's own weights are loaded, strictly, at the start and whenever their file has changed, and only
    uploaded files are read.

    Args:
        bundle: folder of the bundle.
        conf: configuration of the server.
        uploads: returns the folder of the sessions.

    Raises:
        ValueError: the weights are missing or belong to another bundle.
    """

    def __init__(self, bundle: Path, conf: Mapping[str, str], uploads: Callable[[], Path]) -> None:
        sys.path.insert(0, str(bundle))  # the base class removes its own entry, but the writers are imported later
        super().__init__(str(bundle), conf, type="others", add_post_restore=False, load_strict=True)
        if not self.valid:
            raise ValueError(f"{bundle}: needs configs/inference.json and models/model.pt; name a bundle that has them")
        try:
            self.bundle_config.get_parsed_content("network")
        except RuntimeError as error:  # MONAI wraps the bundle's error in it
            raise ValueError(f"not started: {error.__cause__}") from error
        self.uploads = uploads
        del self._config["model_filename"]  # lets a request name any file as the weights
        self._config["format"] = list(FORMATS)

    def __call__(self, request: Mapping[str, Any], callbacks: Mapping | None = None) -> tuple[str, dict[str, Any]]:
        """Answer a request, ignoring all parameters except ``format``.

        Raises:
            HTTPException: 422 with the bundle's message about the radiographs or the request; 500 for any other error,
                which is logged.
        """
        try:
            with _refusals():
                chosen = {"image": self._uploaded(request["image"]), "format": _format(request)}
            return super().__call__(chosen | {"started": time.perf_counter()}, callbacks)
        except HTTPException:
            raise
        except Exception as error:
            logger.exception("no volume was made")
            raise HTTPException(500, "no volume was made because of a server error; see its log") from error

    def run_pre_transforms(self, data: dict[str, Any], transforms: Sequence[Callable]) -> dict[str, Any]:
        """Read the exam and report failures as errors of the request."""
        with _refusals():
            return super().run_pre_transforms(data, transforms)

    def writer(self, data: Mapping[str, Any], extension: Any = None, dtype: Any = None) -> tuple[str, dict[str, Any]]:
        """Return the result file, which the server removes once it is sent, and the record of its provenance."""
        with tempfile.TemporaryDirectory() as scratch:
            self.bundle_config["output_dir"], self.bundle_config["outputs"] = scratch, data["format"]
            saver = self.bundle_config.get_parsed_content("saver")
            folder = saver.save(data["image"], data["pred"], time.perf_counter() - data["started"])
            record = json.loads((folder / "result.json").read_text())
            if data["format"] == "nifti":
                made = folder / "ct.nii.gz"
            else:
                made = Path(shutil.make_archive(f"{scratch}/ct", "zip", folder / "dicom" / "ct"))
            with (
                made.open("rb") as source,
                tempfile.NamedTemporaryFile(suffix="".join(made.suffixes), delete=False) as kept,
            ):
                shutil.copyfileobj(source, kept)
        return kept.name, record

    def _uploaded(self, image: Any) -> str:
        """Return the path of a session's upload; raise ValueError for any other path or a link to one."""
        named = image if isinstance(image, str) else ""
        store, path = (Path(os.path.abspath(given)) for given in (self.uploads(), named))
        if (
            store not in path.parents
            or path.resolve() != store.resolve() / path.relative_to(store)
            or any(inner.is_symlink() for inner in path.rglob("*"))
        ):
            raise ValueError(
                f"image: {image!r} was not uploaded, or holds a link; send the radiographs by PUT /session/ and give "
                "its session_id"
            )
        return str(path)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise HTTPException(422, str(error)) from error


def _format(request: Mapping[str, Any]) -> str:
    asked = request.get("format", FORMATS[0])
    if asked not in FORMATS:
        raise ValueError(f"format: choose {' or '.join(FORMATS)}, got {asked!r}")
    return asked
