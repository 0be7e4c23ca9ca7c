"""docs/operations.md quotes what the log says when a task fails: each quotation is found in the source."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.unit.test_language import SOURCES, constants

PAGE = Path(__file__).parents[2] / "docs/operations.md"
SECTION = PAGE.read_text().partition("## When a task fails")[2].partition("\n## ")[0]
QUOTED = [quoted for line in SECTION.splitlines() if line.startswith("| ") for quoted in re.findall(r"`([^`]+)`", line.split("|")[2])]  # fmt: skip
OF_AN_ANSWER = re.compile(r"HTTP \d{3}")
"""The number comes from the server."""


@cache
def texts() -> str:
    """Return all texts of the source; ``{}`` stands for what a text takes in."""
    return "\n".join(text for path in SOURCES for _, text in constants(ast.parse(path.read_text())))


@pytest.mark.parametrize("quoted", [each for each in QUOTED if not OF_AN_ANSWER.fullmatch(each)])
def test_the_log_says_what_the_page_quotes(quoted: str) -> None:
    parts = [part.strip(" ,/") for part in quoted.split("…")]
    assert [part for part in parts if part and part not in texts()] == []


def test_quotations_are_found() -> None:
    assert len(QUOTED) > 40
