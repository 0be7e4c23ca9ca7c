"""What acceptance prints while it works: each task of a run as it ends, each check as it is made."""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING, Any

import click

from etcdkeep.acceptance.airflow import FINISHED
from etcdkeep.errors import EtcdkeepError
from etcdkeep.say import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from etcdkeep.acceptance.airflow import Airflow

RUN_TIMEOUT_S = 4 * 3600
PATIENCE_S = 60.0
UNDER_WAY = ("up_for_retry", "running", "queued")
NOT_RUN = ("skipped", "upstream_failed")


class CheckFailed(Exception):
    """A check saw something else than it should."""


def program(name: str) -> str:
    """
    Return a program's path.

    :raises CheckFailed: when it is not installed.
    """
    found = shutil.which(name)
    if found is None:
        raise CheckFailed(f"{name} is not on PATH. Install it, then start again.")
    return found


class AcceptanceReport:
    """The checks as they are made: one line each, with what was seen and how long it took."""

    def __init__(self) -> None:
        self.failures = 0

    def check(self, what: str, work: Callable[[], str]) -> bool:
        """Do one check: `work` says what it saw, or raises."""
        began = time.monotonic()
        try:
            seen, good = work(), True
        except (EtcdkeepError, CheckFailed, OSError) as err:
            seen, good = str(err), False
            self.failures += 1
        took_s = time.monotonic() - began
        say(f"{'ok    ' if good else 'FAILED'}  {what:<56} {took_s:6.1f} s  {seen}")
        return good


def follow(airflow: Airflow, dag: str, run_id: str) -> dict[str, Any]:
    """
    Tell each task's end until the run has ended, and return the run.

    :raises OSError: when Airflow does not answer for a minute.
    """
    told: set[str] = set()
    deadline = time.monotonic() + RUN_TIMEOUT_S
    answered = time.monotonic()
    while time.monotonic() < deadline:
        try:
            run: dict[str, Any] = airflow.call("GET", f"/dags/{dag}/dagRuns/{run_id}")
            tasks = airflow.tasks(dag, run_id)
        except OSError:
            if time.monotonic() - answered > PATIENCE_S:
                raise
        else:
            answered = time.monotonic()
            _tell(airflow, dag, run_id, tasks, told)
            if run["state"] in FINISHED:
                say(f"{dag}: {run['state']} after {run['duration']:.1f} s")
                return run
        time.sleep(1)
    raise click.ClickException(f"{dag} {run_id} did not end within {RUN_TIMEOUT_S} s")


def _tell(airflow: Airflow, dag: str, run_id: str, tasks: dict[str, dict[str, Any]], told: set[str]) -> None:
    for task_id, task in sorted(tasks.items(), key=lambda item: str(item[1]["end_date"])):
        if not task["end_date"] or task_id in told or task["state"] in UNDER_WAY:
            continue
        told.add(task_id)
        if task["state"] not in NOT_RUN:
            say(f"  {task_id:<16} {task['state']:<16} {task['duration'] or 0:6.1f} s  try {task['try_number']}")
        if task["state"] == "failed":
            say(last_words(airflow.log_text(dag, run_id, task_id)))


def last_words(log: str) -> str:
    """Return the last two errors of a task's log."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    words = [
        f"      {line['event']}{''.join(' ' + error['exc_value'] for error in line.get('error_detail') or ())}"
        for line in lines
        if line["level"] in ("error", "critical")
    ]
    return "\n".join(words[-2:])
