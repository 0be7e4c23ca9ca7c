"""``objects list | get | history | diff | stats``: what is in a backup, or in a plain snapshot file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from etcdkeep.cli.object_diff import diff
from etcdkeep.cli.object_options import parse_selection, selection_options, source_options
from etcdkeep.cli.object_output import (
    entry_name,
    print_columns,
    print_list,
    print_names,
    print_object,
    printable,
)
from etcdkeep.cli.object_source import Failures, open_source
from etcdkeep.objects.find import find_history, find_object
from etcdkeep.objects.history import versions
from etcdkeep.objects.selection import select
from etcdkeep.objects.stats import Share, count

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from etcdkeep.objects.entries import Entry

_SHOWN_PATHS = 6


@click.group()
def objects() -> None:
    """
    Look into backups: single Kubernetes objects, as they were.

    SET is CLUSTER/ID, CLUSTER (its newest good backup), or the path of a plain snapshot file.
    """


objects.add_command(diff)


@objects.command("list")
@click.argument("name", metavar="SET")
@selection_options
@click.option("--other", is_flag=True, help="Also the keys that hold no Kubernetes object.")
@click.option("-o", "--output", type=click.Choice(["wide", "name", "json", "yaml"]), help="Instead of a short table.")
@click.option("--revision", type=click.IntRange(min=1), help="As it was at this revision, back to the last compaction.")
@source_options
def list_objects(
    name: str,
    output: str | None,
    revision: int | None,
    other: bool,
    encryption_file: Path | None,
    kubernetes: str | None,
    **chosen: Any,
) -> None:
    """List the objects of SET. `-o json` gives what the API server gave, in the stored version."""
    selection = parse_selection(other=other, **chosen)
    with open_source(name, encryption_file, kubernetes) as source:
        if output not in ("json", "yaml") and not selection.labels:
            _print_entries([entry for entry, _ in select(source.entries(revision), selection)], output)
            return
        failures = Failures()
        found = list(failures.labelled(source, select(source.stored(revision), selection), selection))
        if output in ("json", "yaml"):
            print_list(failures.decoded(source, found), output)
        else:
            _print_entries([entry for entry, _ in found], output)
    failures.report()


@objects.command()
@click.argument("name", metavar="SET")
@click.argument("kind")
@click.argument("object_name", metavar="NAME")
@click.option("-n", "--namespace", default="", metavar="NS", help="The namespace; default: default.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json", "name"]), default="yaml", show_default=True)
@click.option("--revision", type=click.IntRange(min=1), help="As it was at this revision, back to the last compaction.")
@source_options
def get(
    name: str,
    kind: str,
    object_name: str,
    namespace: str,
    output: str,
    revision: int | None,
    encryption_file: Path | None,
    kubernetes: str | None,
) -> None:
    """Print one object of SET as the API server gave it, in the stored version."""
    with open_source(name, encryption_file, kubernetes) as source:
        entry, record = find_object(source.snapshot, kind, namespace, object_name, revision)
        if output == "name":
            click.echo(entry_name(entry))
            return
        found = source.decode(record)
    print_object(found.json, output)
    for notice in found.notices:
        click.echo(f"note: {notice}", err=True)


@objects.command()
@click.argument("name", metavar="SET")
@click.argument("kind")
@click.argument("object_name", metavar="NAME")
@click.option("-n", "--namespace", default="", metavar="NS", help="The namespace; default: default.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="Every version whole, instead of a table.")
@source_options
def history(
    name: str,
    kind: str,
    object_name: str,
    namespace: str,
    output: str | None,
    encryption_file: Path | None,
    kubernetes: str | None,
) -> None:
    """Show what happened to one object, as far back as SET reaches; its earlier incarnations included."""
    with open_source(name, encryption_file, kubernetes) as source:
        records = find_history(source.snapshot, kind, namespace, object_name)
        found = list(versions(records, lambda record: source.decode(record).json))
        reach = source.snapshot.compacted_revision
    if output:
        print_object(
            [
                {"revision": each.revision, "event": each.event, "changed": list(each.paths), "object": each.content}
                for each in found
            ],
            output,
        )
        return
    rows = [
        (str(each.revision), each.event, each.uid or "-", str(each.size_bytes or "-"), _shown_paths(each.paths))
        for each in found
    ]
    print_columns(("revision", "event", "uid", "size", "changed"), rows)
    if reach:
        click.echo(f"etcd was compacted at revision {reach}: what was written before is known by its last version only")


@objects.command()
@click.argument("name", metavar="SET")
@click.option("-o", "--output", type=click.Choice(["json"]), help="Instead of tables.")
def stats(name: str, output: str | None) -> None:
    """Show what fills the etcd of SET: objects and bytes by kind and namespace, and the largest objects."""
    with open_source(name) as source:
        found = count(entry for entry, _ in source.entries())
    largest = [
        {"kind": entry.kind, "namespace": entry.namespace, "name": entry.name, "size_bytes": entry.size_bytes}
        for entry in found.largest
    ]
    if output:
        tables = {name: [share._asdict() for share in getattr(found, name)] for name in ("kinds", "namespaces")}
        print_object({**tables, "largest": largest, "total": found.total._asdict()}, "json")
        return
    for what, shares in (("kind", found.kinds), ("namespace", found.namespaces)):
        print_columns((what, "objects", "size"), [_share(share) for share in (*shares, found.total)])
        click.echo()
    rows = [
        (entry.kind or "-", entry.namespace or "-", printable(entry.name), str(entry.size_bytes))
        for entry in found.largest
    ]
    print_columns(("largest", "namespace", "name", "size"), rows)


def _print_entries(entries: Sequence[Entry], output: str | None) -> None:
    if output == "name":
        print_names(entries)
        return
    is_wide = output == "wide"
    columns = ("namespace", "kind", "name", "size", "revision", *(("created", "api version", "key") if is_wide else ()))
    print_columns(columns, [_cells(entry, is_wide=is_wide) for entry in entries])


def _cells(entry: Entry, *, is_wide: bool) -> tuple[str, ...]:
    kind = entry.kind or (entry.type.full_name if entry.resource else "-")
    name, size, revision = printable(entry.name), str(entry.size_bytes), str(entry.revision)
    cells = (printable(entry.namespace) or "-", printable(kind), name, size, revision)
    if not is_wide:
        return cells
    purpose = f" ({entry.other})" if entry.other else ""
    return *cells, str(entry.create_revision), printable(entry.api_version) or "-", printable(entry.key) + purpose


def _share(share: Share) -> tuple[str, str, str]:
    return printable(share.name) or "-", str(share.objects), str(share.size_bytes)


def _shown_paths(paths: Sequence[str]) -> str:
    shown = ", ".join(map(printable, paths[:_SHOWN_PATHS]))
    return shown + (f" and {len(paths) - _SHOWN_PATHS} more" if len(paths) > _SHOWN_PATHS else "")
