"""What acceptance prints while it works: each task of a run as it ends, each check as it is made."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from demo.airflow import FINISHED
from etcdkeep.errors import EtcdkeepError

if TYPE_CHECKING:
    from collections.abc import Callable

    from demo.airflow import Airflow

RUN_TIMEOUT_S = 4 * 3600
UNDER_WAY = ("up_for_retry", "running", "queued")


class CheckFailed(Exception):
    """A check saw something else than it should."""


class Report:
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
        click.echo(f"{'ok    ' if good else 'FAILED'}  {what:<56} {took_s:6.1f} s  {seen}")
        return good


def follow(airflow: Airflow, dag: str, run_id: str) -> dict[str, Any]:
    """Tell each task's end until the run has ended, and return the run."""
    told: set[str] = set()
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while True:
        run: dict[str, Any] = airflow.call("GET", f"/dags/{dag}/dagRuns/{run_id}")
        tasks = airflow.tasks(dag, run_id)
        for task_id, task in sorted(tasks.items(), key=lambda item: str(item[1]["end_date"])):
            if task["end_date"] and task_id not in told and task["state"] not in UNDER_WAY:
                told.add(task_id)
                if task["state"] != "skipped":
                    duration_s = task["duration"] or 0
                    click.echo(f"  {task_id:<16} {task['state']:<16} {duration_s:6.1f} s  try {task['try_number']}")
                if task["state"] == "failed":
                    click.echo(last_words(airflow.log_text(dag, run_id, task_id)))
        if run["state"] in FINISHED:
            click.echo(f"{dag}: {run['state']} after {run['duration']:.1f} s")
            return run
        if time.monotonic() > deadline:
            raise click.ClickException(f"{dag} {run_id} did not end within {RUN_TIMEOUT_S} s")
        time.sleep(1)


def last_words(log: str) -> str:
    """Return the last two errors of a task's log."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    words = [
        f"      {line['event']}{''.join(' ' + error['exc_value'] for error in line.get('error_detail') or ())}"
        for line in lines
        if line["level"] in ("error", "critical")
    ]
    return "\n".join(words[-2:])
