"""The house plan: rooms import only from lower floors, never sideways, and never later than at the top of a file."""

import ast
import functools
import re
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "bundle" / "scripts"
VALUES = {"geometry", "intensity", "resolution", "smoothing"}
MAY_IMPORT = {
    "geometry": set(),
    "intensity": set(),
    "resolution": set(),
    "smoothing": set(),
    "physics": VALUES,
    "blocks": set(),
    "diffusion": set(),
    "metrics": VALUES,
    "phantom": set(),
    "io": VALUES,
    "dicom": {*VALUES, "io"},
    "networks": {*VALUES, "blocks", "physics", "diffusion"},
    "losses": {*VALUES, "physics", "diffusion", "metrics"},
    "exam": {*VALUES, "io", "dicom"},
    "cases": {*VALUES, "physics", "phantom", "io", "dicom"},
    "data": {*VALUES, "physics", "phantom", "io", "exam", "cases"},
    "inference": {*VALUES, "diffusion", "io"},
    "training": {*VALUES, "diffusion", "io", "inference"},
    "results": {*VALUES, "metrics", "io", "dicom", "exam"},
    "studies": {*VALUES, "physics", "metrics", "io", "exam", "cases", "data", "inference", "training"},
    "export": {*VALUES, "io", "inference"},
    "report": set(),
}
LARGEST_SHARE = 0.15
"""Of all lines, in one room."""


def modules() -> list[Path]:
    return sorted(SCRIPTS.rglob("*.py"))


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def room(path: Path) -> str:
    parts = path.relative_to(SCRIPTS).with_suffix("").parts
    return parts[0] if parts != ("__init__",) else ""


def imports(module: ast.AST) -> list[tuple[str, int]]:
    found = []
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import on line {node.lineno}"
            found.append((node.module, node.lineno))
        elif isinstance(node, ast.Import):
            found.extend((alias.name, node.lineno) for alias in node.names)
    return found


def test_rooms_import_only_from_lower_floors():
    wrong = []
    for path in modules():
        for name, line in imports(tree(path)):
            parts = name.split(".")
            allowed = MAY_IMPORT.get(room(path), set()) | {room(path)}
            if parts[0] == "tools" or parts[0] == "scripts" and len(parts) > 1 and parts[1] not in allowed:
                wrong.append(f"{path.relative_to(SCRIPTS)}:{line}: {room(path)} may not import {name}")
    assert not wrong, "\n".join(wrong)


def test_imports_stand_at_the_top_of_the_file():
    late = []
    for path in modules():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                late += [f"{path.relative_to(SCRIPTS)}:{line}: {name} in {node.name}" for name, line in imports(node)]
    assert not late, "\n".join(late)


def test_report_knows_no_torch():
    for path in (SCRIPTS / "report").glob("*.py"):
        assert all(name.split(".")[0] != "torch" for name, _ in imports(tree(path)))


def imported(names: set[str]) -> set[str]:
    """Those modules of scripts, and all that importing them imports."""
    files = {".".join(("scripts", *path.relative_to(SCRIPTS).with_suffix("").parts)): path for path in modules()}
    found, left = set(), names
    while left:
        name = left.pop()
        path = files.get(name, files.get(f"{name}.__init__"))
        if path is None or name in found:  # of another package, or a name in a module
            continue
        found.add(name)
        left.add(name.rpartition(".")[0])
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom):
                left |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                left |= {alias.name for alias in node.names}
    return found


def test_training_reads_no_dicom():
    text = (SCRIPTS.parent / "configs" / "train.json").read_text()
    roots = {name.rpartition(".")[0] for name in re.findall(r'"_target_": "(scripts\.[^"]+)"', text)}
    found = imported(roots)
    assert {"scripts.data.patients", "scripts.cases.phantoms", "scripts.training.checkpoints"} <= found
    assert [name for name in found if name.startswith("scripts.dicom")] == []
    assert "scripts.dicom.read_ct" in imported({"scripts.cases.scans"}), "the walk would find it"


def test_pictures_need_no_template_engine():
    pictures = {f"scripts.report.{name}" for name in ("figure", "panel", "rendering", "reliability", "skeletons")}
    for name in imported(pictures) - {"scripts", "scripts.report"}:
        path = SCRIPTS.parent.joinpath(*name.split(".")).with_suffix(".py")
        assert all(used.split(".")[0] != "jinja2" for used, _ in imports(tree(path))), name


def test_every_room_is_in_the_plan_and_none_has_grown_too_large():
    lines: dict[str, int] = {}
    for path in modules():
        lines[room(path)] = lines.get(room(path), 0) + len(path.read_text().splitlines())
    assert lines.keys() - {""} == MAY_IMPORT.keys()
    total = sum(lines.values())
    assert {name: count for name, count in lines.items() if count > LARGEST_SHARE * total} == {}


def test_no_file_name_stands_in_two_rooms():
    names = [path.name for path in modules() if path.name != "__init__.py"]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_rooms_have_no_cycles():
    seen = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"cycle {above + (name,)}"
        for lower in MAY_IMPORT[name]:
            visit(lower, above + (name,))
        seen.add(name)

    for name in MAY_IMPORT:
        visit(name, ())
    assert seen == set(MAY_IMPORT)
