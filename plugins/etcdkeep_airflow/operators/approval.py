"""Gates: a run waits there for a person. Nothing is ever approved by a time-out, a retry or a mark in the UI."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.exceptions import HITLRejectException, HITLTimeoutError, HITLTriggerEventError
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
from airflow.sdk.configuration import conf

from etcdkeep.approval.answers import AirflowRun, Rules, check_version, page_digest, read_answer
from etcdkeep.errors import NotApproved, PermanentError
from etcdkeep.plain_text import one_line
from etcdkeep_airflow.notifications.restores import GateWaits
from etcdkeep_airflow.operators.base import at_repository

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow.sdk import Context

    from etcdkeep.approval.answers import AnyProposal
    from etcdkeep.approval.gates import Gates
    from etcdkeep.config.models import Cluster
    from etcdkeep.records import Signed
    from etcdkeep.site.site import Site

ANSWER_WITHIN = timedelta(hours=4)
"""What was found before the gate grows stale; later, the run fails and has to be started anew."""
ASK_AGAIN = 3
ASK_AGAIN_POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule(exception=kind, action=RetryAction.FAIL, reason="a person has to look")
        for kind in (PermanentError, HITLRejectException, HITLTimeoutError, HITLTriggerEventError)
    ]
)
"""
Every failure of our own is final. What is left is Airflow itself, whose scheduler takes an answer that comes within seconds of
the question for a crash of the task (3.3.2, on a busy machine): then the gate asks again, and that answer counts for nothing.
"""


@dataclass(frozen=True)
class Question:
    """
    What a gate asks for.

    :param gates: Where it is recorded.
    :param page: Markdown.
    """

    proposal: Signed[Any]
    gates: Gates
    subject: str
    page: str


def rules_of(cluster: Cluster, gates: tuple[str, ...]) -> Rules:
    """Return who may approve in a cluster."""
    valid_for = timedelta(hours=cluster.approval_hours)
    return Rules(gates, cluster.approvers, cluster.requester_may_approve, valid_for)


def this_run(context: Context) -> AirflowRun:
    """Return the run that a task is of."""
    dag_run = context["dag_run"]
    return AirflowRun(
        airflow=conf.get("api", "base_url", fallback="") or "", dag_id=dag_run.dag_id, run_id=dag_run.run_id
    )


class ApprovalGate(ApprovalOperator):
    """
    Waits for one person's approval, and signs it.

    What is shown comes from the signed proposal alone. A rejection skips everything after it, whatever the trigger rules. An
    answer that does not come in time, or does not count, fails the task. What comes after reads the signed answers: a gate that
    somebody marked as done has none.

    :param cluster: Its name in the configuration.
    """

    ui_color = "#f6e3b4"
    template_fields: Collection[str] = ("cluster", "repository")
    all_gates: tuple[str, ...] = ()
    """The gates of the run, in their order."""

    def __init__(self, *, cluster: str, repository: str = "", **kwargs: Any) -> None:
        fixed = {"retries": ASK_AGAIN, "retry_policy": ASK_AGAIN_POLICY, "ignore_downstream_trigger_rules": True}
        fixed["notifiers"] = [GateWaits()]
        given = {"response_timeout": ANSWER_WITHIN, "retry_delay": timedelta(seconds=1), "subject": "", **kwargs}
        super().__init__(**{**given, **fixed})
        self.cluster = cluster
        self.repository = repository

    @cached_property
    def site(self) -> Site:
        """The cluster with its clients; first used in ``execute``."""
        from etcdkeep_airflow.hooks import open_site  # the clients take seconds to import: not at every parse

        return at_repository(open_site(self.cluster), self.repository)

    @abstractmethod
    def question(self, context: Context) -> Question:
        """Return what this gate asks for: from signed records."""

    def execute(self, context: Context) -> Any:
        """Ask; the task waits without a worker."""
        question, ti = self.question(context), context["ti"]
        check_version(question.proposal)
        if ti.try_number > 1:
            self.log.warning("%s asks again: earlier answers at this gate do not count", self.task_id)
        self.subject, self.body = question.subject, question.page
        self.assigned_users = [{"id": name, "name": name} for name in self.site.cluster.approvers] or None
        question.gates.ask(self.task_id, str(ti.id), question.proposal)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Sign the answer."""
        if "error" in event:
            self.process_trigger_event_error(event)
        question, rules = self.question(context), rules_of(self.site.cluster, self.all_gates)
        asked = question.gates.last_asked(self.task_id, str(context["ti"].id))
        if asked.body.proposal != question.proposal.digest:
            raise NotApproved(
                f"gate {self.task_id!r}: this page is out of date, so the answer does not count. Nothing was done. Clear "
                "this gate to ask again."
            )
        answer = read_answer(event, asked, question.page, rules)
        self.log.info("%s: %s by %s", self.task_id, answer.choice, one_line(answer.user_name))
        question.gates.keep(answer)
        if answer.approved:  # a rejection counts, whichever version asked
            check_version(question.proposal)
            question.gates.check_answer(answer, question.proposal, rules)
        super().execute_complete(context, event)  # raises for a rejection
        return answer.model_dump(mode="json")


def check_page(proposal: Signed[AnyProposal], page: str) -> str:
    """
    Return a page, when it is the one that a proposal names.

    :raises NotApproved: when it is another one.
    """
    if page_digest(page) != proposal.body.page_sha256:
        raise NotApproved(
            f"the page of {proposal.subject!r} is not the one that was signed with its plan. Nothing was done. Clear the task that plans."
        )
    return page
