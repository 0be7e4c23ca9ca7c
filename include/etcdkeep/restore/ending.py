"""How a restore ends: restored, rolled back, or left for a person; each with words that say exactly where things stand."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from etcdkeep.errors import EtcdkeepError, RollbackIncomplete
from etcdkeep.plain_text import lines
from etcdkeep.restore.outage import down_time_s, outage_began
from etcdkeep.restore.record import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from etcdkeep.restore.engine import Engine, StepEvent
    from etcdkeep.restore.record import RestoreRecord
    from etcdkeep.restore.report import RestoreReport
    from etcdkeep.restore.steps import Plan

log = logging.getLogger(__name__)


def restored(record: RestoreRecord, plan: Plan, report: RestoreReport, now: datetime) -> Outcome:
    """Record that the cluster is restored, and release it. The restore is good whether or not that succeeds."""
    events = _events(record)
    down_s = down_time_s(events)
    words = (
        f"cluster {plan.cluster!r} runs on backup {plan.backup_id}{_down(down_s)}. The old state stays in {_folders(plan)}; "
        f"{_removal(plan)} removes it for good."
    )
    outcome = Outcome(
        kind="restored",
        at=now,
        words=words,
        down_s=down_s,
        revision=report.revision,
        keys=report.keys,
        notes=(*(event.words for event in events if event.state == "remedied"), *report.notes),
    )
    return _conclude(record, outcome)


def hold(record: RestoreRecord, plan: Plan, engine: Engine, now: datetime) -> Outcome:
    """Change nothing, and record where every step stands and what would roll it back."""
    standing = engine.standing()
    unknown = [each.step.name for each in standing if each.done is None]
    done = [each.step.name for each in standing if each.done]
    words = (
        f"restore {plan.run} of cluster {plan.cluster!r} is held: {len(done)} of {len(standing)} steps complete"
        + (f", last {done[-1]}" if done else "")
        + (f"; {len(unknown)} unknown (no response): {', '.join(unknown)}" if unknown else "")
        + f". What was set aside is in {_folders(plan)}. To go on, clear the failed task. To roll back, clear `rollback`, "
        "or run this script by hand:"
    )
    return _conclude(record, Outcome(kind="held", at=now, words=words, remaining=engine.remaining()), is_over=False)


def roll_back(record: RestoreRecord, plan: Plan, engine: Engine, now: Callable[[], datetime]) -> Outcome:
    """
    Roll everything back, and release the cluster.

    :raises RollbackIncomplete: when something could not be rolled back; it says what a person has to do.
    :raises EtcdkeepError: when all is as it was, and yet does not work again.
    """
    try:
        engine.roll_back()
    except EtcdkeepError as err:
        words, remaining = (err.message, err.remaining) if isinstance(err, RollbackIncomplete) else (str(err), ())
        _conclude(record, Outcome(kind="incomplete", at=now(), words=words, remaining=remaining), is_over=False)
        raise
    stopped = outage_began(_events(record))
    down_s = None if stopped is None else round(now().timestamp() - stopped, 3)
    words = (
        f"restore {plan.run} of cluster {plan.cluster!r} was rolled back: data, certificates and manifests are as before the restore"
        f"{_down(down_s)}. What the restore had prepared stays in {_folders(plan)}; {_removal(plan)} removes it."
    )
    return _conclude(record, Outcome(kind="rolled-back", at=now(), words=words, down_s=down_s))


def _conclude(record: RestoreRecord, outcome: Outcome, *, is_over: bool = True) -> Outcome:
    log.info("%s", lines("\n".join((outcome.words, *(f"  {line}" for line in (*outcome.notes, *outcome.remaining))))))
    try:
        record.conclude(outcome)
        if is_over:
            record.release()
    except EtcdkeepError as err:
        log.warning("the outcome could not be recorded, this log has it: %s", err)
    return outcome


def _events(record: RestoreRecord) -> Iterable[StepEvent]:
    try:
        return record.events()
    except EtcdkeepError as err:
        log.warning("the journal could not be read, the downtime is unknown: %s", err)
        return ()


def _down(down_s: float | None) -> str:
    return "" if down_s is None else f"; the control plane was down for {down_s:.1f} s"


def _removal(plan: Plan) -> str:
    return f"`python -m etcdkeep restore-leftovers {plan.cluster} --remove {plan.run}`"


def _folders(plan: Plan) -> str:
    return ", ".join(f"{place.name}:{place.folder}" for place in plan.places if place.folder)
