"""A gate as Airflow runs it: asked in one process, resumed with the person's answer in another."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskAwaitingInput

if TYPE_CHECKING:
    from collections.abc import Mapping


def response(user: str | None, choice: str = "Approve", at: datetime | None = None) -> dict[str, Any]:
    """Return what Airflow hands over: who answered what."""
    person = {"id": user, "name": user} if user else None
    return {
        "chosen_options": [choice],
        "params_input": {},
        "responded_at": at or datetime.now(UTC),
        "responded_by_user": person,
    }


class Gate:
    """
    One try of a gate.

    :param kind: The operator.
    :param context: Of the run, without the task instance.
    """

    def __init__(
        self, kind: Any, name: str, cluster: str, context: Mapping[str, Any], *, ti_id: str = "", try_number: int = 1
    ) -> None:
        self._kind, self._name, self._cluster = kind, name, cluster
        ti = SimpleNamespace(
            id=ti_id or f"ti-{name}-{try_number}",
            try_number=try_number,
            map_index=-1,
            xcom_push=lambda key, value: None,
        )
        self._context = {**context, "ti": ti, "task_instance": ti}
        self.shown: dict[str, Any] = {}

    def ask(self) -> None:
        """Run it until it waits."""
        gate = self._made()
        with patch("airflow.providers.standard.operators.hitl.upsert_hitl_detail", self._show):
            try:
                gate.execute({**self._context, "task": gate})
            except TaskAwaitingInput:
                return
        raise AssertionError("the gate did not wait")

    def answer(self, user: str | None, choice: str = "Approve", at: datetime | None = None) -> Any:
        """Resume it with an answer."""
        gate = self._made()
        return json.loads(
            json.dumps(gate.execute_complete({**self._context, "task": gate}, response(user, choice, at)))
        )

    def _show(self, **fields: Any) -> None:
        self.shown = fields

    def _made(self) -> Any:
        with DAG(dag_id=self._context["dag_run"].dag_id, schedule=None):
            gate = self._kind(task_id=self._name, cluster=self._cluster)
            gate >> EmptyOperator(task_id="direct") >> EmptyOperator(task_id="rollback", trigger_rule="one_failed")
        return gate


def approve(kind: Any, cluster: str, context: Mapping[str, Any], people: Mapping[str, str], **gate: Any) -> None:
    """Have each gate answered with a yes: gate → person."""
    for name, person in people.items():
        asked = Gate(kind, name, cluster, context, **gate)
        asked.ask()
        asked.answer(person)
