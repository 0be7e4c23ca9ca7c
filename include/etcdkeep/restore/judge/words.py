"""Sentences about what nodes and pods have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcdkeep.restore.found.nodes import LIST
from etcdkeep.restore.judge.finding import Finding, warning

if TYPE_CHECKING:
    from etcdkeep.restore.found.tools import Tool


def cannot_raise(where: str, tool: Tool) -> Finding:
    """Return the warning that a tool lacks ``--bump-revision``."""
    return warning(
        f"{where}{tool.words} cannot raise the revision: clients that watch may keep a stale cache until they are restarted"
    )


def unfinished(cluster: str, run: str, where: str) -> str:
    """Return the words for another restore that is in the way."""
    return (
        f"restore {run!r} is running or was interrupted {where}. Finish it or roll it back first "
        f"(Airflow gone: python -m etcdkeep runbook {cluster} --begun {run})"
    )


def release_words(cluster: str, run: str) -> str:
    """Return the next step where a restore that ended without an end still holds a place."""
    return (
        f"Clear its task `rollback`. If Airflow no longer has it and nothing was stopped or swapped, release it: "
        f"{LIST} {cluster} --release {run}"
    )
