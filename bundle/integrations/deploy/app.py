"""Two radiographs of a DICOM study to a DICOM CT series, as a MONAI Deploy application."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.deploy.conditions import CountCondition
from monai.deploy.core import Application, RuntimeEnv
from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
from monai.deploy.operators.dicom_series_selector_operator import DICOMSeriesSelectorOperator
from monai.utils import CompInitMode, instantiate
from operators import CTSeriesWriterOperator, ReconstructionOperator, XrayPairOperator

HERE = Path(__file__).resolve().parent
CONFIG = Path("configs") / "inference.json"


class XraysToCT(Application):
    """Loads a study, selects its radiographs, reconstructs, writes.

    The study is looked for in ``--input`` or ``HOLOSCAN_INPUT_PATH``, the bundle in ``--model`` or
    ``HOLOSCAN_MODEL_PATH`` or where this file lies, the settings in ``HOLOSCAN_CONFIG_PATH`` or ``app.yaml`` beside it.
    """

    def compose(self) -> None:
        """Make the operators and connect them."""
        here = RuntimeEnv({"model": ("HOLOSCAN_MODEL_PATH", str(HERE.parents[1]))})
        context = Application.init_app_context(self.argv, here)
        settings = ConfigParser.load_config_file(os.environ.get("HOLOSCAN_CONFIG_PATH", str(HERE / "app.yaml")))
        bundle = open_bundle(Path(context.model_path), settings["inference"] | {"output_dir": str(context.output_path)})
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


def open_bundle(folder: Path, settings: Mapping[str, Any]) -> ConfigParser:
    """The bundle's ``inference.json`` with some of its values set; from now on its code can be imported.

    Args:
        folder: the bundle, or a folder with one.
        settings: by the names of the command line's options.

    Raises:
        ValueError: not one bundle there, or it has no such option.
    """
    candidates = [folder, *folder.iterdir()] if folder.is_dir() else []
    roots = [path for path in candidates if (path / CONFIG).is_file()]
    if len(roots) != 1:
        raise ValueError(f"{folder}: {len(roots)} bundles with {CONFIG}; give one by --model or HOLOSCAN_MODEL_PATH")
    sys.path.insert(0, str(roots[0]))
    instantiate("scripts.engine.errors.explain_errors", CompInitMode.DEFAULT)
    parser = ConfigParser()
    parser.read_config(roots[0] / CONFIG)
    if unknown := [name for name in settings if name not in parser]:
        raise ValueError(f"app.yaml: no option {', '.join(map(repr, unknown))} in {roots[0] / CONFIG}; check inference")
    parser.update(settings)
    return parser
