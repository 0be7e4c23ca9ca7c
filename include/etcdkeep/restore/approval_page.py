"""What the approvers of a restore are shown, as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcdkeep.plain_text import markdown
from etcdkeep.restore.judge.finding import Finding, Severity, blocking_problems
from etcdkeep.restore.vendor_limits import LIMITS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from etcdkeep.restore.form import Form
    from etcdkeep.restore.loss import Losses
    from etcdkeep.restore.prepare import Prepared

ROWS = 40
HEADINGS: dict[Severity, str] = {"blocking problem": "Blocking problems", "warning": "Warnings", "note": "Notes"}
ON_FAILURE = {
    "rollback": "all steps are rolled back until the old state works again. The run still ends as failed.",
    "hold": "everything stays as it is at that moment, and a person decides. Nothing is rolled back automatically.",
}


def render_request(prepared: Prepared, losses: Losses, form: Form, asked_by: str) -> str:
    """
    Return the page: plan, findings, what will be lost, what happens on failure, limits.

    :param asked_by: Who started the run.
    """
    return "\n".join(
        [
            *_head(form, asked_by),
            *_plan(prepared),
            *_findings(prepared.findings, form),
            *_losses(losses),
            *_rest(form),
        ]
    )


def _head(form: Form, asked_by: str) -> Iterator[str]:
    yield f"**Reason:** {markdown(form.reason)}  "
    yield f"**Requested by:** {markdown(asked_by)}"
    yield ""


def _plan(prepared: Prepared) -> Iterator[str]:
    yield "### Plan"
    if prepared.plan is None:
        yield "No plan is possible. See below."
    else:
        yield from (f"- {markdown(line)}" for line in prepared.plan.words)
        yield ""
        yield f"Plan `{prepared.plan.digest}`. Only this plan will run."
    yield ""


def _findings(findings: Sequence[Finding], form: Form) -> Iterator[str]:
    for severity, heading in HEADINGS.items():
        found = [each for each in findings if each.severity == severity]
        if found:
            yield f"### {heading}"
            for each in found:
                overridden = severity == "blocking problem" and not blocking_problems([each], override=form.override)
                yield f"- {'**OVERRIDDEN:** ' if overridden else ''}{markdown(each.sentence)}"
            yield ""


def _losses(losses: Losses) -> Iterator[str]:
    yield "### What will be lost"
    if losses.unknown:
        yield f"Unknown: {markdown(losses.unknown)}"
    elif not losses.rows:
        yield "Nothing was created, changed or deleted since the backup."
    else:
        yield "Changes since the backup. Created objects will be lost. Changed objects will be as they were. Deleted objects will come back."
        yield ""
        yield "| kind | namespace | created | changed | deleted |"
        yield "|---|---|---:|---:|---:|"
        for row in losses.rows[:ROWS]:
            yield f"| {markdown(row.kind)} | {markdown(row.namespace) or '–'} | {row.created} | {row.changed} | {row.deleted} |"
        if len(losses.rows) > ROWS:
            rest = losses.rows[ROWS:]
            counts = (sum(getattr(row, column) for row in rest) for column in ("created", "changed", "deleted"))
            yield f"| {len(rest)} more | | {' | '.join(map(str, counts))} |"
    yield ""
    yield from (f"- {markdown(note)}" for note in losses.notes)
    yield ""


def _rest(form: Form) -> Iterator[str]:
    yield "### If a step fails"
    yield f"`{form.on_failure}`: {ON_FAILURE[form.on_failure]}"
    yield ""
    yield "### Limits"
    yield from (f"- {limit}" for limit in LIMITS)
