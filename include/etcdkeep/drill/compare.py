"""What a drill finds wrong: an etcd that was restored from a backup against that backup."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcdkeep.drill.contents import OTHER
from etcdkeep.errors import ValueDamaged, ValueEncrypted
from etcdkeep.objects.decoding.decode import decode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from etcdkeep.drill.contents import Contents, LiveKey, Tally

SHOWN_RESOURCES = 10


def compare_contents(served: Contents, recorded: Contents) -> list[str]:
    """
    Say how the restored etcd differs from the snapshot.

    :param served: Read from the etcd.
    :param recorded: Read from the snapshot file.
    """
    problems = []
    if served.revision != recorded.revision:
        problems.append(f"the restored etcd is at revision {served.revision}, the snapshot at {recorded.revision}")
    if served.tallies.count != recorded.tallies.count:
        problems.append(
            f"the restored etcd serves {served.tallies.count} keys, the snapshot holds {recorded.tallies.count}"
        )
    problems += _compare_resources(served.tallies.by_resource, recorded.tallies.by_resource)
    if served.hash_kv != recorded.hash_kv:
        problems.append(
            f"HashKV of the restored etcd is {served.hash_kv} at revision {served.revision}, of the snapshot {recorded.hash_kv}: "
            "the records of older revisions differ"
        )
    return problems


def find_undecodable(samples: Mapping[str, LiveKey]) -> list[str]:
    """
    Decode one object of each resource, and return a sentence on those where that fails.

    That is no fault of the backup: it holds, byte for byte, what the cluster's etcd held. Values encrypted at rest are left out.
    """
    odd = [resource for resource, sample in sorted(samples.items()) if resource != OTHER and not _decodes(sample)]
    if not odd:
        return []
    shown = ", ".join(odd[:SHOWN_RESOURCES]) + (
        f" and {len(odd) - SHOWN_RESOURCES} more" if len(odd) > SHOWN_RESOURCES else ""
    )
    return [f"of these resources the sampled object is not one that a Kubernetes API server stores: {shown}"]


def _decodes(sample: LiveKey) -> bool:
    try:
        decode(sample.key, sample.value, mod_revision=sample.revision)
    except ValueEncrypted:
        return True
    except ValueDamaged:
        return False
    return True


def _compare_resources(served: Mapping[str, Tally], recorded: Mapping[str, Tally]) -> list[str]:
    problems = []
    for resource in sorted(served.keys() | recorded.keys()):
        ours, theirs = recorded.get(resource), served.get(resource)
        if ours == theirs:
            continue
        counts = theirs.count if theirs else 0, ours.count if ours else 0
        if counts[0] != counts[1]:
            problems.append(f"{resource}: the restored etcd serves {counts[0]} keys, the snapshot holds {counts[1]}")
        else:
            problems.append(f"{resource}: {counts[0]} keys on both sides, but different values or revisions")
    more = len(problems) - SHOWN_RESOURCES
    return problems[:SHOWN_RESOURCES] + ([f"... and {more} more resources differ"] if more > 0 else [])
