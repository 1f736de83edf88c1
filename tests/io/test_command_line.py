"""An option that nothing reads is refused, and the nearest one named."""

from pathlib import Path

import pytest

from scripts.io.command_line import check_options

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
    check_options(command("--input", "-5", "--seed", "-3"))


@pytest.mark.parametrize("files", ["['{0}','{1}']", "{0},{1}"])
def test_the_options_are_those_of_all_files(files):
    both = files.format(CONFIGS / "inference.json", CONFIGS / "evaluate.json")
    check_options([PROGRAM, "run", "--config_file", both, "--split", "val", "--steps", "3"])


def test_help_lists_options_with_their_defaults_and_ends_the_program(capsys):
    with pytest.raises(SystemExit, match="0"):
        check_options(command("--help"))
    listed = capsys.readouterr().out
    assert "--steps" in listed and "--input" in listed and "--network_def" not in listed


def test_another_program_is_left_alone():
    check_options(["pytest", "--inptu", "x"])
    check_options([PROGRAM, "verify_metadata", "--anything", "x"])
