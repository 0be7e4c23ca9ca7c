"""The plan of a recovery as people read it: Markdown for the approval form, YAML to take along."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from etcdkeep.objects import yaml_text
from etcdkeep.objects.decoding import exact_json
from etcdkeep.plain_text import lines, markdown, markdown_code, one_line
from etcdkeep.recover.clean import BY_THE_SERVER
from etcdkeep.recover.plan import WRITING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from etcdkeep.recover.plan import Action, Planned, RecoveryPlan

MAX_ROWS = 100
MAX_DIFF_CHARS = 24_000
_SHOWN_FIELDS = 12
_TITLES: dict[Action, str] = {
    "create": "is created",
    "overwrite": "exists and differs: **is overwritten**",
    "leave": "exists and differs: is left unchanged",
    "unchanged": "exists, the same as in the backup",
    "refuse": "cannot be recovered",
    "skip": "is left out",
}


def render_plan(plan: RecoveryPlan, whole: str) -> str:
    """
    Return the plan as Markdown, cut where it grows long.

    :param whole: Where the rest can be read.
    """
    return "\n".join(
        [
            *_head(plan),
            *_differences(plan, whole),
            *_section(plan, "create", whole),
            *_section(plan, "refuse", whole),
            *_left_out(plan),
            *_footer(plan, whole),
        ]
    )


def render_whole(plan: RecoveryPlan) -> str:
    """Return every object of a plan with all that was found, uncut, and with no value of a Secret."""
    page = [*_head(plan)]
    for each in plan.objects:
        page += [
            "",
            f"## {markdown(each.label)}",
            "",
            f"{each.action}: {markdown(each.why) or _TITLES[each.action]}",
            *_details(each, all_fields=True),
        ]
        page += _diff_block(each.diff) if each.diff else []
    return "\n".join(page) + "\n"


def manifests_yaml(objects: Iterable[tuple[str, Sequence[str]]], source: str) -> Iterator[str]:
    """
    Yield clean manifests as YAML documents that ``kubectl apply -f`` takes.

    :param objects: Each manifest as JSON, with the fields that were dropped.
    :param source: The backup, for the comment above each.
    """
    for manifest, dropped in objects:
        own = [field for field in dropped if field not in BY_THE_SERVER]
        note = f"; dropped: {', '.join(own)}" if own else ""
        text = one_line(f"from {source}{note}")
        yield f"---\n# {text}\n{yaml_text.dumps(exact_json.loads(manifest))}"


def _head(plan: RecoveryPlan) -> Iterator[str]:
    meant, cluster, backup = map(markdown, (plan.meant, plan.cluster, plan.backup_id))
    yield f"Recover **{meant}** of cluster **{cluster}** from backup **{backup}**."
    yield f"Reason: {markdown(plan.reason)}"
    yield ""
    yield "| objects | what happens |"
    yield "|---:|---|"
    counts = plan.counts
    for action, title in _TITLES.items():
        if action in counts:
            yield f"| {counts[action]} | {title} |"
    yield ""
    yield "Nothing is deleted. Each object is checked again right before it is applied. An object that is not as shown here is refused."
    for problem in plan.unread:
        yield f"- **could not be read from the backup:** {markdown(problem)}"


def _differences(plan: RecoveryPlan, whole: str) -> Iterator[str]:
    shown_chars = 0
    for each in (each for each in plan.objects if each.action in ("overwrite", "leave")):
        if shown_chars == 0:
            yield from ("", "## What differs", "")
        if shown_chars > MAX_DIFF_CHARS:
            yield f"- {markdown(each.label)}: {_TITLES[each.action]}; its diff is in {whole}"
            continue
        yield f"**{markdown(each.label)}** {_TITLES[each.action]}; {markdown(each.why)}"
        yield from _details(each)
        cut = each.diff[: MAX_DIFF_CHARS - shown_chars] if shown_chars <= MAX_DIFF_CHARS else ""
        yield from _diff_block(cut) if cut else ()
        if len(cut) < len(each.diff):
            yield f"(cut here; the rest is in {whole})"
        shown_chars += len(each.diff) + 1


def _section(plan: RecoveryPlan, action: Action, whole: str) -> Iterator[str]:
    found = [each for each in plan.objects if each.action == action]
    if not found:
        return
    yield from ("", f"## What {_TITLES[action]}", "")
    elsewhere = sum(each.checked == "elsewhere" for each in found)
    if elsewhere:
        yield f"{elsewhere} of them were tried in namespace default, because their own does not exist yet."
        yield ""
    for each in found[:MAX_ROWS]:
        yield f"- **{markdown(each.label)}**{f': {markdown(each.why)}' if each.why else ''}"
        yield from (f"  {line}" for line in _details(each))
    if len(found) > MAX_ROWS:
        yield f"- and {len(found) - MAX_ROWS} more: {whole}"


def _left_out(plan: RecoveryPlan) -> Iterator[str]:
    """Tell by kind and reason what is left out: there may be thousands of events."""
    found = Counter((each.kind, _reason(each)) for each in plan.objects if each.action == "skip")
    if found:
        yield from ("", "## What is left out", "")
    for (kind, reason), count in sorted(found.items()):
        yield f"- {count} {markdown(kind)}: {markdown(reason)}"


def _reason(each: Planned) -> str:
    """Return why an object is left out, without its owner's name: one line for all pods of all ReplicaSets."""
    owner, makes, rest = each.why.partition(" makes it")
    return f"a {owner.split()[0]} makes it" if makes and not rest and len(owner.split()) == 2 else each.why


def _footer(plan: RecoveryPlan, whole: str) -> Iterator[str]:
    fields = ", ".join(field.removeprefix("metadata.") for field in sorted(BY_THE_SERVER))
    yield ""
    yield f"From every object, what the API server writes is dropped ({fields})."
    yield f"The whole plan: {whole}"
    yield f"Plan SHA-256: `{plan.digest}`"


def _details(each: Planned, *, all_fields: bool = False) -> Iterator[str]:
    dropped = [field for field in each.dropped if all_fields or field not in BY_THE_SERVER]
    if each.action in WRITING and dropped:
        yield f"- dropped: {_listed(dropped)}"
    if each.stays:
        yield f"- only in the live object, and kept: {_listed(each.stays)}"
    if each.action == "create" and not each.checked:
        yield "- cannot be tried before its namespace or kind exists"
    for warning in each.warnings:
        yield f"- **note:** {markdown(warning)}"


def _listed(fields: Sequence[str]) -> str:
    shown = ", ".join(markdown_code(field) for field in fields[:_SHOWN_FIELDS])
    return f"{shown} and {len(fields) - _SHOWN_FIELDS} more" if len(fields) > _SHOWN_FIELDS else shown


def _diff_block(diff: str) -> list[str]:
    fence = "`" * max(3, *(len(run) + 1 for run in _runs_of_backticks(diff)), 3)
    return ["", f"{fence}diff", lines(diff).rstrip("\n"), fence, ""]


def _runs_of_backticks(text: str) -> list[str]:
    return [run for run in "".join(each if each == "`" else " " for each in text).split() if run]
