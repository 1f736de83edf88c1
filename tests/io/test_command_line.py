"""An option that nothing reads is refused, and the nearest one named; a path is what was typed."""

import re
from pathlib import Path

import fire
import pytest
from monai.bundle import ConfigParser
from tests.refusal import refused

from scripts.io import command_line
from scripts.io.command_line import as_typed, check_options
from scripts.io.descriptions import COMMON, DEFAULTS, OF_CONFIG, descriptions, readable

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
WORKFLOWS = sorted(p.stem for p in CONFIGS.glob("*.json") if p.stem not in ("metadata", "mlflow", "gpu"))
PROGRAM = "/somewhere/monai/bundle/__main__.py"


def command(*options: str, config: str = "inference") -> list[str]:
    return [PROGRAM, "run", "--config_file", str(CONFIGS / f"{config}.json"), *options]


@pytest.mark.parametrize(
    ("options", "name", "meant"),
    [
        (("--inptu", "anna"), "inptu", "input"),
        (("--inptu=anna",), "inptu", "input"),
        (("--step", "5"), "step", "steps"),
        (("--see-d", "5"), "see_d", "seed"),
        (("--confg_file", "x.json"), "confg_file", "config_file"),
        (("--input", "a", "--sed", "5"), "sed", "seed"),
    ],
)
def test_a_misspelt_option_is_refused_with_the_nearest_one(options, name, meant):
    with pytest.raises(ValueError, match=rf"--{name}; did you mean --{meant}\?"):
        check_options(command(*options))


@pytest.mark.parametrize("name", ["inference", "prepare", "export_radiographs", "train"])
def test_the_former_name_of_the_output_folder_is_refused_with_the_new_one(name):
    with refused(ValueError, "no option --output;", "--output_dir"):
        check_options(command("--output", "x", config=name))


def test_all_unknown_options_are_named_at_once():
    with pytest.raises(ValueError, match="--inptu.*--xyzzy.*--help"):
        check_options(command("--inptu", "a", "--xyzzy", "1"))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_workflow_takes_its_own_options_and_those_of_monai(name):
    check_options(command("--logging_file", "x.conf", "--tracking", "mlflow", "--run_name", "a", config=name))
    with pytest.raises(ValueError, match="no option --no_such_thing"):
        check_options(command("--no_such_thing", "1", config=name))


@pytest.mark.parametrize("name", ["network_def#steps", "network_def::steps", "+network_def"])
def test_an_entry_inside_a_component_may_be_set(name):
    check_options(command(f"--{name}", "3"))


def test_values_are_no_options():
    check_options(command("--air_value", "-5", "--seed", "-3"))


@pytest.mark.parametrize("files", ["['{0}','{1}']", "{0},{1}"])
def test_the_options_are_those_of_all_files(files):
    both = files.format(CONFIGS / "inference.json", CONFIGS / "evaluate.json")
    check_options([PROGRAM, "run", "--config_file", both, "--split", "val", "--steps", "3"])


SHIPPED = sorted(p for p in CONFIGS.rglob("*.json") if p.stem != "metadata")
INTERNAL = {
    "bundle_root", "imports", "initialize", "run", "finalize", "handlers", "handlers_id", "displayable_configs",
    "rank", "world_size", "is_not_rank0", "run_id", "init_id", "final_id", "meta_file", "logging_file", "args_file",
    "names", "budget", "evaluation", "facts", "provenance", "checkpoint", "checkpoints", "view_device", "loss", "ema",
    "network", "inferer", "reconstruct", "sweep",
    "network_def", "stage1_def", "stage1_geometry", "stage2_geometry", "training_inferer", "solver",
    "geometry", "result_geometry", "evaluator", "train", "validate",
    "methods", "baselines", "patients", "reports", "samplers", "writers",
}  # fmt: skip
"""Entries that the workflows compute, hand to MONAI or build from sections; nobody types them."""


def entries(path):
    values = ConfigParser.load_config_file(path)
    return {name.lstrip("+"): value for name, value in (values | values.get("configs", {})).items()}


def options_of(path):
    return {
        name: value
        for name, value in entries(path).items()
        if name not in INTERNAL | {"configs"} and "#" not in name and "_target_" not in str(value)
    }


def described(path):
    return {name: value for name, value in entries(path).items() if name in descriptions([str(path)])}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_help_has_a_line_and_a_readable_default_for_every_option(path):
    assert options_of(path).keys() - descriptions([str(path)]).keys() == set()
    raw = {name: value for name, value in described(path).items() if re.search(r"[$@]|_target_", readable(value))}
    assert raw == {}


def test_no_line_of_the_help_and_no_default_is_without_an_option():
    known = [described(path) for path in SHIPPED]
    assert COMMON.keys() - set().union(*known) == {"config_file", "tracking"}
    assert OF_CONFIG.keys() - {path.stem for path in SHIPPED} == set()
    assert set().union(*OF_CONFIG.values()) - set().union(*known) == set()
    values = [value for options in known for value in options.values()]
    assert DEFAULTS.keys() - {v["_target_"] if "_target_" in str(v) else str(v) for v in values} == set()


def test_every_line_of_the_help_is_short_and_prints_on_any_terminal():
    lines = [*COMMON.values(), *(line for lines in OF_CONFIG.values() for line in lines.values())]
    assert [line for line in lines if not 0 < len(line) <= 100 or not line.isascii() or not line.isprintable()] == []


def helped(capsys, monkeypatch, *options, config="inference"):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit, match="0"):
        check_options(command(*options, "--help", config=config))
    return {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("  --")}


def test_help_describes_options_with_their_defaults_and_ends_the_program(capsys, monkeypatch):
    lines = helped(capsys, monkeypatch)
    assert lines["--weights"].endswith("  weights to use (default: bundle/models/model.pt)")
    assert lines["--device"].endswith("(default: a GPU if there is one)")
    assert lines["--interval"].endswith("90 % of the voxels")
    assert "--network_def" not in lines and "--exams" not in lines and "--count" not in lines


def test_help_says_what_an_option_means_in_that_workflow(capsys, monkeypatch):
    assert (
        "file to write (default: model.pt in --output_dir)" in helped(capsys, monkeypatch, config="train")["--weights"]
    )
    tracked = helped(capsys, monkeypatch, "--tracking", "mlflow", config="train")
    assert tracked["--tracking_uri"].endswith("(default: mlruns.db in --output_dir)")


def test_an_expression_of_a_foreign_configuration_is_shown_as_it_is():
    assert readable("$@a + 1") == "$@a + 1" and readable(False) == "false" and readable([1, 2]) == "[1, 2]"


def test_another_program_is_left_alone():
    check_options(["pytest", "--inptu", "x"])
    check_options([PROGRAM, "verify_metadata", "--anything", "x"])


PATHS = [
    "20241128", "2024_11_28", "1e5", "0x10", "-5", "(1)", "True", "name, with comma", "Doe, Anna", "p1#2", "/data/p1#2",
    "a,b", "./20241128", "true", "a b", "../x", "a@b", "50%", "a::b", "it's", 'the "best"', "b\\c", "M\u00fcller",
    "[2024] x", "plain",
]  # fmt: skip


def as_read(text):
    """What a configuration's ``output_dir`` is after Fire and MONAI have read it from the command line."""
    (parser,) = [ConfigParser({"output_dir": "default", "used": "@output_dir"})]
    fire.Fire(lambda output_dir: parser.update({"output_dir": output_dir}), command=[f"--output_dir={text}"])
    return parser.get_parsed_content("used")


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_what_was_typed(path):
    assert as_read(as_typed(path)) == path


@pytest.mark.parametrize("path", ["@eaDir", "%x", "$x", "[1]", "'a'", "{a}", "None", "true", "(1,2)", "a,b"])
def test_a_path_that_exists_is_never_syntax(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / path).mkdir()
    assert as_read(as_typed(path)) == path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("['a.dcm','b.dcm']", ["a.dcm", "b.dcm"]),
        ("['a#1','b']", ["a#1", "b"]),
        ("{'lateral':'l#2'}", {"lateral": "l#2"}),
    ],
)
def test_a_list_or_mapping_of_paths_keeps_their_names(text, value):
    assert as_read(as_typed(text)) == value


@pytest.mark.parametrize("text", ["", "None", "plain", "a/b.zip", "$@bundle_root + '/x'", "@bundle_root"])
def test_what_is_read_as_meant_is_left_alone(text):
    assert as_typed(text) == text


@pytest.mark.parametrize("name", ["inference", "train", "prepare", "export_radiographs"])
def test_a_run_with_a_misread_path_is_replaced_by_one_as_typed(monkeypatch, name):
    runs = []
    monkeypatch.setattr(command_line.monai.bundle, "run", lambda config_file, **given: runs.append(given))
    monkeypatch.setattr("sys.argv", command("--output_dir", "20241129", config=name))
    with pytest.raises(SystemExit, match="0"):
        check_options()
    (given,) = runs
    assert ConfigParser({"x": given["output_dir"]}).get_parsed_content("x") == "20241129"
    check_options()
    assert len(runs) == 1, "the new run is as typed"
