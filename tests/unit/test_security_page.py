"""docs/security.md names, for each cell of its threat table, the test that shows it: every one of them exists."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
TABLE = (PROJECT / "docs/security.md").read_text().partition("## Who can write where")[2].partition("\n## ")[0]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TABLE.splitlines()
    if line.startswith("| ") and not line.startswith("| who ")
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}-{row[1]}"[:50])
def test_the_test_of_a_row_exists(row: list[str]) -> None:
    path, _, function = row[-1].partition("::")
    if not path.startswith("tests/"):
        assert row[2].startswith(("everything", "undo")), "what cannot be held off is said, and has no test"
        return
    tree = ast.parse((PROJECT / path).read_text())
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert not function or function in names
