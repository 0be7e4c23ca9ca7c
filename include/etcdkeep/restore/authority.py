"""
Whether a task of a restore may act: the one place that says so, from signed records alone.

Before the first change two people must have approved the plan that was proposed last, and not too long ago. What has begun by
such a plan may go on by it, be finished once the control plane is down, and be rolled back, until the restore is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from etcdkeep.approval.answers import check_run, check_version
from etcdkeep.errors import NotApproved, RequestRefused
from etcdkeep.restore.outage import outage_began

if TYPE_CHECKING:
    from datetime import datetime

    from etcdkeep.approval.answers import AirflowRun, Rules
    from etcdkeep.records import Signed
    from etcdkeep.restore.proposal import RestoreProposal
    from etcdkeep.restore.record import Outcome, RestoreRecord

GATES = ("approve", "approve_second")

Act = Literal["start", "go on", "roll back", "after the end"]
"""``after the end``: what only reads a cluster that was restored."""


def authorise(record: RestoreRecord, run: AirflowRun, rules: Rules, act: Act, now: datetime) -> Signed[RestoreProposal]:
    """
    Return the proposal that may be carried out.

    :param run: That wants to act.
    :raises NotApproved: when two people have not approved it, or no longer.
    :raises NotApproved: before the first change, when another version of etcdkeep made the plan.
    :raises RequestRefused: when nothing was proposed or begun.
    """
    end = record.end()
    if end is not None and not (act == "after the end" and end.kind == "restored"):
        raise NotApproved(_spent(record, end, act))
    proposal = _to_start(record) if act == "start" else _begun(record)
    check_run(proposal, run)
    if act == "start" and record.begun() is None:  # what has begun goes on when the same plan comes out of this version
        check_version(proposal)
    in_time = act == "start" or (act == "go on" and outage_began(record.events()) is None)
    record.gates.check(proposal, rules, now=now if in_time else None, ever=not in_time)
    return proposal


def _to_start(record: RestoreRecord) -> Signed[RestoreProposal]:
    """What has begun is gone on with; else what was proposed last."""
    begun = record.begun()
    return record.proposal() if begun is None else record.proposal_of(begun.body.proposal)


def _begun(record: RestoreRecord) -> Signed[RestoreProposal]:
    begun = record.begun()
    if begun is None:
        raise RequestRefused(
            f"restore {record.restore!r} has not begun: its task `stage` did not run. Nothing was done. Clear `stage`."
        )
    return record.proposal_of(begun.body.proposal)


def _spent(record: RestoreRecord, end: Outcome, act: Act) -> str:
    when = f"{end.at:%Y-%m-%d %H:%M:%S} UTC"
    if end.kind == "restored" and act == "roll back":
        return (
            f"restore {record.restore!r} ended well at {when}, and its approvals are spent. Nothing was done. To leave this state again, start "
            "a new restore with its own two approvals."
        )
    word = {"restored": "ended well", "rolled-back": "was rolled back"}[end.kind]
    return f"restore {record.restore!r} {word} at {when}, and its approvals are spent. Nothing was done. Start a new restore."
