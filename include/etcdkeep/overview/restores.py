"""Restores and recoveries as a page shows them: what was proposed, who approved it, each step with its time, how it ended."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from etcdkeep import naming
from etcdkeep.errors import EtcdkeepError, RequestRefused
from etcdkeep.plain_text import one_line
from etcdkeep.records import CLOCK_SKEW
from etcdkeep.recover.record import RecoveryRecord
from etcdkeep.restore.outage import down_time_s
from etcdkeep.restore.proposal import proposed_plan
from etcdkeep.restore.record import RestoreRecord
from etcdkeep.restore.steps import OUTAGE
from etcdkeep.side_by_side import side_by_side

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from etcdkeep.approval.answers import AnyProposal
    from etcdkeep.approval.gates import Gates
    from etcdkeep.records import Records, Signed
    from etcdkeep.restore.engine import StepEvent
    from etcdkeep.restore.steps import Plan

Kind = Literal["restore", "recovery"]
RESTORES = 100
"""How many of a cluster's newest restores and recoveries are read."""
BEGUN_WITHOUT_PLAN = "Its signed plan is missing, but signed records say that it began. Find out who removed the plan."
ENDED = ("done", "already", "unneeded", "undone", "remedied")
"""States after which a step waits for nothing."""


@dataclass(frozen=True)
class RestoreRow:
    """
    One restore or recovery.

    :param outcome: ``proposed`` (nothing was changed), ``running``, or the word of its outcome.
    :param down_s: Seconds for which the control plane was down; None where it was not stopped, or has not answered since.
    """

    kind: Kind
    name: str
    backup_id: str
    requested_by: str
    reason: str
    at: datetime
    outcome: str
    words: str
    down_s: float | None = None
    dag_id: str = ""
    run_id: str = ""


@dataclass(frozen=True)
class Approval:
    """
    What a gate asked, and the answer.

    :param choice: Empty while the gate waits.
    """

    gate: str
    asked_at: datetime
    choice: str = ""
    user: str = ""
    answered_at: datetime | None = None


@dataclass(frozen=True)
class StepRow:
    """
    One step of the plan.

    :param state: Of its last event; ``planned`` where there was none.
    :param seconds: From its first to its last event; None where it has not ended.
    :param outage: Whether the control plane is down while it runs.
    """

    step: str
    phase: str
    place: str
    words: str
    state: str
    began_at: datetime | None = None
    seconds: float | None = None
    outage: bool = False


@dataclass(frozen=True)
class RestoreView:
    """
    One restore or recovery in full.

    :param plan: What it does, one sentence each; a recovery's plan is sealed, and is not shown.
    :param notes: What its outcome says besides.
    :param ignored: Why parts of its record are not shown, one sentence each.
    """

    row: RestoreRow
    plan: tuple[str, ...]
    approvals: tuple[Approval, ...]
    steps: tuple[StepRow, ...]
    notes: tuple[str, ...]
    ignored: tuple[str, ...]


def restore_rows(records: Records, cluster: str, most: int = RESTORES) -> tuple[list[RestoreRow], int]:
    """
    Return a cluster's restores and recoveries, the newest first, and how many older ones were not read.

    One whose proposal is not believed has a row that says so. Which are the newest goes by the times in their names.

    :raises EtcdkeepError: when the repository cannot be read.
    """
    until = records.now() + CLOCK_SKEW
    kinds: tuple[tuple[Kind, str], ...] = (("restore", naming.restores_prefix(cluster)), ("recovery", f"{cluster}/recoveries/"))  # fmt: skip
    named = [(kind, name) for kind, prefix in kinds for name in _names(records, prefix)]
    # A name from the future is not ours, and keeps none of ours from being shown.
    named.sort(key=lambda each: (_time_of(each[1]) <= until, _time_of(each[1]), each[1]), reverse=True)

    def row(each: tuple[Kind, str]) -> RestoreRow:
        kind, name = each
        return _restore_row(RestoreRecord(records, cluster, name)) if kind == "restore" else _recovery_row(records, cluster, name)  # fmt: skip

    rows = sorted(side_by_side(row, named[:most]), key=lambda found: found.at, reverse=True)
    return rows, max(0, len(named) - most)


def restore_view(records: Records, cluster: str, name: str) -> RestoreView:
    """
    Return one restore or recovery.

    :raises RequestRefused: when there is none of that name.
    """
    if name in _names(records, naming.restores_prefix(cluster)):
        return _restore_view(RestoreRecord(records, cluster, name))
    if name in _names(records, f"{cluster}/recoveries/"):
        gates = RecoveryRecord(records, cluster, name, ()).gates
        return RestoreView(_recovery_row(records, cluster, name), (), tuple(_approvals(gates)), (), (), ())
    raise RequestRefused(f"cluster {cluster!r} has no restore or recovery {one_line(name)!r}.")


def _restore_view(record: RestoreRecord) -> RestoreView:
    row, events, ignored = _restore_row(record), record.events(), list[str]()
    plan: Plan | None = None
    try:
        begun = record.begun()
        plan = proposed_plan(record.proposal_of(begun.body.proposal) if begun else record.proposal())
    except EtcdkeepError as err:
        ignored.append(row.words if row.outcome == "unsigned" else one_line(str(err)))
    outcome = record.outcome()
    return RestoreView(
        row=row,
        plan=tuple(map(one_line, plan.words)) if plan else (),
        approvals=tuple(_approvals(record.gates)),
        steps=tuple(_steps(plan, events)),
        notes=tuple(map(one_line, (*outcome.notes, *outcome.remaining))) if outcome else (),
        ignored=tuple(ignored),
    )


def _restore_row(record: RestoreRecord) -> RestoreRow:
    events, outcome = record.events(), record.outcome()
    try:
        proposal = record.proposal()
    except RequestRefused as err:
        words = BEGUN_WITHOUT_PLAN if events or outcome else one_line(str(err))
        return RestoreRow("restore", one_line(record.restore), "", "", "", _time_of(record.restore), "unsigned", words, down_time_s(events))  # fmt: skip
    row = _row("restore", record.restore, proposal)
    row = replace(row, reason=one_line(proposal.body.form.reason), down_s=down_time_s(events))
    if outcome is None:
        return replace(row, outcome="running", words="It has begun and has not ended.") if events else row
    return replace(row, outcome=outcome.kind, words=one_line(outcome.words), down_s=outcome.down_s or row.down_s)


def _recovery_row(records: Records, cluster: str, name: str) -> RestoreRow:
    record = RecoveryRecord(records, cluster, name, ())
    try:
        proposal = record.proposal()
    except RequestRefused as err:
        return RestoreRow("recovery", one_line(name), "", "", "", _time_of(name), "unsigned", one_line(str(err)))
    row, applied = _row("recovery", name, proposal), record.applied(proposal)
    if applied is None:
        return row
    counts = ", ".join(f"{number} {word}" for word, number in applied.counts.items() if number)
    return replace(row, outcome="applied" if applied.complete else "incomplete", words=one_line(counts))


def _row(kind: Kind, name: str, proposal: Signed[AnyProposal]) -> RestoreRow:
    body = proposal.body
    return RestoreRow(
        kind,
        one_line(name),
        one_line(body.backup_id),
        one_line(body.requested_by),
        "",
        proposal.at,
        "proposed",
        "Nothing was changed.",
        dag_id=one_line(body.run.dag_id),
        run_id=one_line(body.run.run_id),
    )


def _approvals(gates: Gates) -> Iterable[Approval]:
    """Yield what was asked, oldest first, each with its answer."""
    answers = {each.body.asked: each.body for each in gates.answers()}
    for asked in gates.asked():
        answer = answers.get(asked.digest)
        found = Approval(one_line(asked.body.gate), asked.at)
        if answer is not None:
            found = replace(
                found, choice=one_line(answer.choice), user=one_line(answer.user_name), answered_at=answer.at
            )
        yield found


def _steps(plan: Plan | None, events: Sequence[StepEvent]) -> Iterable[StepRow]:
    """Yield the plan's steps in order, each with what the journal says of it; without a plan, those of the journal."""
    by_step: dict[str, list[StepEvent]] = {}
    for event in events:
        by_step.setdefault(event.step, []).append(event)
    planned = {step.name: step for step in plan.steps} if plan else {}
    for name in dict.fromkeys((*planned, *by_step)):
        step, found = planned.get(name), by_step.get(name, [])
        first = found[0] if found else None
        phase = step.phase if step else first.phase if first else "close"
        yield StepRow(
            step=one_line(name),
            phase=phase,
            place=one_line(step.place if step else first.place if first else ""),
            words=one_line(found[-1].words if found and found[-1].state == "failed" else step.words if step else ""),
            state=found[-1].state if found else "planned",
            began_at=datetime.fromtimestamp(first.at, UTC) if first else None,
            seconds=round(found[-1].at - found[0].at, 1) if found and found[-1].state in (*ENDED, "failed") else None,
            outage=phase in OUTAGE,
        )


def _names(records: Records, prefix: str) -> list[str]:
    """Return the names of the folders beneath a prefix."""
    names = (item.name.removeprefix(prefix).split("/") for item in records.store.list(prefix))
    return list(dict.fromkeys(parts[0] for parts in names if len(parts) > 1))


def _time_of(name: str) -> datetime:
    """Return the time in a restore's name; the beginning of time for a name that is not ours."""
    identifier = name.removeprefix("restore-").removeprefix("recovery-")
    return naming.backup_time(identifier) if naming.is_backup_id(identifier) else datetime.fromtimestamp(0, UTC)
