"""The house plan: rooms import only from lower floors, never sideways, and never later than at the top of a file."""

import ast
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "bundle" / "scripts"
MAY_IMPORT = {
    "geometry": set(),
    "intensity": set(),
    "physics": {"geometry", "intensity"},
    "io": {"geometry", "intensity"},
    "blocks": set(),
    "diffusion": set(),
    "phantom": set(),
    "metrics": {"geometry", "intensity"},
    "networks": {"geometry", "intensity", "blocks", "physics", "diffusion"},
    "losses": {"geometry", "intensity", "physics", "diffusion", "metrics"},
    "data": {"geometry", "intensity", "io", "physics", "phantom"},
    "engine": {"geometry", "intensity", "physics", "io", "blocks", "diffusion", "metrics"},
    "report": set(),
}
MODULES = sorted(SCRIPTS.rglob("*.py"))


def room(path: Path) -> str:
    parts = path.relative_to(SCRIPTS).with_suffix("").parts
    return parts[0] if parts != ("__init__",) else ""


def imports(tree: ast.AST) -> list[tuple[str, int]]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import on line {node.lineno}"
            found.append((node.module, node.lineno))
        elif isinstance(node, ast.Import):
            found.extend((alias.name, node.lineno) for alias in node.names)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SCRIPTS)))
def test_rooms_import_only_from_lower_floors(path):
    for name, line in imports(ast.parse(path.read_text())):
        parts = name.split(".")
        if parts[0] != "scripts" or len(parts) == 1:
            continue
        allowed = MAY_IMPORT[room(path)] | {room(path)}
        assert parts[1] in allowed, f"{path.name}:{line}: {room(path)} may not import {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SCRIPTS)))
def test_imports_stand_at_the_top_of_the_file(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            late = imports(node)
            assert not late, f"{path.name}:{late[0][1]}: import of {late[0][0]} inside {node.name}"


def test_report_knows_no_torch():
    for path in (SCRIPTS / "report").glob("*.py"):
        assert all(name.split(".")[0] != "torch" for name, _ in imports(ast.parse(path.read_text())))


def test_every_room_is_in_the_plan():
    assert {room(path) for path in MODULES} - {""} == set(MAY_IMPORT)


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
