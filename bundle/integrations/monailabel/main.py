"""A MONAI Label app that answers with the reconstructed CT: int16 NIfTI, or a zip of its DICOM series."""

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
"""What a request's ``format`` may be, under the names of the bundle's writers; the first is the default."""
BUNDLE = Path(__file__).resolve().parents[2]
logger = logging.getLogger(__name__)


class ReconstructionApp(MONAILabelApp):
    """Serves the model ``biplanar_ct``: two radiographs of a session to a CT.

    Of MONAI Label's endpoints ``/info``, ``/session`` and ``/infer`` alone: others let whoever reaches the port write
    files outside their folder, replace the weights and read the log.

    ``--conf bundle FOLDER`` names the bundle; by default it is the one this file belongs to.
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
        """The one model there is."""
        return {MODEL: ReconstructionTask(self.bundle, self.conf, lambda: Path(self.sessions().store_path))}


class Uploads(Sessions):
    """Sessions that keep files as they were sent.

    MONAI Label would unpack links, and names that lead out of the folder; the bundle reads a zip as it is.
    """

    def add_session(
        self, data_file: str, expiry: int = 0, uncompress: bool = False, session_id: str | None = None
    ) -> Any:
        """Keep an upload.

        Raises:
            HTTPException: 422 if it is to be unpacked.
        """
        if uncompress:
            remove_file(data_file)
            raise HTTPException(422, "uncompress: not offered; upload the files, or a zip of them without uncompress")
        return super().add_session(data_file, expiry, uncompress, session_id)


class ReconstructionTask(BundleInferTask):
    """Runs ``inference.json`` on a session's files and lets the bundle's own writers write the result.

    Weights load strictly, at the start and whenever their file has changed, and none but the bundle's own; nothing is
    read that was not uploaded.

    Args:
        bundle: its folder.
        conf: of the server.
        uploads: gives the folder that holds the sessions.

    Raises:
        ValueError: no weights, or not those of this bundle.
    """

    def __init__(self, bundle: Path, conf: Mapping[str, str], uploads: Callable[[], Path]) -> None:
        sys.path.insert(0, str(bundle))  # the base class takes away what it adds, but the writers are imported later
        super().__init__(str(bundle), conf, type="others", add_post_restore=False, load_strict=True)
        if not self.valid:
            raise ValueError(f"{bundle}: needs configs/inference.json and models/model.pt; name a bundle that has them")
        try:
            self.bundle_config.get_parsed_content("network")
        except RuntimeError as error:  # in which MONAI wraps what the bundle says
            raise ValueError(f"not started: {error.__cause__}") from error
        self.uploads = uploads
        del self._config["model_filename"]  # with which a request names any file as the weights
        self._config["format"] = list(FORMATS)

    def __call__(self, request: Mapping[str, Any], callbacks: Mapping | None = None) -> tuple[str, dict[str, Any]]:
        """Answer a request, of which no other parameter than ``format`` is heeded.

        Raises:
            HTTPException: 422 with what the bundle says about the radiographs or the request; 500 for any other fault,
                which the log tells.
        """
        try:
            with _refusals():
                chosen = {"image": self._uploaded(request["image"]), "format": _format(request)}
            return super().__call__(chosen | {"started": time.perf_counter()}, callbacks)
        except HTTPException:
            raise
        except Exception as error:
            logger.exception("no volume was made")
            raise HTTPException(500, "no volume was made, by a fault of the server; its log says which") from error

    def run_pre_transforms(self, data: dict[str, Any], transforms: Sequence[Callable]) -> dict[str, Any]:
        """Read the exam; what fails here is the exam's fault."""
        with _refusals():
            return super().run_pre_transforms(data, transforms)

    def writer(self, data: Mapping[str, Any], extension: Any = None, dtype: Any = None) -> tuple[str, dict[str, Any]]:
        """A file with the result, which the server removes once it is sent, and the record of how it was made."""
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
        """The path of what a session holds. A request may name any other one, and so may a link; both are refused."""
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
