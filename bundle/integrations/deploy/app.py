"""MONAI Deploy application from two radiographs of a DICOM study to a DICOM CT series."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.deploy.conditions import CountCondition
from monai.deploy.core import Application, RuntimeEnv
from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
from monai.deploy.operators.dicom_series_selector_operator import DICOMSeriesSelectorOperator
from monai.utils import CompInitMode, instantiate
from operators import CTSeriesWriterOperator, ReconstructionOperator, XrayPairOperator
from yaml import YAMLError

HERE = Path(__file__).resolve().parent
CONFIG = Path("configs") / "inference.json"
SECTIONS = {"selections": list, "inference": dict}
OWN = ("input", "frontal", "lateral", "geometry_file", "dataset_dir", "output_dir", "overwrite")
"""Command-line options for exams and output, which the application sets itself."""


class XraysToCT(Application):
    """Application that loads a study, selects its radiographs, reconstructs a CT and writes it.

    The study is read from ``--input`` or ``HOLOSCAN_INPUT_PATH``, the bundle from ``--model``, ``HOLOSCAN_MODEL_PATH``
    or the location of this file, the settings from ``HOLOSCAN_CONFIG_PATH`` or the ``app.yaml`` next to this file.
    """

    def compose(self) -> None:
        """Create the operators and connect them."""
        here = RuntimeEnv({"model": ("HOLOSCAN_MODEL_PATH", str(HERE.parents[1]))})
        context = Application.init_app_context(self.argv, here)
        bundle = open_bundle(Path(context.model_path))
        settings = read_settings(Path(os.environ.get("HOLOSCAN_CONFIG_PATH", HERE / "app.yaml")), bundle)
        bundle.update(settings["inference"] | {"output_dir": str(context.output_path)})
        load = DICOMDataLoaderOperator(
            self, CountCondition(self, 1), input_folder=Path(context.input_path), must_load=False, name="load"
        )
        rules = json.dumps({"selections": settings["selections"]})
        select = DICOMSeriesSelectorOperator(self, rules=rules, all_matched=True, name="select")
        pair = XrayPairOperator(self, name="pair")
        reconstruct = ReconstructionOperator(self, bundle=bundle, name="reconstruct")
        write = CTSeriesWriterOperator(self, bundle=bundle, name="write")
        self.add_flow(load, select, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(select, pair, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(pair, reconstruct, {("exam", "exam")})
        self.add_flow(reconstruct, write, {("volume", "volume")})


def open_bundle(folder: Path) -> ConfigParser:
    """Load the bundle's ``inference.json``, and enable imports of its code and its error messages.

    Args:
        folder: the bundle, or a folder that contains it.

    Raises:
        SystemExit: there is not exactly one bundle; the bundle's own errors are not available yet.
    """
    candidates = [folder, *folder.iterdir()] if folder.is_dir() else []
    roots = [path for path in candidates if (path / CONFIG).is_file()]
    if len(roots) != 1:
        sys.exit(f"error: {folder}: {len(roots)} bundles with {CONFIG}; give one by --model or HOLOSCAN_MODEL_PATH")
    sys.path.insert(0, str(roots[0]))
    instantiate("scripts.io.errors.explain_errors", CompInitMode.DEFAULT)
    parser = ConfigParser()
    parser.read_config(roots[0] / CONFIG)
    return parser


def read_settings(path: Path, bundle: ConfigParser) -> dict[str, Any]:
    """Read the application's settings, such as ``app.yaml``; its section ``inference`` sets options of ``bundle``.

    Raises:
        ValueError: the file is neither YAML nor JSON, lacks a section, or sets an unknown or reserved option.
    """
    try:
        settings = ConfigParser.load_config_file(str(path))
    except (ValueError, YAMLError) as error:
        raise ValueError(f"{path}: no settings in YAML or JSON ({error}); start from app.yaml") from error
    for section, kind in SECTIONS.items():
        if not isinstance(settings, dict) or not isinstance(settings.get(section), kind):
            raise ValueError(f"{path}: {section} must be a {kind.__name__}; take that section of app.yaml")
    if unknown := [name for name in settings["inference"] if name not in bundle]:
        raise ValueError(f"{path}: no option {', '.join(map(repr, unknown))} in the bundle's {CONFIG}; check inference")
    if own := [name for name in OWN if name in settings["inference"]]:
        raise ValueError(f"{path}: inference sets {', '.join(own)}, but --input and --output do; remove it")
    return settings
