"""Comparison of all methods, each trained and evaluated by the bundle's own commands under the same budget.

This module is independent of networks: a method is a list of overlays over configurations that users can run by hand.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ignite.distributed as idist

from scripts.io.errors import SomeFailed
from scripts.io.processes import environment_alone, gathered, is_first
from scripts.io.text import write_text
from scripts.training.checkpoints import saved_checkpoints

RECORD = "record.json"
"""File in a step's folder with its command and, once it has succeeded, its usage."""


@dataclass(frozen=True)
class Usage:
    """Resources used by a command: seconds of wall time and peak resident memory in bytes."""

    seconds: float
    peak_bytes: int


def run_logged(command: Sequence[str], log: Path) -> Usage:
    """Run ``command`` and append its output to ``log``.

    Raises:
        RuntimeError: the command failed; the message is the error that it stated, or else its last line.
    """
    started, before = time.perf_counter(), log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment_alone())
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        lines = log.read_bytes()[before:].decode(errors="replace").strip().splitlines() or ["no output"]
        stated = [line for line in lines if line.startswith("error: ")]
        raise RuntimeError(f"status {process.returncode}: {(stated or lines)[-1]} (log: {log})")
    return Usage(time.perf_counter() - started, used.ru_maxrss * 1024)


@dataclass(frozen=True)
class Method:
    """One row of the comparison.

    Attributes:
        overlays: overlays in ``configs/methods`` for training, inference and evaluation.
        training: further overlays for training only, e.g. an adversarial one.
        evaluation: further overlays for evaluation only.
        options: training options in addition to the budget's, which they override.
        upon: for each training option that takes another method's weights, that method, which must come earlier.
        trained_as: method that provides the weights to evaluate; this one is not trained itself.
    """

    overlays: Sequence[str] = ()
    training: Sequence[str] = ()
    evaluation: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    upon: Mapping[str, str] = field(default_factory=dict)
    trained_as: str | None = None


class Sweep:
    """Training and evaluation of every method, without repeating finished steps; ``publish`` gets the results.

    In ``output_dir`` each method has a folder with ``training/`` (the training run), ``evaluation/`` (its tables and
    volumes) and ``log.txt``. A step that has succeeded is not repeated while its command stays the same
    (:data:`RECORD`). An interrupted training resumes from its checkpoint, but not with other settings, as its budget
    would differ from the table's. A method that fails does not stop the others.

    Args:
        configs: the bundle's ``configs`` folder.
        output_dir: output folder, created if needed.
        methods: attributes of :class:`Method` by name.
        budget: options of every training run, which a method's own override.
        evaluation: options of every evaluation run.
        publish: called as ``publish(output_dir, rows, costs)`` with the measurements of all cases and methods and the
            costs of each method.
        common: overlays applied after every method's own, in training and evaluation, e.g. another grid.
        only: names of the methods to run, all by default.
        tracking: options for an experiment tracker, set by ``--tracking``. Every command gets them, with the method as
            the name of its run: training leaves the run open, evaluation continues and closes it. A step finished
            without them is not repeated with them.
        run: function that executes a command, replaced in tests.
    """

    def __init__(
        self,
        configs: str | Path,
        output_dir: str | Path,
        methods: Mapping[str, Mapping[str, Any]],
        budget: Mapping[str, Any],
        evaluation: Mapping[str, Any],
        publish: Callable[[Path, list[dict[str, str]], dict[str, dict[str, Any]]], None],
        common: Sequence[str] = (),
        only: Sequence[str] | None = None,
        tracking: Sequence[Mapping[str, Any]] = (),
        run: Callable[[Sequence[str], Path], Usage] = run_logged,
    ) -> None:
        unknown = set(only or ()) - set(methods)
        if unknown:
            raise ValueError(f"unknown method {sorted(unknown)[0]!r}; choose from {', '.join(methods)}")
        self.configs, self.output_dir = Path(configs), Path(output_dir)
        self.methods = {name: Method(**method) for name, method in methods.items()}
        self.common = list(common)
        self.names = [name for name in methods if not only or name in only]
        self.tracking = {key: value for options in tracking for key, value in options.items()}
        self.budget, self.evaluation, self.publish, self.run = dict(budget), dict(evaluation), publish, run

    def __call__(self) -> None:
        """Run all unfinished steps, then publish.

        Raises:
            SomeFailed: some methods failed.
        """
        failures = {name: error for share in gathered(self._share()) for name, error in share.items()}
        done = [name for name in self.names if name not in failures]
        if done and is_first():
            rows = collect_rows([self.output_dir / name / "evaluation" for name in done])
            self.publish(self.output_dir, rows, {name: self._costs(name) for name in done})
        idist.barrier()
        if failures and is_first():
            raise SomeFailed(f"{len(failures)} of {len(self.names)} methods", failures.values())

    def _share(self) -> dict[str, str]:
        """Run this process's methods and return the errors of those that failed, by name."""
        mine = families(self.methods)[idist.get_rank() :: idist.get_world_size()]
        failures = {}
        for i, name in enumerate(self.names):
            if not any(name in family for family in mine):
                continue
            try:
                self._method(f"[{i + 1}/{len(self.names)}] {name}", name)
            except RuntimeError as error:
                failures[name] = f"{name}: {error}"
                print(failures[name], flush=True)
        return failures

    def _method(self, label: str, name: str) -> None:
        folder, method = self.output_dir / name, self.methods[name]
        evaluation = folder / "evaluation"
        tracking = self.tracking and {**self.tracking, "run_name": name}
        if method.trained_as is None:
            self._train(label, name, tracking and {**tracking, "close_run": False})
        else:
            self._require_trained(method.trained_as)
        options = {"weights": self._weights(method.trained_as or name), "method": name, **self.evaluation}
        overlays = [*method.overlays, *self.common, *method.evaluation]
        evaluate = self._command(["inference", "evaluate"], overlays, evaluation, options)
        self._step(f"{label}: evaluation", evaluate, evaluation, folder / "log.txt", tracking)

    def _train(self, label: str, name: str, tracking: Mapping[str, Any]) -> None:
        folder, method = self.output_dir / name, self.methods[name]
        training = self._weights(name).parent
        for other in method.upon.values():
            self._require_trained(other)
        upon = {option: self._weights(other) for option, other in method.upon.items()}
        overlays = [*method.overlays, *method.training, *self.common]
        train = self._command(["train"], overlays, training, {**self.budget, **method.options, **upon})
        begun = _record(training).get("command", train)
        if begun != train and saved_checkpoints(training / "checkpoints"):
            raise RuntimeError(f"{training}: was begun with other settings; choose another --output_dir or delete it")
        if self._step(f"{label}: training", train, training, folder / "log.txt", tracking):
            self._forget_what_used(name)

    def _require_trained(self, name: str) -> None:
        """Refuse the weights that an unfinished training has left so far."""
        if "seconds" not in _record(self._weights(name).parent):
            raise RuntimeError(f"needs the weights of {name}, whose training is not finished; run it first")

    def _forget_what_used(self, name: str) -> None:
        """Forget the evaluations with earlier weights of ``name``, and the trainings upon them."""
        for other, its in self.methods.items():
            if name in (other, its.trained_as):
                (self.output_dir / other / "evaluation" / RECORD).unlink(missing_ok=True)
            if name in its.upon.values():
                training = self._weights(other).parent
                (training / RECORD).unlink(missing_ok=True)
                for checkpoint in saved_checkpoints(training / "checkpoints"):
                    checkpoint.unlink()
                self._forget_what_used(other)

    def _weights(self, name: str) -> Path:
        return self.output_dir / name / "training" / "model.pt"

    def _command(
        self, bases: Sequence[str], overlays: Sequence[str], output_dir: Path, options: Mapping[str, Any]
    ) -> list[str]:
        files = [self.configs / f"{name}.json" for name in bases]
        files += [self.configs / "methods" / f"{name}.json" for name in overlays]
        command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str([str(file) for file in files])]
        return command + _arguments({"output_dir": output_dir, **options})

    def _step(self, label: str, command: list[str], folder: Path, log: Path, tracking: Mapping[str, Any]) -> bool:
        """Run a step with the options ``tracking`` unless it is finished; return whether it ran."""
        record = _record(folder)
        if record.get("command") == command and "seconds" in record:
            print(f"{label}: done before", flush=True)
            return False
        print(f"{label} ... ({log})", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / RECORD, json.dumps({"command": command}, indent=2) + "\n")
        used = self.run(command + _arguments(tracking), log)
        # The time used by an interrupted training is recorded only in its log.
        write_text(folder / RECORD, json.dumps({"command": command, **asdict(used)}, indent=2) + "\n")
        print(f"{label}: {used.seconds:.0f} s", flush=True)
        return True

    def _costs(self, name: str) -> dict[str, Any]:
        used = _record(self._weights(self.methods[name].trained_as or name).parent)
        summary = json.loads((self.output_dir / name / "evaluation" / "summary.json").read_text())
        found: Iterator[dict[str, Any]] = (m["metrics"] for m in summary["methods"] if m["method"] == name)
        distances = next(found, {})
        return {
            **{metric: value["mean"] for metric, value in distances.items() if metric.startswith("fid_")},
            "parameters": summary["parameters"],
            "training_seconds": used["seconds"],
            "training_peak_bytes": used["peak_bytes"],
        }


def families(methods: Mapping[str, Method]) -> list[set[str]]:
    """Group the names of methods that need each other's weights, in order of the first of each group."""
    found: list[set[str]] = []
    for name, method in methods.items():
        needs = {name, *method.upon.values()} | ({method.trained_as} if method.trained_as else set())
        family = needs.union(*(group for group in found if group & needs))
        found = [group for group in found if not group & needs] + [family]
    return found


def collect_rows(folders: Sequence[Path]) -> list[dict[str, str]]:
    """Read the rows of every ``cases.csv``; a baseline measured in all evaluations is taken once."""
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for folder in folders:
        with (folder / "cases.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                rows.setdefault((row["case"], row["method"], row["estimate"]), row)
    return list(rows.values())


def _arguments(options: Mapping[str, Any]) -> list[str]:
    return [text for key, value in options.items() if value is not None for text in (f"--{key}", str(value))]


def _record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    return json.loads(path.read_text()) if path.is_file() else {}
