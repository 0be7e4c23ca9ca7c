"""A run of a DAG that asks people at gates, driven as they do: through Airflow's REST API, each answer by its person."""

from __future__ import annotations

import json
import time
import urllib.error
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.acceptance.airflow import Airflow

APPROVE, REJECT = "Approve", "Reject"
ASKED_S = 180.0
ENDED_S = 420.0
READING_S = 4.0
"""Airflow 3.3 takes an answer given before its scheduler has seen the task parked for a crash: then the gate asks again."""


class NeverAsked(Exception):
    """The run ended, or its time was up, before a gate asked."""


@contextmanager
def suppress_answered() -> Iterator[None]:
    """Pass over the answer that a question has already: it was asked again in the meantime."""
    try:
        yield
    except urllib.error.HTTPError as err:
        if err.code != 409:
            raise


@dataclass
class GatedRun:
    """
    One run.

    :cvar form: Its DAG, without the queue.
    :cvar plans: The task whose log says why a gate was never reached.
    """

    form: ClassVar[str]
    plans: ClassVar[str]

    airflow: Airflow
    run_id: str
    reading_s: float = READING_S

    @property
    def dag(self) -> str:
        return self.airflow.on_verify_queue(self.form)

    def asked(self, gate: str) -> dict[str, Any]:
        """
        Wait until a gate asks, and return what it shows.

        :raises NeverAsked: when it does not.
        """
        deadline = time.monotonic() + ASKED_S
        while True:
            if self.states().get(gate) == "awaiting_input":
                found: dict[str, Any] = self._call("GET", f"taskInstances/{gate}/-1/hitlDetails")
                return found
            state = self._call("GET", "")["state"]
            if state in ("success", "failed") or time.monotonic() > deadline:
                raise NeverAsked(
                    f"{self.run_id} is {state}, {gate} never asked: {self.states()}\n{self.log(self.plans)[-3000:]}"
                )
            time.sleep(0.3)

    def answer(self, gate: str, user: str, choice: str = APPROVE) -> dict[str, Any]:
        """Answer a gate when it asks, again whenever it asks again, and return what it showed."""
        body = {"chosen_options": [choice], "params_input": {}}
        while True:
            shown = self.asked(gate)
            asked = self.tries(gate)
            time.sleep(self.reading_s)
            with suppress_answered():
                self._call("PATCH", f"taskInstances/{gate}/-1/hitlDetails", body, user)
            if not self.asks_again(gate, asked):
                return shown

    def tries(self, gate: str) -> int:
        """Return which try of a gate this is."""
        return int(self.airflow.tasks(self.dag, self.run_id)[gate]["try_number"])

    def asks_again(self, gate: str, asked: int) -> bool:
        """Wait until the answer was taken, or was lost and the gate asks again."""
        deadline = time.monotonic() + ASKED_S
        while time.monotonic() < deadline:
            task = self.airflow.tasks(self.dag, self.run_id)[gate]
            if task["state"] in ("success", "failed", "skipped"):
                return False
            if task["state"] == "awaiting_input" and int(task["try_number"]) > asked:
                return True
            time.sleep(0.3)
        raise NeverAsked(f"{self.run_id}: the answer to {gate} was neither taken nor asked for again: {self.states()}")

    def ended(self) -> str:
        """Wait for the end, and return the run's state."""
        return str(self.airflow.wait(self.dag, self.run_id, ENDED_S)["state"])

    def states(self) -> dict[str, str]:
        """Return the tasks' states."""
        return {name: task["state"] for name, task in self.airflow.tasks(self.dag, self.run_id).items()}

    def returned(self, task: str, key: str = "return_value") -> Any:
        """Return what a task returned."""
        value = self._call("GET", f"taskInstances/{task}/xcomEntries/{key}")["value"]
        return json.loads(value) if isinstance(value, str) and value.startswith("{") else value

    def log(self, task: str) -> str:
        """Return a task's log."""
        return self.airflow.log_text(self.dag, self.run_id, task)

    def clear(self, *tasks: str) -> None:
        """Clear tasks of the run, and nothing else."""
        body = {"dry_run": False, "dag_run_id": self.run_id, "task_ids": list(tasks), "only_failed": False}
        self.airflow.call("POST", f"/dags/{self.dag}/clearTaskInstances", body)

    def _call(self, method: str, path: str, body: Any = None, user: str = "admin") -> Any:
        return self.airflow.call(method, f"/dags/{self.dag}/dagRuns/{self.run_id}/{path}".rstrip("/"), body, user)
