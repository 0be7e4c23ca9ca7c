"""Gates: a run waits there for a person. Nothing is ever approved by a time-out, a retry or a mark in the UI."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator

from etcdkeep.approval import Answer, check_second, read_answer
from etcdkeep.plain_text import one_line

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow.sdk import Context

ANSWER_WITHIN = timedelta(hours=4)
"""What was found before the gate grows stale; later, the run fails and has to be started anew."""
ASKED_FOR = "asked_for"


class ApprovalGate(ApprovalOperator):
    """
    Waits for one person's approval, and hands the answer on.

    A rejection skips everything after it, whatever the trigger rules. An answer that does not come in time, or does not
    count, fails the task. What comes after reads ``digest`` of the answer: a gate that somebody marked as done has none.

    :param digest: Of what is shown in `body`; the answer is for this, also when what is shown changes meanwhile.
    :param first: Answer of the gate before, where two people have to approve: then the same person's does not count.
    """

    ui_color = "#f6e3b4"
    template_fields: Collection[str] = (*ApprovalOperator.template_fields, "digest", "first")

    def __init__(self, *, digest: str, first: Any = None, **kwargs: Any) -> None:
        # A retry would wipe the answer and ask again.
        fixed = {"retries": 0, "retry_policy": None, "ignore_downstream_trigger_rules": True}
        super().__init__(**{"response_timeout": ANSWER_WITHIN, **kwargs, **fixed})
        self.digest = digest
        self.first = first
        self._is_second = first is not None

    def execute(self, context: Context) -> Any:
        """Ask; the task waits without a worker."""
        context["ti"].xcom_push(key=ASKED_FOR, value=self.digest)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Take the answer."""
        if "error" in event:
            self.process_trigger_event_error(event)
        asked_for = context["ti"].xcom_pull(task_ids=self.task_id, key=ASKED_FOR)
        answer = read_answer(self.task_id, event, asked_for)
        self.log.info("%s: %s by %s", self.task_id, answer.choice, one_line(answer.user_name))
        self.keep(context, answer)
        if answer.approved and self._is_second:
            check_second(answer, self.first)
        super().execute_complete(context, event)  # raises for a rejection, which so hands nothing on
        return answer.model_dump(mode="json")

    def keep(self, context: Context, answer: Answer) -> None:
        """Put an answer on record, be it yes or no; for subclasses."""
