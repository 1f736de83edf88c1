"""The release command: its output, its refusals, and the use of a release by MONAI's own tools without a network."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import monai.bundle.scripts
import pytest
import torch
from monai.bundle import ConfigWorkflow, download, download_large_files, push_to_hf_hub
from tests.refusal import refused
from tools import release as module
from tools import zoo_rules
from tools.release import assemble, check, files_of, hub_files, name_large_file, preview_push, release

from scripts.io.digest import sha256

BUNDLE = Path(__file__).parents[2] / "bundle"
CARD = BUNDLE / "docs" / "README.md"
NAME = "biplanar_xray_to_ct"
MINIMAL = zoo_rules.rules("minimal", NAME, "")
RULES = {name: rule for name, rule in MINIMAL.items() if name != "code format"}
"""Those that take no time; `released` keeps all."""
OFFLINE = """
import socket, sys
def refuse(*args, **kwargs):
    raise OSError("no network here")
socket.getaddrinfo = socket.socket.connect = refuse
"""


def run(run_id: str = "run", **options) -> None:
    """release.json, with the minimal checks."""
    config, hook = BUNDLE.parent / "tools" / "release.json", sys.excepthook
    workflow = ConfigWorkflow(str(config), workflow_type=None, run_id=run_id, checks="minimal", **options)
    workflow.initialize()
    workflow.run()
    sys.excepthook = hook


@pytest.fixture(scope="module", autouse=True)
def unformatted():
    """Releases without the zoo's code format, which takes half a minute; test_zoo_format.py is about that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "reformat", lambda folder: None)
        patch.setattr(zoo_rules, "code_format", lambda folder: iter(()))
        yield


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Path:
    """The folder of a release that keeps the minimal rules."""
    output = tmp_path_factory.mktemp("dist")
    run(output_dir=str(output))
    return output / NAME


@pytest.fixture
def copy(released, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(released, tmp_path / NAME))


def edit_metadata(folder: Path, **values) -> None:
    path = folder / "configs" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_release_holds_the_bundle_and_no_caches(released):
    assert {path.name for path in released.iterdir()} == {
        *("LICENSE", "configs", "docs", "integrations", "models", "scripts")
    }
    for part in ("configs", "models", "scripts/io"):
        suffixes = {".py", ".json", ".pt", ".conf"}
        names = {path.name for path in (BUNDLE / part).iterdir() if path.suffix in suffixes}
        assert names <= {path.name for path in (released / part).iterdir()}, part
    assert sha256(released / "models" / "model.pt") == sha256(BUNDLE / "models" / "model.pt")


def test_a_release_holds_the_licence_of_every_library_that_it_carries(released):
    assets = released / "scripts" / "report" / "assets"
    libraries = [path.name.removesuffix(".min.js") for path in assets.glob("*.min.js")]
    assert libraries == ["vtk"]
    assert all((assets / f"{name}.LICENSE.txt").is_file() for name in libraries)


def test_caches_and_results_beside_the_bundle_stay_out(released, tmp_path):
    bundle = shutil.copytree(released, tmp_path / "bundle")
    strays = ["scripts/io/__pycache__/a.py", "eval/a.json", "docs/.hidden", "integrations/deploy/cache/a.pt"]
    strays += ["models/model.ts", "models/model.pt.0123.fp16-4.denoiser.plan", "models/other.pt"]
    for stray in strays:
        (bundle / stray).parent.mkdir(parents=True, exist_ok=True)
        (bundle / stray).write_text("stray")
    assemble(bundle, tmp_path / "again")
    assert files_of(tmp_path / "again") == files_of(released)


def test_documents_are_released_as_they_are(released):
    pages = zoo_rules.pages(released)
    assert {page.parent.name for page in pages} == {"docs", "app", "deploy", "monailabel"}
    assert all(page.read_bytes() == (BUNDLE / page.relative_to(released)).read_bytes() for page in pages)


def test_commands_in_the_documents_need_nothing_that_a_release_lacks(released):
    """But for tests and benchmarks, of which the model card says that they belong to the source repository."""
    lacking = re.compile(r"(?<![\w./-])(?:requirements[\w-]*\.txt|make (?!test-))")
    for page in zoo_rules.pages(released):
        for block in re.findall(r"^```(?:bash)?\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            commands = re.sub("#.*", "", block)
            assert not lacking.search(commands), (page.name, commands)


def test_the_exports_page_installs_the_pinned_exporters():
    page = (BUNDLE / "docs" / "exports.md").read_text()
    assert "pip install " + " ".join((BUNDLE.parent / "requirements-export.txt").read_text().split()) in page


def test_make_passes_the_options_of_a_release_that_are_set():
    def command(*settings):
        return subprocess.run(
            ["make", "--dry-run", "release", *settings], cwd=BUNDLE.parent, capture_output=True, text=True, check=True
        ).stdout

    told = command("SCHEMA=s.json", "MODEL_INFO=m.json", "LARGE_FILE_URL=https://example.org/a?b=1&c=2")
    assert '--schema "s.json" --model_info "m.json"' in told
    assert '--large_file_url "https://example.org/a?b=1&c=2"' in told
    assert not re.search("--(schema|model_info|large_file_url)", command())


def test_the_zip_unpacks_to_the_folder_and_is_the_same_every_time(released, tmp_path):
    (archive,) = released.parent.glob("*.zip")
    assert archive.name == f"{NAME}_v{json.loads((BUNDLE / 'configs' / 'metadata.json').read_text())['version']}.zip"
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(tmp_path)
    assert files_of(tmp_path / NAME) == files_of(released)
    assert all((tmp_path / NAME / p).read_bytes() == (released / p).read_bytes() for p in files_of(released))
    module.pack(tmp_path / NAME, NAME, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()


def test_monai_downloads_the_zip_from_a_folder(released, tmp_path):
    (archive,) = released.parent.glob("*.zip")
    download(name=NAME, url=archive.as_uri(), bundle_dir=tmp_path, progress=False)
    assert files_of(tmp_path / NAME) == files_of(released)


@pytest.mark.slow
def test_monai_loads_the_network_in_a_fresh_process_elsewhere_without_a_network(released, tmp_path):
    program = OFFLINE + (
        f"sys.path.insert(1, {str(released)!r})\n"
        "import torch\nfrom monai.bundle import load\n"
        f"network = load({NAME!r}, bundle_dir={str(released.parent)!r}, source='github', device='cpu')\n"
        f"state = torch.load({str(BUNDLE / 'models' / 'model.pt')!r}, weights_only=True)\n"
        "assert all(torch.equal(v, state[k].to(v.dtype)) for k, v in network.state_dict().items())\n"
        "import scripts\n"
        f"assert scripts.BUNDLE_ROOT == {str(released.resolve())!r}, scripts.BUNDLE_ROOT\n"
    )
    done = subprocess.run([sys.executable, "-B", "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_the_full_checks_pass(released):
    unit_test = Path(__file__).parents[1] / "zoo" / f"test_{NAME}.py"
    before = files_of(released)
    check(released, zoo_rules.rules("full", NAME, unit_test))
    assert files_of(released) == before


def test_large_files_are_named_and_monai_fetches_them_back(copy, released):
    name_large_file(copy, (released / "models" / "model.pt").as_uri())
    (copy / "models" / "model.pt").unlink()
    assert not list(zoo_rules.required_files(copy))
    download_large_files(bundle_path=str(copy))
    assert sha256(copy / "models" / "model.pt") == sha256(released / "models" / "model.pt")


def test_weights_above_the_limit_are_released_by_their_address_alone(released, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo_rules, "MAX_BYTES", 10_000_000)
    with refused(ValueError, "1 rules", "file sizes: models/model.pt", "--large_file_url"):
        release(BUNDLE, tmp_path / "refused", NAME, RULES)
    folder = release(BUNDLE, tmp_path, NAME, RULES, large_file_url="https://example.org/model.pt")
    assert (folder / "large_files.yml").is_file() and not (folder / "models" / "model.pt").exists()
    check(folder, RULES)
    (archive,) = tmp_path.glob("*.zip")
    (whole,) = released.parent.glob("*.zip")
    assert archive.read_bytes() == whole.read_bytes()


def test_another_file_above_the_limit_is_refused_beside_named_weights(copy, monkeypatch):
    monkeypatch.setattr(zoo_rules, "MAX_BYTES", 10_000_000)
    name_large_file(copy, "https://example.org/model.pt")
    append("docs/big.bin", "0" * 10_000_001)(copy)
    (problem,) = zoo_rules.file_sizes(copy)
    assert problem.startswith("docs/big.bin has 10000001 bytes")


LARGE = 'large_files:\n- {{path: {path}, url: {url}, hash_val: "{digest}", hash_type: {kind}}}\n'
GOOD = {"path": "models/model.pt", "url": "https://example.org/m.pt", "digest": "0" * 64, "kind": "sha256"}


def write_large(**changes):
    return lambda folder: (folder / "large_files.yml").write_text(LARGE.format(**GOOD | changes))


def append(name: str, text: str):
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("a") as file:
            file.write(text)

    return change


DAMAGE = {
    "no licence": (lambda f: (f / "LICENSE").unlink(), "required files: LICENSE is missing"),
    "no weights": (lambda f: (f / "models/model.pt").unlink(), "required files: models/model.pt is missing"),
    "results": (append("eval/a.json", "{}"), "nothing else: eval does not belong in a release"),
    "cache": (append("scripts/io/__pycache__/a.pyc", ""), "nothing else: scripts/io/__pycache__/a.pyc is not part"),
    "large": (
        append("docs/big.bin", "0" * 25_000_001),
        "file sizes: docs/big.bin has 25000001 bytes, but the limit is 25000000",
    ),
    "path": (append("configs/x.json", '{"a": "/home/me"}'), "paths in configs: configs/x.json holds the absolute path"),
    "link": (append("docs/x.md", "[a](../../README.md)"), "links in docs: docs/x.md links to ../../README.md"),
    "link of an integration": (
        append("integrations/deploy/README.md", "[a](../../../Makefile)"),
        "links in docs: integrations/deploy/README.md links to ../../../Makefile",
    ),
    "named path": (
        append("integrations/deploy/README.md", "cp bundle/configs/no.json ."),
        "paths in docs: integrations/deploy/README.md names bundle/configs/no.json",
    ),
    "large file outside": (write_large(path="../m.pt"), "large files: path '../m.pt' is not in the bundle"),
    "large file on disk": (write_large(url="file:///m.pt"), "url 'file:///m.pt' is not a web address"),
    "large file by md5": (write_large(kind="md5"), "hash_type must be sha256"),
    "large file of other bytes": (write_large(), "hash_val differs"),
    "large files of another form": (append("large_files.yml", "- a"), "must hold a list large_files"),
    "no results": (lambda f: edit_metadata(f, eval_metrics={}), "metadata: eval_metrics is empty"),
    "words for results": (
        lambda f: edit_metadata(f, eval_metrics={"a": "b"}),
        "value that is not a number",
    ),
    "no authors": (lambda f: edit_metadata(f, authors=" "), "metadata: authors is empty"),
    "no version": (lambda f: edit_metadata(f, version="1.0"), "version and changelog: '1.0' is not a version"),
    "unlogged version": (lambda f: edit_metadata(f, version="99.0.0"), "must be the version, 99.0.0"),
    "order": (lambda f: edit_metadata(f, version="0.9.0", changelog={"0.9.0": "", "0.10.0": ""}), "from new to old"),
    "other package": (lambda f: edit_metadata(f, monai_version="0.1"), "monai 0.1 is stated, "),
    "no package": (
        lambda f: edit_metadata(f, required_packages_version={"no-such": "1"}),
        "no-such 1 is stated but not",
    ),
    "not JSON": (append("configs/metadata.json", "}"), "metadata: "),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_each_broken_rule_is_named(copy, damage):
    change, message = DAMAGE[damage]
    change(copy)
    with refused(ValueError, "rules of the zoo", message):
        check(copy, RULES)


def test_all_failures_are_listed_at_once_and_nothing_is_written(released, tmp_path):
    bundle = shutil.copytree(released, tmp_path / "bundle")
    (bundle / "docs" / "data_license.txt").unlink()
    edit_metadata(bundle, authors="", references=[])
    with refused(ValueError, "3 rules", "data_license.txt", "authors", "references"):
        release(bundle, tmp_path / "dist", NAME, RULES)
    assert list((tmp_path / "dist").iterdir()) == []


def test_a_version_that_the_zoo_has_is_refused(copy, tmp_path):
    listed = tmp_path / "model_info.json"
    listed.write_text(json.dumps({f"{NAME}_v1.0.0": {}}))
    edit_metadata(copy, version="1.0.0")
    assert "already in the zoo" in next(zoo_rules.new_version(NAME, listed, copy))
    edit_metadata(copy, version="1.0.1")
    assert not list(zoo_rules.new_version(NAME, listed, copy))


def test_the_schema_rule_finds_all_that_jsonschema_finds(copy, tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"required": ["no_such"], "properties": {"task": {"type": "integer"}}}))
    assert len(list(zoo_rules.meets_schema(schema, copy))) == 2


def test_a_failing_command_is_reported_with_the_end_of_its_output(tmp_path):
    broken = tmp_path / "test.py"
    broken.write_text("import pathlib; assert pathlib.Path('models/b/LICENSE').is_file(), 'not laid out like the zoo'")
    (problem,) = zoo_rules.unit_test_passes("b", broken, tmp_path)
    assert "not laid out like the zoo" in problem
    (tmp_path / "LICENSE").touch()
    assert not list(zoo_rules.unit_test_passes("b", broken, tmp_path))


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        ({"checks": "some"}, ("--checks", "minimal or full", "'some'")),
        ({"checks": "full", "unit_test": "/nowhere.py"}, ("--unit_test", "/nowhere.py", "not a file")),
        ({"checks": "minimal", "schema": "/nowhere.json"}, ("--schema", "/nowhere.json", "not a file")),
    ],
)
def test_wrong_options_are_refused(options, fragments):
    with refused(ValueError, *fragments):
        zoo_rules.rules(**{"name": NAME, "unit_test": ""} | options)


def test_a_release_into_the_bundle_is_refused():
    with refused(ValueError, "--output_dir", str(BUNDLE / "models"), "overlap"):
        release(BUNDLE, BUNDLE / "models", NAME, {})
    with refused(ValueError, "--output_dir"):
        release(BUNDLE, None, NAME, {})


class Hub:
    """Stands for ``huggingface_hub.HfApi``; keeps what a push would send."""

    sent: dict[str, int] = {}

    def __init__(self, token=None) -> None:
        pass

    def create_repo(self, **kwargs) -> None:
        pass

    def upload_folder(self, repo_id: str, folder_path: str) -> str:
        Hub.sent = {p.as_posix(): (Path(folder_path) / p).stat().st_size for p in files_of(Path(folder_path))}
        return repo_id


def test_the_dry_run_lists_what_monai_would_push(copy, monkeypatch, capsys):
    run("dry_run", output_dir=str(copy.parent), repo="team/ct")
    told, listed = capsys.readouterr().out, hub_files(copy)
    monkeypatch.setattr(monai.bundle.scripts, "huggingface_hub", SimpleNamespace(HfApi=Hub))
    push_to_hf_hub(repo="team/ct", name=NAME, bundle_dir=str(copy.parent))
    assert Hub.sent.keys() == listed.keys()
    assert {k: v for k, v in Hub.sent.items() if k != "README.md"} == {
        k: v for k, v in listed.items() if k != "README.md"
    }
    assert 0 < Hub.sent["README.md"] - listed["README.md"] < 200
    assert f"push_to_hf_hub --repo team/ct --name {NAME} --bundle_dir {copy.parent} --version" in told
    assert all(f"{size:,}  {path}\n" in told for path, size in listed.items())
    preview_push(copy.parent, NAME, "team/ct", RULES)  # with the README.md that the push has left


def test_a_dry_run_without_a_release_or_an_owner_or_the_weights_is_refused(copy, tmp_path):
    with refused(ValueError, "nowhere", "release", "--output_dir"):
        preview_push(tmp_path / "nowhere", NAME, "team/ct", RULES)
    with refused(ValueError, "--repo", "OWNER/NAME", "'ct'"):
        preview_push(copy.parent, NAME, "ct", RULES)
    name_large_file(copy, "https://example.org/model.pt")
    (copy / "models" / "model.pt").unlink()
    with refused(ValueError, "models/model.pt", "--large_file_url", "download_large_files"):
        preview_push(copy.parent, NAME, "team/ct", RULES)


def test_results_in_the_metadata_are_the_model_cards():
    (row,) = [line for line in CARD.read_text().splitlines() if line.startswith("| **6 test** | **DiffuX2CT**")]
    card = [float(cell.strip(" *")) for cell in row.split("|")[3:-1]]
    assert list(json.loads((BUNDLE / "configs" / "metadata.json").read_text())["eval_metrics"].values()) == card


def test_every_collection_of_the_model_card_has_its_licence_in_the_data_licences():
    text = (BUNDLE / "docs" / "data_license.txt").read_text()
    rows = [line for line in CARD.read_text().splitlines() if line.startswith(("| train |", "| val |", "| test |"))]
    card = " ".join(rows)
    dois = {word.rstrip(",;") for word in card.split() if word.startswith("10.")}
    assert {line.split("doi.org/")[1].split()[0] for line in text.splitlines() if "doi.org/" in line} == dois
    for row in rows:
        for collection in row.split("|")[2].split(";"):
            name = collection.split(", doi")[0].strip()
            assert f"  {name}\n" in text, name


def test_the_release_weights_load_without_pickled_code(released):
    assert torch.load(released / "models" / "model.pt", weights_only=True)
