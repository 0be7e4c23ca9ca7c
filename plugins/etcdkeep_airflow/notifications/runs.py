"""What a callback's context says of a run. The context may be poor: Airflow gives no task of a run that had none."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk.configuration import conf

from etcdkeep.errors import EtcdkeepError
from etcdkeep.plain_text import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

ERROR = "error"
"""XCom of a task that failed: what people are told of it."""
ERROR_CHARS = 1_500


@dataclass(frozen=True)
class EndedRun:
    """
    A run that has ended.

    :param states: Task id → state, empty where Airflow does not say.
    :param errors: Task id → what it failed with.
    """

    dag_id: str
    run_id: str
    states: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""

    @property
    def failed(self) -> tuple[str, ...]:
        """Ids of the tasks that failed, in the order of the DAG."""
        return tuple(task for task, state in self.states.items() if state == "failed")

    @property
    def link(self) -> str:
        """The run in Airflow's interface; empty where its address is not configured."""
        return run_link(self.dag_id, self.run_id)

    def succeeded(self, task: str) -> bool:
        """Say whether a task succeeded."""
        return self.states.get(task) == "success"

    def words(self) -> tuple[str, ...]:
        """Return a line for each task that failed."""
        said = [f"Task {task}: {self.errors.get(task, 'its log says why.')}" for task in self.failed]
        return tuple(said) or ((f"Airflow says: {self.reason}",) if self.reason else ())


def run_link(dag_id: str, run_id: str) -> str:
    """Return the address of a run in Airflow's interface."""
    base = str(conf.get("api", "base_url", fallback="") or "").rstrip("/")
    return f"{base}/dags/{quote(dag_id)}/runs/{quote(run_id)}" if base else ""


def ended_run(context: Mapping[str, Any]) -> EndedRun:
    """Return the run that a DAG's callback is called for."""
    dag, run_id, ti = context["dag"], str(context["run_id"]), context.get("ti")
    found = EndedRun(dag.dag_id, run_id, reason=one_line(context.get("reason") or ""))
    if ti is None:
        return found
    try:
        known = ti.get_task_states(dag_id=dag.dag_id, run_ids=[run_id]).get(run_id, {})
    except Exception as err:  # noqa: BLE001 - rather say less than nothing
        log.warning("run %s: cannot tell which tasks failed: %s", run_id, type(err).__name__)
        return found
    states = {task: str(known.get(task)) for task in dag.task_dict}
    errors = {task: _error(ti, task) for task, state in states.items() if state == "failed"}
    return EndedRun(dag.dag_id, run_id, states, {task: text for task, text in errors.items() if text}, found.reason)


def keep_error(context: Mapping[str, Any]) -> None:
    """Keep what a task finally failed with, for whoever tells of the run. A foreign error may quote a secret: only its kind."""
    err = context.get("exception")
    if isinstance(err, EtcdkeepError):
        text = one_line(err, ERROR_CHARS)
    elif err is not None:
        text = f"{type(err).__name__}; its log says more."
    else:
        text = "its process ended without an error; its log says more."
    try:
        context["ti"].xcom_push(key=ERROR, value=text)
    except Exception as failure:  # noqa: BLE001 - for a task that was killed this runs where nothing can be pushed
        log.info("its error is not kept for notifications: %s", type(failure).__name__)


def _error(ti: Any, task: str) -> str | None:
    try:
        text = ti.xcom_pull(task_ids=task, key=ERROR)
    except Exception as err:  # noqa: BLE001 - rather say less than nothing
        log.warning("task %s: cannot tell what it failed with: %s", task, type(err).__name__)
        return None
    return one_line(text, ERROR_CHARS) if isinstance(text, str) else None
