"""``objects get``: one object, several, or all of a kind, as kubectl shows them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from etcdkeep.cli.object_options import (
    OutputForm,
    parse_selection,
    show_labels_option,
    sort_option,
    source_options,
    split,
)
from etcdkeep.cli.object_output import Columns, entry_name, print_columns, print_contents, print_names, print_object
from etcdkeep.cli.object_source import Failures, open_source, tell_other_prefixes
from etcdkeep.errors import NotFound, ValueDamaged
from etcdkeep.objects import jsonpath
from etcdkeep.objects.age import age
from etcdkeep.objects.decoding import exact_json
from etcdkeep.objects.find import DEFAULT_NAMESPACE
from etcdkeep.objects.selection import select
from etcdkeep.say import printable, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from etcdkeep.objects.entries import Entry
    from etcdkeep.objects.source import Source

Named = tuple[str, tuple[str, ...]]
"""A kind, and the names that are meant of it; none where all are."""


@click.command()
@click.argument("name", metavar="SET")
@click.argument("what", metavar="KIND[/NAME] [NAME…]", nargs=-1, required=True)
@click.option(
    "-n", "--namespace", "namespaces", multiple=True, metavar="NS", help="Objects in this namespace; default: default."
)
@click.option("-A", "--all-namespaces", is_flag=True, help="All objects of a kind in all namespaces.")
@click.option(
    "-l",
    "--selector",
    default="",
    metavar="LABELS",
    help="Label selector as in kubectl: app=web,tier in (a,b),!canary.",
)
@click.option("--field-selector", default="", metavar="FIELDS", help="metadata.name=web,metadata.namespace!=x.")
@click.option(
    "-o",
    "--output",
    type=OutputForm("yaml", "json", "name", "wide"),
    help="Output format; default: yaml for named objects, a table for a kind.",
)
@sort_option
@show_labels_option
@click.option(
    "--revision", type=click.IntRange(min=1), help="Show the state at this revision, back to the last compaction."
)
@source_options
def get(
    name: str,
    what: tuple[str, ...],
    output: str | None,
    revision: int | None,
    encryption_file: Path | None,
    kubernetes: str | None,
    prefix: str | None,
    **chosen: Any,
) -> None:
    """Print objects of SET as the API server gave them, in the stored version."""
    wanted, failures = parse_names(what), Failures()
    has_names = bool(wanted[0][1])
    if has_names and (chosen["all_namespaces"] or chosen["selector"] or chosen["field_selector"]):
        raise click.UsageError("names and -A, -l or --field-selector exclude each other.")
    with open_source(name, encryption_file, kubernetes, prefix) as source:
        if has_names:
            places = split(chosen["namespaces"]) or ("",)
            count = len(places) * sum(len(names) for _, names in wanted)
            if count == 1 and output != "wide" and not chosen["show_labels"]:
                _print_one(source, wanted[0][0], places[0], wanted[0][1][0], revision, output or "yaml")
                return
            found, missing = _find_named(source, wanted, places, revision)
            if chosen["show_labels"] and output is None:
                output = "wide"
        else:
            found, missing = _find_kind(source, wanted[0][0], revision, chosen, failures), []
        if chosen["sort_by"]:
            found = sort_entries(source, found, chosen["sort_by"], failures)
        _print(source, found, output or ("yaml" if has_names else ""), failures, chosen)
    failures.report()
    for err in missing:
        say(printable(f"not found: {err}"), err=True)
    if missing:
        raise NotFound(f"{len(missing)} of {count} objects do not exist; each is named above.")


def parse_names(what: Sequence[str]) -> list[Named]:
    """
    Read ``KIND``, ``KIND NAME…`` or ``KIND/NAME…``.

    :raises click.UsageError: when they are mixed, or a part is missing.
    """
    if not any("/" in word for word in what):
        return [(what[0], tuple(what[1:]))]
    found: list[Named] = []
    for word in what:
        kind, slash, object_name = word.partition("/")
        if not (kind and slash and object_name) or "/" in object_name:
            raise click.UsageError(f"{word!r} is not of the form KIND/NAME. Use that form for all names, or for none.")
        found.append((kind, (object_name,)))
    return found


def sort_entries(source: Source, found: Iterable[Entry], path: str, failures: Failures) -> list[Entry]:
    """
    Return entries in the order of a field; what cannot be read is last.

    :raises click.BadParameter: when the path is no JSONPath.
    :raises NotFound: when no object has the field, as kubectl does: a mistyped path sorts nothing.
    """
    try:
        steps = jsonpath.parse_path(path)
    except ValueError as err:
        raise click.BadParameter(f"{err}.", param_hint="--sort-by") from err
    keyed: list[tuple[tuple[int, Any], Entry]] = []
    unread: list[Entry] = []
    for entry in found:
        try:
            values = jsonpath.find(steps, source.decode(entry).json)
        except ValueDamaged as err:
            failures.add([err])
            unread.append(entry)
        else:
            keyed.append((_sort_key(values), entry))
    if keyed and all(key == NO_FIELD for key, _ in keyed):
        raise NotFound(f"--sort-by {path}: no object of this list has such a field; check the path's spelling.")
    return [*(entry for _, entry in sorted(keyed, key=lambda pair: pair[0])), *unread]


def labels_column(source: Source, found: Iterable[Entry], failures: Failures) -> list[str]:
    """Return the labels of entries as text."""
    column = []
    for entry in found:
        try:
            labels = {} if entry.holds_no_object else source.labels(entry)
        except ValueDamaged as err:
            failures.add([err])
            column.append("<not read>")
        else:
            column.append(_labels_text(labels))
    return column


def tell_nothing_found(namespaces: Sequence[str], every: Iterable[Entry]) -> None:
    """Say on standard error that nothing is there, and which namespaces have names like those that were asked for."""
    if not namespaces:
        say("No resources found", err=True)
        return
    known = {entry.namespace for entry in every if entry.namespace}
    near = [each for name in namespaces if name not in known for each in get_close_matches(name, known, 3)]
    words = f"{', '.join(namespaces)} namespace{'s' if len(namespaces) > 1 else ''}"
    hint = f" There is namespace {', '.join(dict.fromkeys(near))}." if near else ""
    say(printable(f"No resources found in {words}.{hint}"), err=True)


NO_FIELD = 0, 0
"""Sorts what lacks the field before all others."""


def _sort_key(values: Sequence[Any]) -> tuple[int, Any]:
    value = values[0] if values else None
    if value is None:
        return NO_FIELD
    if isinstance(value, bool | int | float):
        return 1, value
    return 2, _natural(value if isinstance(value, str) else exact_json.dumps(value, sort_keys=True))


def _natural(text: str) -> tuple[str | int, ...]:
    """Return what sorts web-2 before web-10, as kubectl does."""
    return tuple(int(part) if at % 2 else part for at, part in enumerate(re.split(r"([0-9]+)", text)))


def _print_one(source: Source, kind: str, namespace: str, object_name: str, revision: int | None, output: str) -> None:
    entry = source.find(kind, namespace, object_name, revision)
    if output == "name":
        failures = Failures()
        failures.add_unreadable([entry])
        print_names([entry])
        failures.report()
        return
    found = source.decode(entry)
    print_object(found.json, output)
    for notice in found.notices:
        say(printable(f"note: {entry.key}: {notice}"), err=True)


def _find_named(
    source: Source, wanted: Sequence[Named], places: Sequence[str], revision: int | None
) -> tuple[list[Entry], list[NotFound]]:
    found: list[Entry] = []
    missing: list[NotFound] = []
    for kind, names in wanted:
        for namespace in places:
            for object_name in names:
                try:
                    found.append(source.find(kind, namespace, object_name, revision))
                except NotFound as err:
                    missing.append(err)
    return found, missing


def _find_kind(
    source: Source, kinds: str, revision: int | None, chosen: dict[str, Any], failures: Failures
) -> list[Entry]:
    """Return all of a kind; those without a namespace whatever namespace is meant."""
    selection = parse_selection(
        namespaces=(),
        kinds=(kinds,),
        glob="",
        selector=chosen["selector"],
        field_selector=chosen["field_selector"],
    )
    places = () if chosen["all_namespaces"] else split(chosen["namespaces"]) or (DEFAULT_NAMESPACE,)
    every = list(source.entries(revision, with_values=True))
    tell_other_prefixes(source, every, must_have_some=True)
    of_kind = select(every, selection)
    meant = [entry for entry in of_kind if not places or not entry.namespace or entry.namespace in places]
    found = list(failures.labelled(source, meant, selection))
    if not found:
        tell_nothing_found(places if any(entry.namespace for entry in of_kind) or not of_kind else (), every)
    return found


def _print(source: Source, found: list[Entry], output: str, failures: Failures, chosen: dict[str, Any]) -> None:
    if output == "name":
        failures.add_unreadable(found)
        print_names(found)
    elif output in ("", "wide"):
        if found:
            _print_table(source, found, failures, is_wide=bool(output), with_labels=chosen["show_labels"])
    else:
        print_contents(failures.decoded(source, found), output)


def _print_table(
    source: Source, found: Sequence[Entry], failures: Failures, *, is_wide: bool, with_labels: bool
) -> None:
    now = source.taken_at or datetime.now(UTC)
    facts = [_metadata(source, entry, failures) for entry in found]
    several_kinds, in_namespaces = len({entry[:3] for entry in found}) > 1, any(entry.namespace for entry in found)
    columns: dict[str, list[str]] = {}
    if in_namespaces:
        columns["namespace"] = [entry.namespace or "-" for entry in found]
    columns["name"] = [entry_name(entry) if several_kinds else entry.name for entry in found]
    columns["age"] = [age((each or {}).get("creationTimestamp"), now) for each in facts]
    if is_wide:
        columns["size"] = [str(entry.size_bytes) for entry in found]
        columns["revision"] = [str(entry.revision) for entry in found]
        columns["api version"] = [entry.api_version or "-" for entry in found]
        columns["key"] = [entry.key for entry in found]
    if with_labels:
        columns["labels"] = ["<not read>" if each is None else _labels_text(each.get("labels")) for each in facts]

    def cells(rows: Sequence[tuple[str, ...]]) -> Columns:
        return list(zip(*rows, strict=True))

    print_columns(tuple(columns), list(zip(*columns.values(), strict=True)), cells)


def _metadata(source: Source, entry: Entry, failures: Failures) -> dict[str, Any] | None:
    try:
        metadata: dict[str, Any] = source.decode(entry).json["metadata"]
    except ValueDamaged as err:
        failures.add([err])
        return None
    return metadata


def _labels_text(labels: Any) -> str:
    if not labels or not isinstance(labels, dict):
        return "<none>"
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
