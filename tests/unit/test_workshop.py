"""What a contributor starts from: hooks that run the lint of the Makefile, and pages whose links lead somewhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
PAGES = [*sorted(PROJECT.glob("*.md")), *sorted((PROJECT / "docs").rglob("*.md"))]
ARCHITECTURE = (PROJECT / "docs/architecture.md").read_text()
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#([\w-]+))?\)")


def test_the_hooks_run_what_make_lint_runs() -> None:
    (repository,) = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local", "a hook from elsewhere would be fetched"
    line = re.search(r"^lint: .*\n\t(.+)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert line is not None
    assert [hook["entry"] for hook in repository["hooks"]] == line[1].replace("$(BIN)", ".venv/bin").split(" && ")
    assert all(hook["language"] == "system" and hook["always_run"] for hook in repository["hooks"])


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text()):
        found = page.parent / target
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_source_file_that_a_page_names_is_there(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return  # it tells of files of its day
    files = {
        path.as_posix()
        for folder in ("include", "plugins", "dags", "tests", "tools")
        for path in (PROJECT / folder).rglob("*.py")
    }
    for named in re.findall(r"`((?:[\w.-]+/)*\w+\.py)`", page.read_text()):
        assert any(path.endswith(f"/{named}") for path in files), named


def functions(source: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.FunctionDef)}


def decisions() -> list[tuple[str, str]]:
    """Return file and function of each row of architecture.md's tables of what is decided where."""
    found = []
    for head in re.finditer(
        r"^\| question \| decided in `([^`]+)/` \|\n\|---\|---\|\n((?:\|.*\n)+)", ARCHITECTURE, re.M
    ):
        folder = Path("include/etcdkeep/restore/judge") if head[1] == "restore/judge" else Path(head[1])
        found += [(str(folder / file), name) for file, name in re.findall(r"`([\w/]+\.py)`, `(\w+)`", head[2])]
    return found


@pytest.mark.parametrize(("file", "function"), decisions())
def test_what_is_decided_is_where_the_drawing_of_the_house_says(file: str, function: str) -> None:
    assert function in functions(PROJECT / file)


def test_both_tables_of_decisions_are_read() -> None:
    found = decisions()
    assert ("include/etcdkeep/retention/plan.py", "plan_prune") in found
    assert ("include/etcdkeep/restore/judge/node.py", "_programs") in found


def test_unit_tests_are_in_the_folders_of_what_they_test() -> None:
    rooms = {path.name for path in (PROJECT / "include/etcdkeep").iterdir() if path.is_dir()}
    assert {path.parent.name for path in (PROJECT / "tests/unit").glob("*/test_*.py")} <= rooms
