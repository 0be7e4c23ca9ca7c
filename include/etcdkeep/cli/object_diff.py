"""``objects diff``: what changed between two backups, or since one of them."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from etcdkeep.cli.object_options import parse_selection, selection_options, source_options
from etcdkeep.cli.object_output import (
    Columns,
    print_columns,
    print_lines,
    print_object,
    resource_name,
)
from etcdkeep.cli.object_source import Failures, FileSource, open_source
from etcdkeep.errors import NotFound, ValueDamaged
from etcdkeep.objects.compare import (
    ADDED,
    CHANGED,
    RECREATED,
    REMOVED,
    SIGNS,
    ChangeCount,
    compare,
    count_changes,
    unified,
)
from etcdkeep.objects.live_cluster import LiveCluster, cluster_uid, served_kinds
from etcdkeep.objects.resources import Resource, same_objects
from etcdkeep.objects.selection import Selection, choose_types, select
from etcdkeep.say import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from etcdkeep.cli.object_set import SetSource
    from etcdkeep.objects.entries import Entry
    from etcdkeep.objects.source import Source
    from etcdkeep.site.site import Site

Contents = tuple["dict[str, Any] | None", "dict[str, Any] | None"]
LIVE = "live"
COUNTED = (REMOVED, RECREATED, CHANGED, ADDED)


class Shown(NamedTuple):
    """
    One difference, ready to print.

    :param revisions: Of both states; 0 where the object did not exist.
    :param contents: Gives the object in both states, None where it did not exist.
    """

    what: str
    resource: Resource
    namespace: str
    name: str
    revisions: tuple[int, ...]
    contents: Callable[[], Contents]


@click.command()
@click.argument("before", metavar="SET")
@click.argument("after", metavar="SET", required=False)
@click.option("--live", is_flag=True, help="Compare with the running cluster, which is only read.")
@click.option("--previous", is_flag=True, help="Compare the good backup before SET with SET: what changed since.")
@click.option("--count", "only_count", is_flag=True, help="Count by kind and namespace, instead of names.")
@click.option("--cluster", metavar="NAME", help="With --live and a plain file: the configured cluster to compare with.")
@selection_options
@click.option(
    "-o",
    "--output",
    type=click.Choice(["name", "diff", "json"]),
    help="Output format, instead of a table; diff: as YAML.",
)
@source_options
def diff(
    before: str,
    after: str | None,
    live: bool,
    previous: bool,
    only_count: bool,
    cluster: str | None,
    output: str | None,
    encryption_file: Path | None,
    kubernetes: str | None,
    prefix: str | None,
    **chosen: Any,
) -> None:
    """Show what was added, removed, changed or recreated from one SET to another, or since SET (--live); exit code 1: something differs."""
    if live + previous + bool(after) != 1:
        raise click.UsageError("give one of these: a second SET to compare with, --previous, --live.")
    if only_count and output not in (None, "json"):
        raise click.UsageError("--count goes with a table or -o json.")
    if cluster and not live:
        raise click.UsageError("--cluster goes with --live.")
    selection, failures = parse_selection(**chosen), Failures()
    show = _show_counts if only_count else _show
    with ExitStack() as stack:

        def opened(name: str) -> FileSource | SetSource:
            return stack.enter_context(open_source(name, encryption_file, kubernetes, prefix))

        source = opened(before)
        if live:
            differs = show(_since(source, cluster, selection, failures), output, (source.name, LIVE), failures)
        else:
            old, new = (opened(_previous(source)), source) if previous else (source, opened(after or ""))
            found = _between(old, new, selection, failures, with_values=output == "diff")
            differs = show(found, output, (old.name, new.name), failures)
    failures.report()
    if differs:
        click.get_current_context().exit(1)


def _previous(source: FileSource | SetSource) -> str:
    if isinstance(source, FileSource):
        raise click.UsageError(f"{source.name} is a plain file: --previous takes a backup.")
    return source.previous()


def _between(
    before: Source, after: Source, selection: Selection, failures: Failures, *, with_values: bool
) -> Iterator[Shown]:
    """Yield what differs between two snapshots."""
    with_values = with_values or bool(selection.labels)
    wanted: set[tuple[str, str, str]] | None = None
    if selection.kinds:
        types = {entry[:3] for source in (before, after) for entry in source.entries(with_values=with_values)}
        wanted = choose_types(types, selection.kinds)
    is_everything = selection == Selection()

    def takes(entry: Entry) -> bool:
        if not entry.other:
            return is_everything or ((wanted is None or entry[:3] in wanted) and selection.takes(entry))
        if not selection.takes(entry) or (wanted is not None and entry[:3] not in wanted):
            return False
        failures.add_unreadable([entry])
        return True

    old, new = partial(before.digests, with_values=with_values), after.digests(with_values=with_values)
    for change in compare(old, new, takes):
        sides = (before, change.before), (after, change.after)
        if any(list(failures.labelled(source, [entry], selection)) for source, entry in sides if entry):
            entry = change.entry
            revisions = tuple(each.revision if each else 0 for _, each in sides)
            yield Shown(change.what, entry.type, entry.namespace, entry.name, revisions, partial(_contents, *sides))


def _since(
    source: FileSource | SetSource, cluster: str | None, selection: Selection, failures: Failures
) -> Iterator[Shown]:
    """Yield what differs between a snapshot and the running cluster."""
    api = _live_site(source, cluster).own_api
    live = LiveCluster(api, lambda entry: source.decode(entry).json)
    _tell_other_cluster(source, cluster_uid(api))
    served = served_kinds(api)
    if selection.kinds:
        types = {entry[:3] for entry in source.entries(with_values=True)} | {each.resource.names for each in served}
        kinds = {same_objects(Resource(*each)) for each in choose_types(types, selection.kinds)}
        served = [each for each in served if same_objects(each.resource) in kinds]
    stored = select(source.entries(with_values=True), selection)
    stored = list(failures.labelled(source, stored, selection))
    for change in live.compare(served, stored, selection):
        contents: Contents = change.before, change.after
        revisions = tuple(int(each["metadata"]["resourceVersion"]) if each else 0 for each in contents)
        yield Shown(*change[:4], revisions, partial(_same, contents))
    failures.add(live.failures)
    for notice in live.notices:
        say(f"note: {notice}", err=True)


def _live_site(source: FileSource | SetSource, cluster: str | None) -> Site:
    if cluster:
        from etcdkeep.cli.common import open_cluster

        return open_cluster(cluster)
    if source.site is None:
        raise click.UsageError(f"{source.name} is a plain file: name the configured cluster with --cluster.")
    return source.site


def _tell_other_cluster(source: Source, live_uid: str) -> None:
    try:
        uid = source.decode(source.find("namespace", "", "kube-system")).json["metadata"].get("uid")
    except (NotFound, ValueDamaged):
        return
    if uid != live_uid:
        say(
            f"warning: namespace kube-system has uid {uid} in {source.name} and {live_uid} in the running cluster: "
            "that is another cluster, or one that was set up again",
            err=True,
        )


def _contents(before: tuple[Source, Entry | None], after: tuple[Source, Entry | None]) -> Contents:
    old, new = (source.decode(entry).json if entry else None for source, entry in (before, after))
    return old, new


def _same(contents: Contents) -> Contents:
    return contents


def _show(found: Iterator[Shown], output: str | None, labels: tuple[str, str], failures: Failures) -> bool:
    """Print what differs, and return whether something does."""
    every = list(found)
    if output == "diff":
        for each in every:
            try:
                text = unified(*each.contents(), _title(each), labels)
            except ValueDamaged as err:
                failures.add([err])
                continue
            print_lines(text.splitlines())
    elif output == "name":
        print_lines(_title(each) for each in every)
    elif output == "json":
        print_object([_json(each) for each in every], "json")
    elif every:
        print_columns(("", "change", "namespace", "kind", "name", "before", "after"), every, _columns)
    else:
        say("nothing differs", err=True)
    return bool(every)


def _show_counts(found: Iterator[Shown], output: str | None, labels: tuple[str, str], failures: Failures) -> bool:
    """Print how much differs by kind and namespace, and return whether something does."""
    counts = count_changes((each.what, each.resource, each.namespace) for each in found)
    if output == "json":
        print_object({"before": labels[0], "after": labels[1], "counts": [each.as_json() for each in counts]}, "json")
    elif counts:
        print_columns(("namespace", "kind", *COUNTED), counts, _count_columns)
    else:
        say("nothing differs", err=True)
    return bool(counts)


def _count_columns(counts: Sequence[ChangeCount]) -> Columns:
    return (
        [count.namespace or "-" for count in counts],
        [count.resource.kind or count.resource.full_name for count in counts],
        *([getattr(count, what) for count in counts] for what in COUNTED),
    )


def _title(shown: Shown) -> str:
    name = resource_name(shown.resource, shown.name)
    return f"{SIGNS[shown.what]} {name}" + (f" -n {shown.namespace}" if shown.namespace else "")


def _json(shown: Shown) -> dict[str, Any]:
    before, after = shown.revisions
    names = {"group": shown.resource.group, "resource": shown.resource.plural, "kind": shown.resource.kind}
    place = {"namespace": shown.namespace, "name": shown.name}
    return {"change": shown.what, **names, **place, "before": before or None, "after": after or None}


def _columns(found: Sequence[Shown]) -> Columns:
    return (
        [SIGNS[shown.what] for shown in found],
        [shown.what for shown in found],
        [shown.namespace or "-" for shown in found],
        [shown.resource.kind or shown.resource.full_name for shown in found],
        [shown.name for shown in found],
        *(
            [str(revision or "-") for revision in revisions]
            for revisions in zip(*(shown.revisions for shown in found), strict=True)
        ),
    )
