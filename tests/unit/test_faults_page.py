"""docs/faults.md names tests and errors: every one of them is there."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from etcdkeep import errors

PROJECT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (PROJECT / "docs/faults.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| fault ")
]
SHORT = re.compile(r"^(\w+_faults|kills)::")
ERRORS = {name for name, found in inspect.getmembers(errors, inspect.isclass)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_the_test_and_the_errors_of_a_row_exist(row: list[str]) -> None:
    fault, seen, _, shown_by = row
    path, _, name = SHORT.sub(r"tests/integration/test_backup_\1.py::", shown_by).partition("::")
    assert (PROJECT / path).is_file(), f"{fault}: no {path}"
    source = (PROJECT / path).read_text()
    function, _, parameter = name.rstrip("]").partition("[")
    if function:
        assert function in {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}
    assert not parameter or f'id="{parameter}"' in source, f"{fault}: no parameter {parameter!r} in {path}"
    assert set(re.findall(r"`([A-Z]\w+)`", seen)) <= ERRORS


def test_every_fault_of_the_fault_tests_stands_on_the_page() -> None:
    page = (PROJECT / "docs/faults.md").read_text()
    for path in (PROJECT / "tests/integration").glob("test_backup_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert f"::{node.name}" in page, f"{path.name}: {node.name} is not in docs/faults.md"
