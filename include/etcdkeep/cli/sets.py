"""``show`` and ``unseal``: one backup set of a repository."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from etcdkeep.cli.common import (
    IDENTITY_VARIABLE,
    find_set,
    private_directory,
    repository_option,
)
from etcdkeep.cli.output import json_option, print_json, print_table, progress, size
from etcdkeep.errors import SecretUnavailable
from etcdkeep.plain_text import number, one_line
from etcdkeep.say import say
from etcdkeep.sets.choosing import manifest_of
from etcdkeep.sets.opening import unseal_set

if TYPE_CHECKING:
    from etcdkeep.config.models import Cluster
    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.sets.manifest import Manifest


@click.command()
@click.argument("name", metavar="CLUSTER[/ID]")
@repository_option
@json_option
def show(name: str, as_json: bool) -> None:
    """Show one backup: where it is from, what is in it, what verifications said. Without ID: the last good one."""
    site, found = find_set(name)
    manifest = manifest_of(found)
    verifications = [record.model_dump(mode="json") for record in found.verifications]
    if as_json:
        more = {
            "state": found.state,
            "restorable": found.restorable,
            "pinned": found.pinned(datetime.now(UTC)) is not None,
            "pins": [{"at": each.at, **each.body.model_dump(mode="json")} for each in found.pins],
            "missing": list(found.missing),
            "refused": [{"name": each.name, "word": each.word, "why": each.sentence} for each in found.refused],
            "verifications": verifications,
        }
        print_json({**manifest.model_dump(mode="json"), **more})
        return
    facts = {
        "backup": found.name,
        "state": found.standing,
        "restorable": found.restorable or "-",
        "taken": f"{manifest.taken_at:%Y-%m-%d %H:%M:%S} UTC by {manifest.run.dag_id} {manifest.run.run_id}",
        "reason": manifest.run.reason or "-",
        "pinned": _pinned(found),
        "revision": number(manifest.revision),
        "identity": _identity(manifest, site.cluster),
        "cluster CA": manifest.identity.ca_sha256 or "-",
        "versions": ", ".join(f"{key} {value}" for key, value in manifest.versions.items()),
        "members": ", ".join(f"{member.name} ({member.problem or 'usable'})" for member in manifest.members),
        "signed by": manifest.signing_key,
    }
    for key, value in facts.items():
        say(f"{key:<12} {one_line(value)}")
    for note in manifest.notes:
        say(f"{'note':<12} {one_line(note)}")
    say()
    artifacts = [
        (item.name, size(item.plaintext.size_bytes), size(item.stored.size_bytes), item.plaintext.sha256)
        for item in manifest.artifacts
    ]
    print_table(("artifact", "plain", "stored", "SHA-256 of the plaintext"), artifacts)
    say()
    if found.rehearsal:
        for sentence in found.rehearsal.body.reasons:
            say(f"{'not restorable' if found.restorable == 'no' else 'unknown'}: {one_line(sentence)}")
    for sentence in found.missing:
        say(f"bad: {one_line(sentence)}")
    for refused in found.refused:
        say(f"{refused.word}: {one_line(refused.sentence)}")
    for record in found.verifications:
        say(
            f"{record.at:%Y-%m-%d %H:%M:%S} UTC  {'ok' if record.ok else 'BAD'}  {', '.join(record.levels) or 'no level'}"
        )
        for sentence in (*record.problems, *record.warnings):
            say(f"    {one_line(sentence)}")


@click.command()
@click.argument("name", metavar="CLUSTER[/ID]")
@repository_option
@click.option(
    "--to",
    "target",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="New or empty folder for the plain files.",
)
def unseal(name: str, target: Path) -> None:
    """
    Open a backup into plain files: etcd.db, control-plane/ and control-plane.tar, access/, manifest.json. They hold
    private keys: keep the folder safe.
    """
    site, found = find_set(name)
    manifest = manifest_of(found)
    keys = site.identities()
    if keys is None:
        raise SecretUnavailable(f"{found.name} cannot be opened: set {IDENTITY_VARIABLE} to the age identity file.")
    with private_directory(target) as folder, progress(found.name) as tick:
        unseal_set(site.repository.store, found, manifest, keys, folder, tick)
    for path in sorted(target.iterdir()):
        say(path)


def _identity(manifest: Manifest, cluster: Cluster) -> str:
    """Return what a restore compares. A control plane in pods is told by its namespace: the API that was asked is the admin cluster's."""
    identity = manifest.identity
    kube_system, etcd = f"UID of kube-system {identity.kube_system_uid}", f"etcd cluster id {identity.etcd_cluster_id}"
    if cluster.control_plane.has_nodes:
        return f"{kube_system}, {etcd}"
    return f"UID of namespace {cluster.namespace} {identity.namespace_uid}, {etcd}; of its admin cluster: {kube_system}"


def _pinned(found: BackupSet) -> str:
    reason = found.pinned(datetime.now(UTC))
    if reason is None:
        return "no"
    by = max(found.pins, key=lambda record: record.at).body.by if found.pins else "the form of the backup"
    return f"yes, by {by or 'somebody'}: {reason}"
