"""Rules for a bundle's folder that follow the continuous integration of MONAI's model zoo.

The zoo runs its "min" checks on every pull request and its "full" ones on a GPU machine (``ci/verify_bundle.py`` and
``ci/unit_tests`` of Project-MONAI/model-zoo); ``minimal`` and ``full`` rules follow them. A rule yields one line per
fault.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from jsonschema.validators import validator_for
from monai.bundle import ConfigParser

from scripts.io.digest import sha256
from scripts.io.text import read_json
from tools.zoo_format import code_format

Rule = Callable[[Path], Iterator[str]]

METADATA, LARGE_FILES, WEIGHTS = "configs/metadata.json", "large_files.yml", "models/model.pt"
MAX_BYTES = 25_000_000
"""Largest size of a file; a larger one belongs in ``large_files.yml``."""
REQUIRED = (METADATA, "LICENSE", WEIGHTS, "configs/inference.json", "docs/README.md", "docs/data_license.txt")
MEMBERS = ("LICENSE", "README.md", "configs", "docs", "integrations", LARGE_FILES, "models", "scripts")
"""Allowed content of a release; ``README.md`` is the model card that ``push_to_hf_hub`` writes."""
STATED = ("name", "task", "description", "authors", "copyright", "data_source", "data_type", "intended_use")
COMMAND_SECONDS = 1800


def rules(
    checks: str,
    name: str,
    unit_test: str | Path,
    schema: str | Path | None = None,
    model_info: str | Path | None = None,
) -> dict[str, Rule]:
    """Return the rules to check, by name, in order of cost.

    Args:
        checks: ``minimal`` runs nothing of the bundle, ``full`` also runs it, in separate processes.
        name: name of the bundle.
        unit_test: the bundle's file for the zoo's ``ci/unit_tests``; needed for the full checks.
        schema: local copy of the schema that the metadata names; without it, this rule is skipped, with a message.
        model_info: the zoo's ``models/model_info.json``, to refuse a version it has; without it, this rule is skipped.

    Raises:
        ValueError: ``checks`` is unknown, or a file does not exist.
    """
    if checks not in ("minimal", "full"):
        raise ValueError(f"--checks must be minimal or full, got {checks!r}")
    for option, path in {
        "schema": schema,
        "model_info": model_info,
        "unit_test": checks == "full" and unit_test,
    }.items():
        if path and not Path(path).is_file():
            raise ValueError(f"--{option}: {path} is not a file; give another one, or use --checks minimal without it")
    chosen: dict[str, Rule] = {
        "required files": required_files,
        "nothing else": nothing_else,
        "file sizes": file_sizes,
        "large files": large_files,
        "paths in configs": relative_paths,
        "links in docs": links,
        "paths in docs": named_paths,
        "metadata": metadata,
        "version and changelog": changelog,
        "installed versions": installed_versions,
        "code format": code_format,
    }
    if schema:
        chosen["schema"] = partial(meets_schema, Path(schema))
    else:
        print("not checked: the schema of metadata.json; give a local copy by --schema", flush=True)
    if model_info:
        chosen["new version"] = partial(new_version, name, Path(model_info))
    if checks == "full":
        chosen |= {
            "network's input and output": partial(monai_tool, "verify_net_in_out"),
            "TorchScript": torchscript,
            "loading": partial(loads, name),
            "unit test": partial(unit_test_passes, name, Path(unit_test).resolve()),
        }
    return chosen


def failures(folder: Path, chosen: Mapping[str, Rule]) -> list[str]:
    """Return the faults of the bundle in ``folder``, each after the name of its rule, and print each rule's outcome."""
    found = []
    for name, rule in chosen.items():
        try:
            wrong = list(rule(folder))
        except ValueError as error:
            wrong = [str(error)]
        print(f"{'failed' if wrong else 'ok':>6}  {name}", flush=True)
        found += [f"{name}: {problem}" for problem in wrong]
    return found


def files_of(folder: Path) -> list[Path]:
    """Return all files in ``folder``, sorted, relative to it."""
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def required_files(folder: Path) -> Iterator[str]:
    """Check that the files exist that the zoo needs or prefers, such as both licences; weights may be a large file."""
    elsewhere = named_large(folder)
    for name in REQUIRED:
        if not (folder / name).is_file() and name not in elsewhere:
            yield f"{name} is missing"


def nothing_else(folder: Path) -> Iterator[str]:
    """Check that there are no results, data, tests, caches or hidden files."""
    for path in sorted(folder.iterdir()):
        if path.name not in MEMBERS:
            yield f"{path.name} does not belong in a release; delete it"
    for path in files_of(folder):
        if path.parts[0] in MEMBERS and any(part.startswith((".", "__pycache__")) for part in path.parts):
            yield f"{path} is not part of the bundle; delete it"


def file_sizes(folder: Path) -> Iterator[str]:
    """Check that no file exceeds the zoo's limit, except those in ``large_files.yml``."""
    elsewhere = named_large(folder)
    for path in files_of(folder):
        size = (folder / path).stat().st_size
        if size > MAX_BYTES and path.as_posix() not in elsewhere:
            yield f"{path} has {size} bytes, but the limit is {MAX_BYTES}; for weights use --large_file_url"


def large_file_entries(folder: Path) -> list[dict[str, Any]]:
    """Return the entries of ``large_files.yml``; none without that file.

    Raises:
        ValueError: the file does not have the zoo's form.
    """
    path = folder / LARGE_FILES
    if not path.is_file():
        return []
    content = ConfigParser.load_config_file(str(path))
    entries = content.get("large_files") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{LARGE_FILES} must hold a list large_files with path, url, hash_val and hash_type")
    return entries


def named_large(folder: Path) -> set[str]:
    """Return the paths of the files that ``large_files.yml`` names."""
    return {str(entry.get("path")) for entry in large_file_entries(folder)}


def large_files(folder: Path) -> Iterator[str]:
    """Check that each large file has a path in the bundle, a web address and its SHA-256."""
    for entry in large_file_entries(folder):
        path = Path(str(entry.get("path", "")))
        if not path.parts or path.is_absolute() or ".." in path.parts:
            yield f"path {entry.get('path')!r} is not in the bundle"
            continue
        if urlparse(str(entry.get("url"))).scheme not in ("http", "https"):
            yield f"{path}: url {entry.get('url')!r} is not a web address"
        if entry.get("hash_type") != "sha256" or not re.fullmatch("[0-9a-f]{64}", str(entry.get("hash_val"))):
            yield f"{path}: hash_type must be sha256 and hash_val its 64 hexadecimal digits"
        elif (folder / path).is_file() and sha256(folder / path) != entry["hash_val"]:
            yield f"{path}: hash_val differs from the hash of the file in the folder"


def relative_paths(folder: Path) -> Iterator[str]:
    """Check that no config has an absolute path."""
    for path in sorted((folder / "configs").rglob("*.json")):
        for found in re.findall(r'"(/[^"]*|[A-Za-z]:\\[^"]*)"', path.read_text()):
            yield f"{path.relative_to(folder)} holds the absolute path {found}"


def links(folder: Path) -> Iterator[str]:
    """Check that the documents link only to files in the folder."""
    for page in pages(folder):
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text()):
            resolved = (page.parent / target).resolve()
            if not resolved.exists() or not resolved.is_relative_to(folder.resolve()):
                yield f"{page.relative_to(folder)} links to {target}, which the bundle lacks"


def named_paths(folder: Path) -> Iterator[str]:
    """Check that every path ``bundle/...`` in the documents exists if the folder is called ``bundle``."""
    elsewhere = named_large(folder)
    for page in pages(folder):
        for target in re.findall(r"(?<![\w./-])bundle/([\w./-]*\w)", page.read_text()):
            if not (folder / target).exists() and target not in elsewhere:
                yield f"{page.relative_to(folder)} names bundle/{target}, which the bundle lacks"


def pages(folder: Path) -> list[Path]:
    """Return the documents."""
    return sorted([*(folder / "docs").glob("*.md"), *(folder / "integrations").glob("*/*.md")])


def metadata(folder: Path) -> Iterator[str]:
    """Check that the metadata states everything the zoo's pages show, with numbers as results."""
    stated = read_json(folder / METADATA)
    for key in STATED:
        if not str(stated.get(key) or "").strip():
            yield f"{key} is empty"
    if not stated.get("references"):
        yield "references is empty"
    metrics = stated.get("eval_metrics")
    if not isinstance(metrics, dict) or not metrics:
        yield "eval_metrics is empty"
    elif not all(isinstance(value, int | float) for value in metrics.values()):
        yield "eval_metrics holds a value that is not a number"


def changelog(folder: Path) -> Iterator[str]:
    """Check that the version is three numbers, and the first entry of a changelog sorted from new to old."""
    stated = read_json(folder / METADATA)
    current, log = stated.get("version"), list(stated.get("changelog") or {})
    wrong = [name for name in (current, *log) if not re.fullmatch(r"\d+\.\d+\.\d+", str(name))]
    if wrong:
        yield f"{wrong[0]!r} is not a version such as 1.2.3"
    elif not log or log[0] != current:
        yield f"the newest entry of changelog must be the version, {current}, got {log[0] if log else 'none'}"
    elif sorted(log, key=_numbers, reverse=True) != log:
        yield f"changelog must go from new to old, got {', '.join(log)}"


def installed_versions(folder: Path) -> Iterator[str]:
    """Check that the stated versions, which the zoo installs, are those that the checks run with."""
    stated = read_json(folder / METADATA)
    own = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
    packages = {package: stated.get(key) for package, key in own.items()} | stated.get("required_packages_version", {})
    for package, wanted in packages.items():
        try:
            here = version(package).split("+")[0]
        except PackageNotFoundError:
            yield f"{package} {wanted} is stated but not installed"
            continue
        if here != wanted:
            yield f"{package} {wanted} is stated, but {here} is installed"


def meets_schema(schema: Path, folder: Path) -> Iterator[str]:
    """Check that the metadata meets ``schema``."""
    form = read_json(schema)
    for error in validator_for(form)(form).iter_errors(read_json(folder / METADATA)):
        yield f"{error.json_path}: {error.message}"


def new_version(name: str, model_info: Path, folder: Path) -> Iterator[str]:
    """Check that the zoo, whose list of bundles is ``model_info``, does not have this version yet."""
    current = read_json(folder / METADATA).get("version")
    if f"{name}_v{current}" in read_json(model_info):
        yield f"{name} {current} is already in the zoo; give metadata.json another version"


def monai_tool(tool: str, folder: Path, *options: str) -> Iterator[str]:
    """Check that ``python -m monai.bundle TOOL`` succeeds on ``network_def``."""
    files = ("--meta_file", METADATA, "--config_file", "configs/inference.json")
    yield from _run([sys.executable, "-m", "monai.bundle", tool, "--net_id", "network_def", *files, *options], folder)


def torchscript(folder: Path) -> Iterator[str]:
    """Check that the weights can be exported as a TorchScript program."""
    with tempfile.TemporaryDirectory() as scratch:
        target = ("--ckpt_file", WEIGHTS, "--filepath", str(Path(scratch) / "model.ts"))
        yield from monai_tool("ckpt_export", folder, *target)


def loads(name: str, folder: Path) -> Iterator[str]:
    """Check that ``monai.bundle.load`` builds the network with weights from the folder alone, elsewhere and offline."""
    program = (
        f"import sys; sys.path.insert(1, 'models/{name}'); from monai.bundle import load\n"
        f"load({name!r}, bundle_dir='models', source='github', workflow_type='inference', device='cpu')"
    )
    with _as_in_the_zoo(name, folder) as place:
        yield from _run([sys.executable, "-c", program], Path(place))


def unit_test_passes(name: str, unit_test: Path, folder: Path) -> Iterator[str]:
    """Check that the bundle's unit test passes when run from a folder laid out like the zoo."""
    with _as_in_the_zoo(name, folder) as place:
        yield from _run([sys.executable, str(unit_test)], Path(place))


def _as_in_the_zoo(name: str, folder: Path) -> tempfile.TemporaryDirectory[str]:
    place = tempfile.TemporaryDirectory()
    models = Path(place.name) / "models"
    models.mkdir()
    (models / name).symlink_to(folder.resolve(), target_is_directory=True)
    return place


def _run(command: list[str], cwd: Path) -> Iterator[str]:
    """Run ``command`` without leaving caches, and yield the end of its output if it fails."""
    quiet = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=os.environ | quiet, capture_output=True, text=True, timeout=COMMAND_SECONDS
        )
    except subprocess.TimeoutExpired:
        yield f"took longer than {COMMAND_SECONDS} s"
        return
    if done.returncode:
        yield "\n    ".join((done.stderr or done.stdout).strip().splitlines()[-8:])


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(".")]
