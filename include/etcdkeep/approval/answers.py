"""
Approvals: what people are asked for, what they answered, and whether that allows what is to be done.

A task that plans signs a *proposal*. A gate signs what it *asked* each time it asks, for the proposal whose page it showed,
and signs the *answer* when Airflow hands it over. Later tasks believe these records and nothing else: a task's state, XCom
and params can be edited by others.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import AwareDatetime, Field

from etcdkeep import __version__
from etcdkeep.documents import Document
from etcdkeep.errors import NotApproved
from etcdkeep.records import CLOCK_SKEW, Kind, Signed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

APPROVE = "Approve"
UNKNOWN = "unknown"
"""Stands for a requester whom Airflow does not name."""


class AirflowRun(Document):
    """
    The run that asks.

    :param airflow: Which Airflow: the base URL of its API.
    """

    airflow: str
    dag_id: str
    run_id: str


class Proposal(Document):
    """
    What people are asked to approve. Its record's digest covers all of it: plan, page, form, run and requester.

    :param plan_sha256: Digest of the plan; the only thing that will be carried out.
    :param page_sha256: Digest of the page that is shown.
    :param requested_by: Who started the run.
    :param version: Of etcdkeep, which builds the commands. So the digest covers it: an upgrade asks again.
    """

    run: AirflowRun
    backup_id: str
    plan_sha256: str
    page_sha256: str
    requested_by: str
    version: str = Field(default_factory=lambda: __version__)


class Asked(Document):
    """
    That a gate asks. It takes the place of all that was asked and answered at this gate before.

    :param task_instance: Airflow's id of this try of the gate.
    :param proposal: Digest of the proposal's record.
    """

    gate: str
    task_instance: str
    proposal: str


class Answer(Document):
    """
    One person's answer.

    :param asked: Digest of the record of what was asked.
    :param proposal: Digest of the proposal's record.
    :param page_sha256: Digest of the page that the gate rendered.
    :param user_id: What tells one person from another.
    :param until: When the approval expires.
    """

    gate: str
    asked: str
    proposal: str
    page_sha256: str
    choice: str
    user_id: str
    user_name: str
    at: AwareDatetime
    until: AwareDatetime

    @property
    def approved(self) -> bool:
        """Whether it is a yes."""
        return self.choice == APPROVE


ASKED = Kind("asked", "approve", Asked)
ANSWER = Kind("answer", "approve", Answer)
AnyProposal = TypeVar("AnyProposal", bound=Proposal)


@dataclass(frozen=True)
class Rules:
    """
    Who may approve.

    :param gates: That have to be passed, each by another person.
    :param approvers: Ids or names of those who may approve; empty: whoever may answer a gate in Airflow.
    :param requester_may_approve: Whether who started the run counts.
    :param valid_for: How long an approval holds.
    """

    gates: tuple[str, ...]
    approvers: tuple[str, ...] = ()
    requester_may_approve: bool = True
    valid_for: timedelta = timedelta(hours=12)


def page_digest(page: str) -> str:
    """Return the digest that an approval names its page by."""
    return hashlib.sha256(page.encode(errors="surrogatepass")).hexdigest()


def read_answer(response: Mapping[str, Any], asked: Signed[Asked], page: str, rules: Rules) -> Answer:
    """
    Return an answer as Airflow hands it over.

    :param response: ``chosen_options``, ``responded_at``, ``responded_by_user``.
    :param page: That the gate rendered.
    :raises NotApproved: when it does not say who answered.
    """
    user = response.get("responded_by_user") or {}
    gate = asked.body.gate
    if not user.get("id"):
        raise NotApproved(
            f"gate {gate!r}: the answer names no person, so it does not count. Nothing was done. Clear it to ask again."
        )
    at: datetime = response["responded_at"]
    return Answer(
        gate=gate,
        asked=asked.digest,
        proposal=asked.body.proposal,
        page_sha256=page_digest(page),
        choice=response["chosen_options"][0],
        user_id=str(user["id"]),
        user_name=str(user.get("name") or user["id"]),
        at=at,
        until=at + rules.valid_for,
    )


def check_person(answer: Answer, proposal: Signed[AnyProposal], rules: Rules) -> None:
    """
    Check that this person may approve.

    :raises NotApproved: when not.
    """
    names = {answer.user_id, answer.user_name}
    if rules.approvers and not names & set(rules.approvers):
        raise NotApproved(
            f"gate {answer.gate!r}: {answer.user_name} is not among `approvers` of cluster {proposal.cluster!r} "
            f"({', '.join(rules.approvers)}). Nothing was done. Clear this gate and let one of them answer."
        )
    if not rules.requester_may_approve and proposal.body.requested_by in {*names, UNKNOWN}:
        raise NotApproved(
            f"gate {answer.gate!r}: {answer.user_name} started this run and may not approve it (requester_may_approve: false). "
            "Nothing was done. Clear this gate and let somebody else answer."
        )


def check_approved(
    proposal: Signed[AnyProposal],
    asked: Sequence[Signed[Asked]],
    answers: Sequence[Signed[Answer]],
    rules: Rules,
    *,
    now: datetime | None = None,
    ever: bool = False,
) -> tuple[Signed[Answer], ...]:
    """
    Return the approvals of a proposal: one for each gate, each of another person.

    :param asked: All that gates of this run asked, oldest first; `answers` likewise.
    :param now: Approvals have to hold then; None where it does not matter, since what they allow has begun.
    :param ever: Whether it is enough that it was approved once, whatever the gates asked since: for what has begun.
    :raises NotApproved: with the first thing that is missing.
    """
    rejected = [each.body for each in answers if each.body.proposal == proposal.digest and not each.body.approved]
    if rejected and not ever:
        raise NotApproved(
            f"gate {rejected[0].gate!r}: {rejected[0].user_name} rejected this plan. A rejection is final. Nothing was done. "
            "Start a new run."
        )
    if ever:
        answered = {each.body.asked for each in answers if each.body.approved}
        asked = [each for each in asked if each.body.proposal == proposal.digest and each.digest in answered]
    approvals = tuple(_passed(gate, proposal, asked, answers, rules) for gate in rules.gates)
    for first, second in pairwise(approvals):
        check_two_people(first.body, second.body)
    if now is not None:
        _check_time(approvals, now)
    return approvals


def check_two_people(first: Answer, second: Answer) -> None:
    """
    :raises NotApproved: when two approvals are of one person.
    """
    if first.user_id == second.user_id:
        raise NotApproved(
            f"gate {second.gate!r}: {second.user_name} has approved already at gate {first.gate!r}, and two different people must approve. Nothing was done. Clear this gate and let somebody else answer."
        )


def _passed(
    gate: str,
    proposal: Signed[AnyProposal],
    asked: Sequence[Signed[Asked]],
    answers: Sequence[Signed[Answer]],
    rules: Rules,
) -> Signed[Answer]:
    """Return the approval that counts at a gate: the answer to what it asked last, if that was this proposal."""
    last = next((each for each in reversed(asked) if each.body.gate == gate), None)
    if last is None:
        raise NotApproved(
            f"gate {gate!r} has asked nobody: it was skipped or marked as done. Nothing was done. Clear it and have it answered."
        )
    if last.body.proposal != proposal.digest:
        raise NotApproved(
            f"gate {gate!r} asked about another plan than the one that would run now. Nothing was done. Clear the gates "
            "and have them answered again."
        )
    answer = next((each for each in reversed(answers) if each.body.asked == last.digest), None)
    if answer is None:
        raise NotApproved(
            f"gate {gate!r} has no answer: it was cleared, or marked as done. Nothing was done. Clear it and have it "
            "answered."
        )
    if not answer.body.approved:
        raise NotApproved(f"gate {gate!r}: {answer.body.user_name} rejected it. Nothing was done. Start a new run.")
    if (answer.body.proposal, answer.body.page_sha256) != (proposal.digest, proposal.body.page_sha256):
        raise NotApproved(
            f"gate {gate!r}: {answer.body.user_name} was not shown the page of this plan. Nothing was done. Clear the gate "
            "and have it answered again."
        )
    check_person(answer.body, proposal, rules)
    return answer


def _check_time(approvals: Sequence[Signed[Answer]], now: datetime) -> None:
    for approval in approvals:
        answer, gate = approval.body, approval.body.gate
        if max(approval.stored_at or approval.at, answer.at) > now + CLOCK_SKEW:
            raise NotApproved(
                f"gate {gate!r}: the approval of {answer.user_name} was stored at {approval.order[0]:%Y-%m-%d %H:%M:%S} UTC, which is later than "
                f"this worker's time ({now:%Y-%m-%d %H:%M:%S} UTC). Nothing was done. Correct the worker's clock."
            )
        if answer.until <= now:
            raise NotApproved(
                f"gate {gate!r}: the approval of {answer.user_name} expired at {answer.until:%Y-%m-%d %H:%M} UTC. Nothing was done. Start "
                "a new run."
            )


def check_run(proposal: Signed[AnyProposal], run: AirflowRun) -> None:
    """
    Check that a proposal is this run's.

    :raises NotApproved: when another Airflow, or another run, made it.
    """
    if proposal.body.run != run:
        theirs = proposal.body.run
        raise NotApproved(
            f"the plan of {proposal.subject!r} was made by run {theirs.run_id!r} of {theirs.dag_id!r} in the Airflow at {theirs.airflow}, "
            f"not by this run of the Airflow at {run.airflow}. Nothing was done. Start a new run."
        )


def check_version(proposal: Signed[AnyProposal]) -> None:
    """
    Check that this version of etcdkeep made a proposal: what people approve is what this version does.

    :raises NotApproved: when another one did, as when a gate waited while etcdkeep was upgraded.
    """
    if proposal.body.version != __version__:
        raise NotApproved(
            f"the plan of {proposal.subject!r} was made by etcdkeep {proposal.body.version}, and this is etcdkeep {__version__}. Approvals of that plan "
            "do not count here. Nothing was done. Clear the task that plans (`preflight` of a restore, `plan` of a recovery) with its downstream tasks, "
            "so that the gates ask again."
        )
