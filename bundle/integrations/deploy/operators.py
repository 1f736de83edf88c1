"""Operators that MONAI Deploy App SDK lacks between a study of radiographs and a CT series; the bundle does the work.

The operators use only these entries of the bundle's ``inference.json``: ``device``, ``preprocessing``, ``network``,
``reconstruct``, ``postprocessing`` and ``saver``.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.deploy.core import ExecutionContext, Fragment, InputContext, Operator, OperatorSpec, OutputContext

MAX_RADIOGRAPHS = 2
_NAMED = 6


class XrayPairOperator(Operator):
    """Operator that takes the files of one exam from the selected series; the bundle identifies their views.

    Input ``study_selected_series_list``: output of the SDK's series selector. Views cannot be chosen by series, because
    many studies have both in one.

    Output ``exam``: ``files``, paths of at most two radiographs, and ``name``, the study's UID.
    """

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the ports."""
        spec.input("study_selected_series_list")
        spec.output("exam")

    def compute(self, op_input: InputContext, op_output: OutputContext, context: ExecutionContext) -> None:
        """Select the radiographs of the study.

        Raises:
            ValueError: there is not exactly one study with radiographs, or it has more than two.
        """
        studies = op_input.receive("study_selected_series_list") or []
        if len(studies) != 1:
            raise ValueError(
                f"input folder: {len(studies)} studies with radiographs, by the selections of the settings; give a "
                "folder with the DICOM files of one study"
            )
        instances = [sop for chosen in studies[0].selected_series for sop in chosen.series.get_sop_instances()]
        files = sorted({str(sop.get_native_sop_instance().filename) for sop in instances})
        if len(files) > MAX_RADIOGRAPHS:
            named = ", ".join(files[:_NAMED]) + (", ..." if len(files) > _NAMED else "")
            raise ValueError(
                f"study: {len(files)} radiographs selected ({named}), an exam is a frontal and a lateral one; narrow "
                "the selections of the settings, for example by SeriesDescription, or remove the others"
            )
        op_output.emit({"files": files, "name": str(studies[0].study.StudyInstanceUID)}, "exam")


class ReconstructionOperator(Operator):
    """Operator that runs the bundle on the files of an exam, as from the command line.

    Input ``exam``: see :class:`XrayPairOperator`. Output ``volume``: ``image``, the network's input, with the exam's
    description in its ``meta``; ``pred``, the CT in HU with its affine; and ``seconds``.

    The SDK's ``MonaiBundleInferenceOperator`` takes one image in memory instead of two files, and sends 8 bits.

    Args:
        fragment: the application.
        args: conditions for the base class.
        bundle: the parsed ``inference.json``.
        kwargs: arguments of the base class.

    Raises:
        ValueError: the weights belong to another network; MONAI wraps this in a ``RuntimeError``.
    """

    def __init__(self, fragment: Fragment, *args: Any, bundle: ConfigParser, **kwargs: Any) -> None:
        self.device = bundle.get_parsed_content("device")
        self.read = bundle.get_parsed_content("preprocessing")
        self.network = bundle.get_parsed_content("network")
        self.inferer = bundle.get_parsed_content("reconstruct")
        self.finish = bundle.get_parsed_content("postprocessing")
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the ports."""
        spec.input("exam")
        spec.output("volume")

    def compute(self, op_input: InputContext, op_output: OutputContext, context: ExecutionContext) -> None:
        """Reconstruct.

        Raises:
            ValueError: the bundle refuses the radiographs; MONAI wraps this in a ``RuntimeError``.
        """
        exam = op_input.receive("exam")
        image = self.read({"image": exam["files"]})["image"]
        image.meta["name"] = exam["name"]
        started = time.perf_counter()
        with torch.no_grad():
            pred = self.inferer(image[None].to(self.device), self.network)[0]
        volume = self.finish({"image": image, "pred": pred})
        op_output.emit({**volume, "seconds": time.perf_counter() - started}, "volume")


class CTSeriesWriterOperator(Operator):
    """Operator that writes the result atomically with the bundle's own writers.

    Input ``volume``: see :class:`ReconstructionOperator`.

    Args:
        fragment: the application.
        args: conditions for the base class.
        bundle: the parsed ``inference.json``, with ``output_dir`` and ``outputs`` set.
        kwargs: arguments of the base class.
    """

    def __init__(self, fragment: Fragment, *args: Any, bundle: ConfigParser, **kwargs: Any) -> None:
        self.saver = bundle.get_parsed_content("saver")
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the port."""
        spec.input("volume")

    def compute(self, op_input: InputContext, op_output: OutputContext, context: ExecutionContext) -> None:
        """Write."""
        volume = op_input.receive("volume")
        self.saver.save(volume["image"], volume["pred"], volume["seconds"])
