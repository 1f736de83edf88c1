"""Release of this bundle in the MONAI model zoo's format, a folder and its zip, and preview of a push to a hub."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import yaml
from monai.bundle import ConfigParser

from scripts.io.atomic import whole_file, whole_folder
from scripts.io.digest import sha256
from tools.zoo_format import reformat
from tools.zoo_rules import LARGE_FILES, METADATA, WEIGHTS, Rule, failures, files_of

CONTENT = (
    "LICENSE",
    "configs/logging.conf",
    "configs/**/*.json",
    "docs/**/*",
    "integrations/*/*",
    WEIGHTS,
    "models/radiographs.json",
    "models/auxiliary/orientation.pt",
    "models/auxiliary/error_scale.pt",
    "models/auxiliary/error_scale_fine.pt",
    "models/auxiliary/refining.pt",
    "models/auxiliary/mean_volume.nii.gz",
    "models/intervals.json",
    "models/intervals_fine.json",
    "scripts/**/*.py",
    "scripts/*/assets/*",
)
"""Content of a release. Caches, results, files exported beside the weights, and hidden files stay out."""
_EPOCH = (2020, 1, 1, 0, 0, 0)
"""Date of every file in a zip, so that the same bundle gives the same zip."""


def release(
    bundle_root: str | Path, output: str | Path, name: str, rules: Mapping[str, Rule], large_file_url: str | None = None
) -> Path:
    """Write ``output/name``, the bundle's folder, and ``output/name_v<version>.zip``, which unpacks to it.

    Both appear only if the folder meets all ``rules``. The zip is always complete.

    Args:
        bundle_root: folder of the bundle.
        output: folder to write to.
        name: name of the bundle.
        rules: rules that the release must meet, by name.
        large_file_url: address of the weights; the folder then has ``large_files.yml`` instead of them.

    Returns:
        The folder.

    Raises:
        ValueError: the output folder is missing or overlaps the bundle, or rules are broken; the message lists all.
    """
    if not output:
        raise ValueError("--output_dir: give the folder to write the release to")
    bundle_root, folder = Path(bundle_root).resolve(), Path(output).resolve() / name
    if folder.is_relative_to(bundle_root) or bundle_root.is_relative_to(folder):
        raise ValueError(f"--output_dir: {folder} and the bundle overlap; write the release elsewhere")
    with whole_folder(folder, METADATA) as partial:
        assemble(bundle_root, partial)
        if large_file_url:
            name_large_file(partial, large_file_url)
        check(partial, rules)
        version = ConfigParser.load_config_file(str(partial / METADATA))["version"]
        archive = folder.with_name(f"{name}_v{version}.zip")
        with whole_file(archive) as zipped:
            pack(partial, name, zipped)
            if large_file_url:
                (partial / WEIGHTS).unlink()
    print(f"{folder}: {len(files_of(folder))} files\n{archive}: sha256 {sha256(archive)}", flush=True)
    return folder


def assemble(bundle_root: Path, folder: Path) -> None:
    """Copy the content of a release, with the Python files in the zoo's format."""
    for path in sorted({path for pattern in CONTENT for path in bundle_root.glob(pattern)}):
        relative = path.relative_to(bundle_root)
        if not path.is_file() or any(part.startswith((".", "__pycache__")) for part in relative.parts):
            continue
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    reformat(folder)


def check(folder: Path, rules: Mapping[str, Rule]) -> None:
    """Check that the bundle in ``folder`` meets all ``rules``.

    Raises:
        ValueError: rules are broken; the message lists all failures.
    """
    found = failures(folder, rules)
    if found:
        raise ValueError(f"{len(found)} rules of the zoo are broken:\n" + "\n".join(f"- {line}" for line in found))


def pack(folder: Path, name: str, archive: Path) -> None:
    """Write ``folder`` as a zip that unpacks to ``name`` and is complete, hence without ``large_files.yml``.

    The same files give the same bytes.
    """
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path in files_of(folder):
            if path.name == LARGE_FILES:
                continue
            entry = zipfile.ZipInfo(f"{name}/{path.as_posix()}", _EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            zipped.writestr(entry, (folder / path).read_bytes())


def name_large_file(folder: Path, url: str) -> None:
    """Write ``large_files.yml``, which tells the zoo to download the weights from ``url``."""
    entry = {"path": WEIGHTS, "url": url, "hash_val": sha256(folder / WEIGHTS), "hash_type": "sha256"}
    (folder / LARGE_FILES).write_text(yaml.safe_dump({"large_files": [entry]}, sort_keys=False))


def hub_files(folder: Path) -> dict[str, int]:
    """Return the sizes in bytes, by path, of the files of ``folder`` that ``monai.bundle push_to_hf_hub`` uploads.

    MONAI itself writes ``README.md`` from the model card, with a short header that is not counted here.
    """
    sizes = {path.as_posix(): (folder / path).stat().st_size for path in files_of(folder)}
    return sizes | {"README.md": sizes["docs/README.md"]}


def preview_push(output: str | Path, name: str, repo: str, rules: Mapping[str, Rule]) -> None:
    """Check the release ``output/name``, and print the files that a push would upload to ``repo`` and its command.

    Nothing is sent, and no network is needed.

    Raises:
        ValueError: there is no release, rules are broken, the repository has no owner, or the weights are missing.
    """
    folder = Path(str(output)) / name
    if not output or not (folder / METADATA).is_file():
        raise ValueError(f"{folder}: not a release; write one first, and give its parent folder by --output_dir")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(repo)):
        raise ValueError(f"--repo: must be OWNER/NAME, got {repo!r}")
    check(folder, rules)
    sizes = hub_files(folder)
    if WEIGHTS not in sizes:
        raise ValueError(
            f"{folder}: {WEIGHTS} is missing, but the hub hosts it itself; release without --large_file_url, or "
            f"download it by python -m monai.bundle download_large_files --bundle_path {folder}"
        )
    version = ConfigParser.load_config_file(str(folder / METADATA))["version"]
    digest, total = sha256(folder / WEIGHTS), sum(sizes.values())
    print("\n".join(f"{size:>12,}  {path}" for path, size in sorted(sizes.items())))
    print(f"{total:>12,}  bytes in {len(sizes)} files to {repo}; {WEIGHTS} has sha256 {digest}")
    print("nothing was sent; to push, with huggingface_hub installed and logged in:")
    options = f"--repo {repo} --name {name} --bundle_dir {output} --version {version}"
    print(f"python -m monai.bundle push_to_hf_hub {options}", flush=True)
