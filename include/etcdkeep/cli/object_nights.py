"""``objects history --sets``: one object over all backups of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from etcdkeep.cli.object_output import Columns, print_columns, print_object
from etcdkeep.say import printable, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etcdkeep.objects.nights import Night


def print_nights(cluster: str, kind: str, namespace: str, name: str, output: str | None) -> None:
    """
    Print what happened to an object from backup to backup.

    :param output: ``json`` or ``yaml`` for all nights; else a table of those on which something happened.
    :raises EtcdkeepError: when some backups could not be read: of the kind that the last of them gave.
    """
    # A plain file needs none of what a repository needs, and opens in half the time without it.
    from etcdkeep.cli.common import IDENTITY_VARIABLE, find_set
    from etcdkeep.errors import SecretUnavailable
    from etcdkeep.objects.nights import SILENT, nightly_history
    from etcdkeep.sets.backup_set import ANY

    if "/" in cluster or "." in cluster:
        raise click.UsageError("--sets takes the name of a cluster: objects history CLUSTER KIND NAME --sets.")
    site, _ = find_set(cluster, ANY)
    keys = site.identities()
    if keys is None:
        raise SecretUnavailable(f"indexes of {cluster} cannot be opened: set {IDENTITY_VARIABLE} to an identity file.")
    found = nightly_history(site.repository, cluster, keys, kind, namespace, name)
    if output:
        print_object(found.as_json(), output)
    else:
        shown = [night for night in found.nights if night.event not in SILENT]
        print_columns(("backup", "taken (UTC)", "event", "size", "revision", "state"), shown, _columns)
        say(f"{len(found.nights)} backups; those on which nothing changed are not shown (-o json shows them)", err=True)
    for night in found.unread:
        say(printable(f"not read: {night.problem}"), err=True)
    if found.unread:
        problem = found.unread[-1].problem
        raise type(problem)(  # type: ignore[misc]
            f"the answer is incomplete: {len(found.unread)} of {len(found.nights)} backups could not be read."
        )


def _columns(nights: Sequence[Night]) -> Columns:
    return (
        [night.backup_id for night in nights],
        [f"{night.taken_at:%Y-%m-%d %H:%M}" for night in nights],
        [night.event for night in nights],
        [str(night.size_bytes or "-") for night in nights],
        [str(night.revision or "-") for night in nights],
        [night.state for night in nights],
    )
