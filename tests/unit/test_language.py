"""
What people read keeps to the words of docs/glossary.md.

The source is read without running it: errors, log lines, step words, findings, help texts and forms are string constants
there. Pages that are put together from parts are rendered. The documentation is read as it stands.
"""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from etcdkeep.cli import cli
from etcdkeep.restore.approval_page import render_request
from etcdkeep.restore.circumstances import Circumstances
from etcdkeep.restore.form import Form
from etcdkeep.restore.judge.judgement import judge
from etcdkeep.restore.loss import Loss, Losses
from etcdkeep.restore.options import Options
from etcdkeep.restore.prepare import Prepared
from etcdkeep.restore.runbook import render_runbook
from tests.unit.restore.builders import PLANNED_AT, make_cluster, make_facts
from tests.unit.restore.test_judge import make_set
from tests.unit.restore.test_runbook import SHAPES, THROUGH_BASTION, make_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parents[2]
GLOSSARY = (PROJECT / "docs/glossary.md").read_text()
SOURCES = [path for folder in ("include", "plugins", "dags") for path in sorted((PROJECT / folder).rglob("*.py"))]
PAGES = [*sorted(PROJECT.glob("*.md")), *sorted(set((PROJECT / "docs").rglob("*.md")) - {PROJECT / "docs/glossary.md"})]
PAGES.remove(PROJECT / "CHANGELOG.md")


@cache
def refused() -> dict[str, re.Pattern[str]]:
    """What must not be said → the pattern that finds it."""
    words, _, forms = GLOSSARY.partition("## Forms to avoid")
    rows = [line.strip("| ").split("|") for line in words.partition("## Words to use")[2].splitlines() if "`" in line]
    phrases = [phrase for row in rows for phrase in re.findall(r"`([^`]+)`", row[-1])]
    patterns = {phrase: re.compile(rf"(?<!\w){re.escape(phrase)}(?!\w)", re.IGNORECASE) for phrase in phrases}
    return patterns | {form: re.compile(form, re.IGNORECASE) for form in re.findall(r"`([^`]+)`", forms)}


def faults(text: str) -> list[str]:
    """Return what is refused in a text, each with the words around it."""
    plain = " ".join(text.split())
    found = [match for pattern in refused().values() for match in pattern.finditer(plain)]
    return [plain[max(0, match.start() - 50) : match.end() + 40] for match in found]


def constants(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """
    Yield the texts of a module with their lines; ``{}`` stands for what a text takes in.

    A module's own docstring is the page of its DAG, a function's the help text of its command; those of others, and the
    texts that describe an attribute, are for people who read the source.
    """
    hidden: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            hidden.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            hidden |= {id(part) for part in node.values}
            parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield node.lineno, "".join(parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in hidden:
            yield node.lineno, node.value


def commands(command: click.Command, name: str = "etcdkeep") -> Iterator[tuple[str, str]]:
    """Yield each command's name and all that its help says."""
    options = [option.help or "" for option in command.params if isinstance(option, click.Option)]
    yield name, "\n".join([command.help or "", command.epilog or "", *options])
    if isinstance(command, click.Group):
        context = click.Context(command)
        for each in command.list_commands(context):
            inner = command.get_command(context, each)
            assert inner is not None
            yield from commands(inner, f"{name} {each}")


HELP = dict(commands(cli))


def test_the_glossary_is_read() -> None:
    assert len(refused()) > 80
    assert faults("the plan holds no more, and was\n  taken back")
    assert faults("it is no archive")
    assert not faults("there is no archive, it is no longer used, and no restore is needed: roll it back")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_texts_in_the_source(path: Path) -> None:
    tree = ast.parse(path.read_text())
    texts = [*constants(tree)]
    if path.parent.name == "dags":
        texts.append((1, ast.get_docstring(tree) or ""))
    assert [f"{line}: {fault}" for line, text in texts for fault in faults(text)] == []


@pytest.mark.parametrize("name", HELP)
def test_help_of_a_command(name: str) -> None:
    assert HELP[name].strip()
    assert faults(HELP[name]) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_a_page_of_the_documentation(path: Path) -> None:
    assert faults(path.read_text()) == []


@pytest.mark.parametrize("shape", SHAPES)
def test_the_plan_and_its_runbook(shape: str) -> None:
    plan, _ = SHAPES[shape]()
    page = render_runbook(plan, THROUGH_BASTION)
    assert "Restore the snapshot" in page
    assert faults(page) == []
    assert [fault for step in plan.steps for fault in faults(step.words)] == []


@pytest.mark.parametrize("on_failure", ["rollback", "hold"])
@pytest.mark.parametrize("planned", [True, False])
def test_the_approval_page(on_failure: str, planned: bool) -> None:
    facts = (replace(make_facts(), etcd_healthy=True, free_bytes=0, kubelet_running=False),)
    options = Options("restore-a", PLANNED_AT)
    findings = judge(make_cluster(), make_set(), facts, options, Circumstances(PLANNED_AT)).findings
    plan = make_plan() if planned else None
    losses = Losses((Loss("configmaps", "shop", 1, 2, 3),), ("pods could not be listed: 403",))
    form = Form(cluster="prod", reason="the disk died", confirm="prod", on_failure=on_failure)
    page = render_request(Prepared(options, facts, findings, plan), losses, form, "carol")
    assert "### Blocking problems" in page
    assert faults(page) == []
