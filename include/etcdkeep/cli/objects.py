"""``objects list | get | history | diff | stats | recover``: what is in a backup, or in a plain snapshot file."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import click

from etcdkeep.cli import Group
from etcdkeep.cli.object_diff import diff
from etcdkeep.cli.object_get import get, labels_column, parse_names, sort_entries, tell_nothing_found
from etcdkeep.cli.object_nights import print_nights
from etcdkeep.cli.object_options import (
    OutputForm,
    parse_selection,
    prefix_option,
    selection_options,
    show_labels_option,
    sort_option,
    source_options,
)
from etcdkeep.cli.object_output import Columns, print_columns, print_contents, print_names, print_object
from etcdkeep.cli.object_recover import recover
from etcdkeep.cli.object_source import Failures, open_source, tell_other_prefixes
from etcdkeep.objects.entries import entry_of
from etcdkeep.objects.find import find_history
from etcdkeep.objects.history import Version, versions
from etcdkeep.objects.selection import select
from etcdkeep.objects.stats import Share, Stats, count
from etcdkeep.say import say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from etcdkeep.objects.entries import Entry
    from etcdkeep.snapshot import Record

COLUMNS = ("namespace", "kind", "name", "size", "revision")
_SHOWN_PATHS = 6


@click.group(cls=Group)
def objects() -> None:
    """
    Look into backups: single Kubernetes objects, as they were.

    SET is CLUSTER/ID, CLUSTER (its newest good backup), or the path of a plain snapshot file.
    """
    # A list makes hundreds of thousands of tuples and hardly a cycle: looking for them at the usual rate takes a fifth of it.
    gc.set_threshold(1_000_000)


objects.add_command(diff)
objects.add_command(get)
objects.add_command(recover)


@objects.command("list")
@click.argument("name", metavar="SET")
@selection_options
@click.option("--other", is_flag=True, help="Include keys that hold no Kubernetes object.")
@click.option(
    "-o", "--output", type=OutputForm("wide", "name", "json", "yaml"), help="Output format, instead of a short table."
)
@sort_option
@show_labels_option
@click.option(
    "--revision", type=click.IntRange(min=1), help="Show the state at this revision, back to the last compaction."
)
@source_options
def list_objects(
    name: str,
    output: str | None,
    sort_by: str,
    show_labels: bool,
    revision: int | None,
    other: bool,
    encryption_file: Path | None,
    kubernetes: str | None,
    prefix: str | None,
    **chosen: Any,
) -> None:
    """List the objects of SET. `-o json` gives what the API server gave, in the stored version."""
    selection, failures = parse_selection(other=other, **chosen), Failures()
    is_table = output in (None, "wide", "name")
    with_values = not is_table or bool(selection.labels or sort_by or show_labels)
    with open_source(name, encryption_file, kubernetes, prefix) as source:
        every = list(source.entries(revision, with_values=with_values))
        tell_other_prefixes(source, every, must_have_some=not other)
        found = select(every, selection)
        if with_values:
            found = list(failures.labelled(source, found, selection))
        if sort_by:
            found = sort_entries(source, found, sort_by, failures)
        failures.add_unreadable(found)
        if not is_table:
            print_contents(failures.decoded(source, found), output)
        elif found or output == "name":
            _print_entries(found, output, labels_column(source, found, failures) if show_labels else None)
        if not found and is_table:
            tell_nothing_found(selection.namespaces, every)
    failures.report()


@objects.command()
@click.argument("name", metavar="SET")
@click.argument("kind", metavar="KIND[/NAME]")
@click.argument("object_name", metavar="[NAME]", default="")
@click.option("-n", "--namespace", default="", metavar="NS", help="The object's namespace; default: default.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["json", "yaml"]),
    help="Output format: each version in full, instead of a table.",
)
@click.option(
    "--sets",
    "over_sets",
    is_flag=True,
    help="Show all backups of the cluster SET, one by one, from their indexes; without the fields that changed.",
)
@source_options
def history(
    name: str,
    kind: str,
    object_name: str,
    namespace: str,
    output: str | None,
    over_sets: bool,
    encryption_file: Path | None,
    kubernetes: str | None,
    prefix: str | None,
) -> None:
    """Show what happened to one object, as far back as SET reaches. Earlier objects of the same name are included."""
    kind, names = parse_names((kind, object_name) if object_name else (kind,))[0]
    if len(names) != 1:
        raise click.UsageError("name the object: KIND NAME, or KIND/NAME.")
    object_name = names[0]
    if over_sets:
        print_nights(name, kind, namespace, object_name, output)
        return
    failures = Failures()
    with open_source(name, encryption_file, kubernetes, prefix) as source:
        records = find_history(source.snapshot, kind, namespace, object_name, prefix=source.prefix)

        def decode(record: Record) -> dict[str, Any]:
            return source.decode(entry_of(record, source.snapshot.value(record), source.prefix)).json

        found = list(versions(records, decode))
        reach = source.snapshot.compacted_revision
    failures.add(each.problem for each in found if each.problem)
    if output:
        print_object([_version_json(each) for each in found], output)
    else:
        print_columns(("revision", "event", "uid", "size", "changed"), found, _event_columns)
    if reach and not output:
        say(f"etcd was compacted at revision {reach}: of earlier writes only the last version is known")
    failures.report()


def _version_json(version: Version) -> dict[str, Any]:
    facts = {"revision": version.revision, "event": version.event, "changed": list(version.paths)}
    return {**facts, "object": version.content, **({"problem": str(version.problem)} if version.problem else {})}


@objects.command()
@click.argument("name", metavar="SET")
@click.option("-o", "--output", type=click.Choice(["json"]), help="Output format, instead of tables.")
@prefix_option
def stats(name: str, output: str | None, prefix: str | None) -> None:
    """Show what fills the etcd of SET: objects and bytes by kind and namespace, and the largest objects."""
    failures = Failures()
    with open_source(name, prefix=prefix) as source:
        every = list(source.entries())
        tell_other_prefixes(source, every, must_have_some=False)
        found = count(every)
        failures.add_unreadable(found.unreadable)
    largest = [
        {"kind": entry.kind, "namespace": entry.namespace, "name": entry.name, "size_bytes": entry.size_bytes}
        for entry in found.largest
    ]
    if output:
        tables = {name: [share._asdict() for share in getattr(found, name)] for name in ("kinds", "namespaces")}
        print_object({**tables, "largest": largest, "total": found.total._asdict()}, "json")
    else:
        _print_stats(found)
    failures.report()


def _print_stats(found: Stats) -> None:
    for what, shares in (("kind", found.kinds), ("namespace", found.namespaces)):
        print_columns((what, "objects", "size"), (*shares, found.total), _share_columns)
        say()
    print_columns(("namespace", "kind", "largest", "size", "revision"), found.largest, _columns)


def _print_entries(entries: Sequence[Entry], output: str | None, labels: Sequence[str] | None) -> None:
    if output == "name":
        print_names(entries)
        return
    titles: tuple[str, ...] = COLUMNS
    cells: Callable[[Sequence[Entry]], Columns] = _columns
    if output == "wide":
        titles, cells = (*COLUMNS, "created", "api version", "key"), _wide_columns
    if labels is None:
        print_columns(titles, entries, cells)
    else:
        rows = list(zip(entries, labels, strict=True))
        print_columns((*titles, "labels"), rows, lambda block: _with_labels(cells, block))


def _with_labels(cells: Callable[[Sequence[Entry]], Columns], rows: Sequence[tuple[Entry, str]]) -> Columns:
    return [*cells([entry for entry, _ in rows]), [labels for _, labels in rows]]


def _columns(entries: Sequence[Entry]) -> Columns:
    # Turning rows into columns in one go takes half the time of asking each entry for each field.
    _, _, kinds, _, namespaces, names, _, revisions, _, sizes, *_ = zip(*entries, strict=True)
    if "" in kinds:
        kinds = tuple(entry.kind or (entry.type.full_name if entry.resource else "-") for entry in entries)
    return [namespace or "-" for namespace in namespaces], kinds, names, sizes, revisions


def _wide_columns(entries: Sequence[Entry]) -> Columns:
    return (
        *_columns(entries),
        [entry.create_revision for entry in entries],
        [entry.api_version or "-" for entry in entries],
        [f"{entry.key} ({entry.other})" if entry.other else entry.key for entry in entries],
    )


def _share_columns(shares: Sequence[Share]) -> Columns:
    return (
        [share.name or "-" for share in shares],
        [share.objects for share in shares],
        [share.size_bytes for share in shares],
    )


def _event_columns(found: Sequence[Version]) -> Columns:
    return (
        [version.revision for version in found],
        [version.event for version in found],
        [version.uid or "-" for version in found],
        [str(version.size_bytes or "-") for version in found],
        [_shown_paths(version.paths) for version in found],
    )


def _shown_paths(paths: Sequence[str]) -> str:
    shown = ", ".join(paths[:_SHOWN_PATHS])
    return shown + (f" and {len(paths) - _SHOWN_PATHS} more" if len(paths) > _SHOWN_PATHS else "")
