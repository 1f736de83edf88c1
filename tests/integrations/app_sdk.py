"""As much of the MONAI Deploy App SDK 4.0.0 as the application uses, emulated: what it relies on, in a few lines.

Modules of the same names, whose operators do what the SDK's do with radiographs; the real ones run by
``make test-deploy``.
"""

import re
import sys
from argparse import ArgumentParser
from collections import defaultdict
from json import loads
from pathlib import Path
from types import ModuleType, SimpleNamespace

from pydicom import dcmread
from pydicom.errors import InvalidDicomError


class OperatorSpec:
    """The ports that an operator names in ``setup``."""

    def __init__(self):
        self.inputs, self.outputs = set(), set()

    def input(self, name):
        self.inputs.add(name)

    def output(self, name):
        self.outputs.add(name)


class Operator:
    """A node of a graph; constructing it names its ports."""

    def __init__(self, fragment, *args, name):
        self.fragment, self.name, self.spec = fragment, name, OperatorSpec()
        self.setup(self.spec)


class Application:
    """Runs each operator once, in the order in which their flows were added: enough for a chain."""

    def __init__(self):
        self.argv, self.flows = sys.argv, []

    def add_flow(self, source, target, ports):
        for out, into in ports:
            assert out in source.spec.outputs and into in target.spec.inputs, (source.name, out, target.name, into)
        self.flows.append((source, target, ports))

    def run(self):
        self.compose()
        inboxes = defaultdict(dict)
        for operator in dict.fromkeys(operator for source, target, _ in self.flows for operator in (source, target)):
            sent = {}
            receive = inboxes[operator].get
            emit = SimpleNamespace(emit=lambda value, port, sent=sent: sent.update({port: value}))
            operator.compute(SimpleNamespace(receive=receive), emit, None)
            assert sent.keys() <= operator.spec.outputs
            for source, target, ports in self.flows:
                if source is operator:
                    inboxes[target].update({into: sent[out] for out, into in ports})

    @staticmethod
    def init_app_context(argv, runtime_env):
        parser = ArgumentParser()
        for name in ("input", "output", "model"):
            parser.add_argument(f"--{name}", type=Path, default=getattr(runtime_env, name))
        given = parser.parse_args(argv[1:])
        return SimpleNamespace(input_path=given.input, output_path=given.output, model_path=given.model)


class RuntimeEnv:
    """Defaults of the arguments; the environment variables are left out."""

    def __init__(self, defaults):
        for name, (_, value) in ({"input": ("", "input"), "output": ("", "output")} | defaults).items():
            setattr(self, name, value)


class Series(list):
    """Of the SDK a ``DICOMSeries``; its instances are read by ``dcmread``, with their file names."""

    def get_sop_instances(self):
        return [SimpleNamespace(get_native_sop_instance=lambda file=file: file) for file in self]


class DICOMDataLoaderOperator(Operator):
    """Reads all files of a folder as studies of series; what is not DICOM is passed over."""

    def __init__(self, fragment, *args, input_folder, must_load, **kwargs):
        assert not must_load
        self.folder = input_folder
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec):
        spec.output("dicom_study_list")

    def compute(self, op_input, op_output, context):
        studies = defaultdict(lambda: defaultdict(Series))
        for path in self.folder.rglob("*.*"):
            try:
                file = dcmread(path)
            except InvalidDicomError:
                continue
            studies[file.StudyInstanceUID][file.SeriesInstanceUID].append(file)
        op_output.emit(list(studies.items()), "dicom_study_list")


class DICOMSeriesSelectorOperator(Operator):
    """Selects the series whose first file meets the conditions of a rule; studies without one are left out."""

    def __init__(self, fragment, *args, rules, all_matched, **kwargs):
        assert all_matched
        self.rules = [rule["conditions"] for rule in loads(rules)["selections"]]
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec):
        spec.input("dicom_study_list")
        spec.output("study_selected_series_list")

    def compute(self, op_input, op_output, context):
        selected = []
        for uid, study in op_input.receive("dicom_study_list"):
            found = [series for rule in self.rules for series in study.values() if meets(series[0], rule)]
            if found:
                chosen = [SimpleNamespace(series=series) for series in found]
                selected.append(SimpleNamespace(study=SimpleNamespace(StudyInstanceUID=uid), selected_series=chosen))
        op_output.emit(selected, "study_selected_series_list")


def meets(file, rule):
    return all(re.search(pattern, str(file.get(keyword, "")), re.IGNORECASE) for keyword, pattern in rule.items())


def modules():
    """The emulated modules by their names."""
    core = SimpleNamespace(Application=Application, RuntimeEnv=RuntimeEnv, Operator=Operator, OperatorSpec=OperatorSpec)
    for name in ("ExecutionContext", "Fragment", "InputContext", "OutputContext"):
        setattr(core, name, object)
    contents = {
        "": SimpleNamespace(),
        ".core": core,
        ".conditions": SimpleNamespace(CountCondition=lambda fragment, count: count),
        ".operators": SimpleNamespace(),
        ".operators.dicom_data_loader_operator": SimpleNamespace(DICOMDataLoaderOperator=DICOMDataLoaderOperator),
        ".operators.dicom_series_selector_operator": SimpleNamespace(
            DICOMSeriesSelectorOperator=DICOMSeriesSelectorOperator
        ),
    }
    made = {}
    for name, content in contents.items():
        made[f"monai.deploy{name}"] = module = ModuleType(f"monai.deploy{name}")
        vars(module).update(vars(content))
    return made
