"""Under which prefix an API server keeps its objects: ``--etcd-prefix``, ``/registry`` unless somebody set it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from etcdkeep.control_plane.static_pod import apiserver_flag
from etcdkeep.errors import ConfigError
from etcdkeep.objects.entries import OBJECT_MARKS
from etcdkeep.objects.keys import DEFAULT_PREFIX, clean_prefix, parse_key, prefix_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from etcdkeep.snapshot import Snapshot

_MANIFEST = "kube-apiserver.yaml"


def find_prefixes(snapshot: Snapshot) -> Counter[str]:
    """
    Return the prefixes under which a snapshot has objects of built-in kinds, with their numbers.

    The first object under ``/registry`` ends the search: the usual case costs one page.
    """
    found: Counter[str] = Counter()
    usual = DEFAULT_PREFIX.encode() + b"/"
    for record, value in snapshot.live_values():
        if record.key.startswith(usual) and parse_key(record.key).holds_object:
            return Counter({DEFAULT_PREFIX: 1})
        if value.startswith(OBJECT_MARKS):
            prefix = prefix_of(record.key)
            if prefix is not None:
                found[prefix] += 1
    return found


def choose_prefix(snapshot: Snapshot, name: str) -> str:
    """
    Return the prefix of a snapshot's objects; ``/registry`` where it has none.

    :param name: Of the snapshot, for messages.
    :raises ConfigError: when there are objects under several prefixes.
    """
    found = find_prefixes(snapshot)
    if len(found) > 1:
        shown = ", ".join(f"{prefix or '/'} ({count} objects)" for prefix, count in found.most_common())
        raise ConfigError(
            f"{name} has objects under several etcd prefixes: {shown}.\nChoose one with --prefix, or set etcd_prefix "
            "for the cluster."
        )
    return next(iter(found), DEFAULT_PREFIX)


def archived_prefix(files: Mapping[str, bytes]) -> str | None:
    """
    Return what ``--etcd-prefix`` says in an archive's manifest of kube-apiserver; None where it does not say it.

    :param files: The archive's files by path.
    """
    for path, data in sorted(files.items()):
        if path.rpartition("/")[2] == _MANIFEST:
            try:
                flag = apiserver_flag(data, path, "etcd-prefix")
            except ConfigError:
                continue
            if flag:
                return clean_prefix(flag)
    return None
