"""A MONAI Label app that answers with the reconstructed CT: int16 NIfTI, or a zip of its DICOM series."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.app import MONAILabelApp
from monailabel.tasks.infer.bundle import BundleInferTask

MODEL = "biplanar_ct"
FORMATS = ("nifti", "dicom")
"""What a request's ``format`` may be, under the names of the bundle's writers; the first is the default."""
BUNDLE = Path(__file__).resolve().parents[2]


class ReconstructionApp(MONAILabelApp):
    """Serves the model ``biplanar_ct``: two radiographs of a session to a CT.

    ``--conf bundle FOLDER`` names the bundle; by default it is the one this file belongs to.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        self.bundle = Path(conf.get("bundle", BUNDLE))
        told = json.loads((self.bundle / "configs" / "metadata.json").read_text())
        super().__init__(app_dir, studies, conf, told["name"], told["description"], told["version"])

    def init_infers(self) -> dict[str, ReconstructionTask]:
        """The one model there is."""
        return {MODEL: ReconstructionTask(self.bundle, self.conf, lambda: Path(self.sessions().store_path))}


class ReconstructionTask(BundleInferTask):
    """Runs ``inference.json`` on a session's files and lets the bundle's own writers write the result.

    Weights load strictly, and none but the bundle's own; nothing is read that was not uploaded.

    Args:
        bundle: its folder.
        conf: of the server.
        uploads: gives the folder that holds the sessions.
    """

    def __init__(self, bundle: Path, conf: Mapping[str, str], uploads: Callable[[], Path]) -> None:
        sys.path.insert(0, str(bundle))  # the base class takes away what it adds, but the writers are imported later
        super().__init__(str(bundle), conf, type="others", add_post_restore=False, load_strict=True)
        if not self.valid:
            raise ValueError(f"{bundle}: needs configs/inference.json and models/model.pt; name a bundle that has them")
        self.uploads = uploads
        del self._config["model_filename"]  # with which a request names any file as the weights
        self._config["format"] = list(FORMATS)

    def __call__(self, request: Mapping[str, Any], callbacks: Mapping | None = None) -> tuple[str, dict[str, Any]]:
        """Answer a request.

        Raises:
            HTTPException: 422 with what the bundle says about the radiographs or the request.
        """
        try:
            chosen = {
                "image": self._uploaded(request["image"]),
                "format": _format(request),
                "started": time.perf_counter(),
            }
            return super().__call__({**request, **chosen}, callbacks)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error

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
        """The path of what a session holds; a request may name any other one, which is refused."""
        uploads = self.uploads().resolve()
        path = Path(image).resolve() if isinstance(image, str) else uploads
        if uploads not in path.parents:
            raise ValueError(
                f"image: {image!r} was not uploaded; send the radiographs by PUT /session/ and give its session_id"
            )
        return str(path)


def _format(request: Mapping[str, Any]) -> str:
    asked = request.get("format", FORMATS[0])
    if asked not in FORMATS:
        raise ValueError(f"format: choose {' or '.join(FORMATS)}, got {asked!r}")
    return asked
