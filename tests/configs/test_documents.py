"""The documents name options and files that exist."""

import json
import re
from pathlib import Path

import pytest

from scripts.io.descriptions import COMMON, OF_CONFIG

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "bundle" / "docs").glob("*.md"))]
KNOWN_TO_MONAI = {
    "config_file",
    "help",
    "tracking",
    "meta_file",
    "filepath",
    "ckpt_file",
    "net_id",
    "bundle_root",
    "nproc_per_node",
    "backend",
}
KNOWN_TO_MONAI |= {"name", "bundle_dir", "version", "private"}  # of push_to_hf_hub
KNOWN_TO_MONAI |= {"nnodes", "node_rank", "master_addr", "nworkers", "nthreads"}  # of torchrun and of Dask's worker
KNOWN_TO_MONAI |= {"codeformat", "autofix"}  # of the zoo's runtests.sh


def options() -> set[str]:
    keys = set(KNOWN_TO_MONAI)
    for path in [*(ROOT / "bundle" / "configs").rglob("*.json"), *(ROOT / "tools").glob("*.json")]:
        values = json.loads(path.read_text())
        keys |= {key.lstrip("+") for key in values} | set(values.get("configs", {}))
    for path in (ROOT / "benchmarks").glob("*.py"):
        keys |= set(re.findall(r'add_argument\("--(\w+)"', path.read_text()))
    return keys


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_option_in_the_documents_is_one_of_a_config_or_a_benchmark(page):
    named = set(re.findall(r"--([a-z]\w+)", page.read_text()))
    assert named - options() == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_help_describes_every_option_of_the_documents_tables(page):
    of_the_release = json.loads((ROOT / "tools" / "release.json").read_text())
    named = {
        name for row in re.findall(r"^\| `--.*?\|", page.read_text(), re.M) for name in re.findall(r"--(\w+)", row)
    }
    assert named - COMMON.keys() - set().union(*OF_CONFIG.values()) - of_the_release.keys() == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_and_config_in_the_documents_exists(page):
    text = page.read_text()
    links = [page.parent / target for target in re.findall(r"\]\((?!http)([^)#]+)", text)]
    configs = [ROOT / name for name in re.findall(r"bundle/configs/[\w/]+\.json", text)]
    assert [str(path) for path in links + configs if not path.exists()] == []
