"""Checks of the command line of ``python -m monai.bundle run``, which itself accepts any option name silently."""

from __future__ import annotations

import ast
import inspect
import os
import re
import sys
from argparse import SUPPRESS, ArgumentDefaultsHelpFormatter, ArgumentParser
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import fire
import monai.bundle
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS

from scripts.io.descriptions import descriptions, readable

_OWN = dict.fromkeys(name for name in inspect.signature(monai.bundle.run).parameters if name != "override")
"""Options of MONAI itself."""
_PATHS = frozenset(
    [
        "input",
        "frontal",
        "lateral",
        "geometry_file",
        "output",
        "output_dir",
        "dataset_dir",
        "training_dir",
        "measured_dir",
        "reference",
        "film_reference",
        "film_check",
        "intervals",
        "mean_volume",
        "scale_weights",
        "refining_weights",
        "labels",
        "weights",
        "initial_weights",
        "stage1_weights",
        "stage2_weights",
        "segmenter",
        "lpips_backbone",
        "fid_backbone",
        "splits_csv",
        "ckpt_dir",
        "log_dir",
        "schema",
        "model_info",
        "unit_test",
    ]
)
"""Options whose value is a path; ``input`` may also be a list or mapping of paths."""
_RENAMED = {"output": "output_dir"}
_HELP = ("help", "h")


def check_options(arguments: Sequence[str] | None = None) -> None:
    """Refuse options that no configuration of this run has; with ``--help``, describe the existing ones and exit.

    MONAI adds an unknown name to the configuration, where nothing reads it: a misspelt ``--input`` would reconstruct
    something else. Fire turns the path ``20241128`` into a number, ``Doe, Anna`` into a pair and ``p1#2`` into ``p1``,
    and MONAI turns ``/p1#2`` into ``/p1::2``. In such cases, this run is replaced by one with the paths as typed.

    Args:
        arguments: arguments of the process, program first; ``sys.argv`` by default. Other programs' are ignored.

    Raises:
        ValueError: options are unknown; the message names each, and the nearest known one.
        SystemExit: the help was printed or the run that replaced this one has ended, both with status 0.
    """
    program, *rest = sys.argv if arguments is None else arguments
    if "monai" not in program or rest[:1] != ["run"]:
        return
    given = _options(rest[1:])
    files = _files(given.get("config_file", ""))
    options = _configured(files, given.get("tracking"))
    described = {name: line for name, line in descriptions(files).items() if name in options}
    if any(name in _HELP for name in given):
        print(_help(described, options))
        raise SystemExit(0)
    unknown = [name for name in given if _base(name) not in options]
    if unknown:
        raise ValueError("; ".join(_refusal(name, described, options) for name in unknown))
    misread = {name: text for name, text in given.items() if name in _PATHS and as_typed(text) != text}
    if misread:
        _run_again(rest[1:], misread)
        raise SystemExit(0)


def as_typed(text: str) -> str:
    """Return the form of a path for the command line that neither Fire nor MONAI misreads.

    It is ``text`` if they read it correctly, otherwise an expression for MONAI with the value ``text``. Unless a path
    of that name exists, Fire may interpret a quoted text, a list or a mapping, and MONAI a text that starts like an
    expression or a reference.
    """
    value, is_there = DefaultParseValue(text), os.path.lexists(text)
    is_expression = text.startswith(("$", "@", "%"))
    if text == "" or not is_there and (value is None or is_expression):
        return text
    is_meant = text[0] in "'\"[({" and isinstance(value, (str, list, tuple, dict)) and not is_there
    path = value if is_meant else text
    if path == value and "#" not in text and not is_expression:
        return text
    return "$" + re.sub("[#@%]", lambda special: f"\\x{ord(special[0]):x}", repr(path))


def _run_again(arguments: Sequence[str], misread: Mapping[str, str]) -> None:
    """Run ``monai.bundle run`` with the paths as typed, at the end because the last of repeated options counts."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    typed = [f"--{name}={as_typed(text)}" for name, text in misread.items()]
    sys.argv[2:] = [*arguments[:end], *typed, *arguments[end:]]
    fire.Fire(monai.bundle.run, command=sys.argv[2:])


def _options(arguments: Iterable[str]) -> dict[str, str]:
    """Return the option names as Fire reads them, with the text that follows each."""
    found: dict[str, str] = {}
    name = ""
    for argument in arguments:
        if argument == "--":  # the rest is for Fire
            break
        if match := re.match(r"--?([A-Za-z_+][^=\s]*)(?:=(.*))?$", argument, re.DOTALL):
            name = match[1].replace("-", "_")
            found[name] = match[2] or ""
        elif name and not found[name]:
            found[name] = argument
    return found


def _configured(files: Iterable[str], tracking: str | None) -> dict[str, Any]:
    """Return MONAI's own options and the entries of the configuration files and of the tracking settings."""
    options: dict[str, Any] = dict(_OWN)
    for file in files:
        options |= ConfigParser.load_config_file(file)
    if tracking:
        settings: Mapping[str, Any] = (
            DEFAULT_MLFLOW_SETTINGS if tracking == "mlflow" else ConfigParser.load_config_file(tracking)
        )
        options |= settings["configs"]
    return {name.lstrip("+"): value for name, value in options.items()}


def _files(text: str) -> list[str]:
    """Return the existing files that a text names: ``a.json``, ``a.json,b.json`` or ``['a.json','b.json']``."""
    try:
        named = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        named = text
    files = named.split(",") if isinstance(named, str) else [str(file) for file in named]
    return [file for file in files if Path(file).is_file()]


def _base(name: str) -> str:
    return re.split("#|::", name.lstrip("+"))[0]


def _help(described: Mapping[str, str], options: Mapping[str, Any]) -> str:
    """Return a line per described option, with its default unless that is None."""
    parser = ArgumentParser(
        usage="python -m monai.bundle run --config_file FILE [--OPTION VALUE ...]",
        add_help=False,
        formatter_class=partial(ArgumentDefaultsHelpFormatter, max_help_position=30),
    )
    for name, line in sorted(described.items()):
        default = SUPPRESS if options[name] is None else readable(options[name])
        parser.add_argument(f"--{name}", metavar="", help=line.replace("%", "%%"), default=default)
    return parser.format_help()


def _refusal(name: str, described: Iterable[str], options: Mapping[str, Any]) -> str:
    renamed = _RENAMED.get(_base(name))
    if renamed in options:
        return f"no option --{name}; use --{renamed}"
    nearest = get_close_matches(_base(name), described, n=1) or get_close_matches(_base(name), options)
    hint = f"did you mean --{nearest[0]}?" if nearest else "--help lists all options"
    return f"no option --{name}; {hint}"
