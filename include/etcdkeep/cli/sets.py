"""``list``, ``show``, ``verify``, ``unseal``: the backup sets of a repository."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from etcdkeep.cli import exit_code
from etcdkeep.cli.common import (
    IDENTITY_VARIABLE,
    find_set,
    identities,
    manifest_of,
    open_cluster,
    private_directory,
)
from etcdkeep.cli.output import age, json_option, print_json, print_table, progress, size
from etcdkeep.cli.say import say
from etcdkeep.config_file import load_config
from etcdkeep.errors import ConfigError, EtcdkeepError, SecretUnavailable
from etcdkeep.plain_text import number, one_line
from etcdkeep.unseal import unseal_set

if TYPE_CHECKING:
    from etcdkeep.repository import BackupSet


REFUSED_SHOWN = 5
COLUMNS = ("cluster", "backup", "taken (UTC)", "age", "revision", "keys", "live", "size", "stored", "levels", "state")


@click.command("list")
@click.argument("cluster", required=False)
@json_option
def list_sets(cluster: str | None, as_json: bool) -> None:
    """List the backups of CLUSTER, or of every configured cluster, in the order in which they were taken."""
    now = datetime.now(UTC)
    found: list[BackupSet] = []
    failures: list[EtcdkeepError] = []
    if cluster:
        found += open_cluster(cluster).repository.sets(cluster)
    else:
        config = load_config()
        for name in config.clusters:
            try:
                found += open_cluster(name).repository.sets(name)
            except EtcdkeepError as err:
                failures.append(err)
        try:
            config.raise_for_problems()
        except ConfigError as err:
            failures.append(err)
    if as_json:
        print_json([_row(each, now) for each in found])
    else:
        print_table(COLUMNS, [_cells(each, now) for each in found])
        _explain(found)
    for failure in failures:
        say(f"error: {failure}", err=True)
    if failures:
        sys.exit(exit_code(failures[0]))


@click.command()
@click.argument("name", metavar="CLUSTER[/ID]")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show one backup: where it is from, what is in it, what verifications said. Without ID: the last good one."""
    _, found = find_set(name)
    manifest = manifest_of(found)
    verifications = [record.model_dump(mode="json") for record in found.verifications]
    if as_json:
        more = {
            "state": found.state,
            "restorable": found.restorable,
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
        "pinned": "yes" if manifest.run.pinned else "no",
        "revision": number(manifest.revision),
        "identity": f"kube-system {manifest.identity.kube_system_uid}, etcd cluster {manifest.identity.etcd_cluster_id}",
        "cluster CA": manifest.identity.ca_sha256 or "-",
        "versions": ", ".join(f"{key} {value}" for key, value in manifest.versions.items()),
        "members": ", ".join(f"{member.name} ({member.problem or 'fit'})" for member in manifest.members),
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
            say(f"{'not restorable' if found.restorable == 'no' else 'not known'}: {one_line(sentence)}")
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
    keys = identities(site)
    if keys is None:
        raise SecretUnavailable(f"{found.name} cannot be opened: set {IDENTITY_VARIABLE} to the age identity file.")
    with private_directory(target) as folder, progress(found.name) as tick:
        unseal_set(site.repository.store, found, manifest, keys, folder, tick)
    for path in sorted(target.iterdir()):
        say(path)


def _explain(found: list[BackupSet]) -> None:
    """Say on standard error why sets have states that the table cannot explain."""
    for each in found:
        if each.doubt:
            say(f"{each.state}: {one_line(each.doubt.sentence)}", err=True)
    refused = [record for each in found for record in each.refused]
    for record in refused[:REFUSED_SHOWN]:
        say(f"{record.word}: {one_line(record.sentence)}", err=True)
    if len(refused) > REFUSED_SHOWN:
        say(f"… and {len(refused) - REFUSED_SHOWN} more records that count as nothing.", err=True)
    if any(record.word == "unsigned" for record in refused):
        say(
            "Records of etcdkeep before 0.2 are not signed. Verify those backups again:\n  python -m etcdkeep verify --all",
            err=True,
        )


def _row(found: BackupSet, now: datetime) -> dict[str, Any]:
    """Return what ``list --json`` prints of a set; its keys are fixed."""
    manifest = found.manifest
    taken_at = found.taken_at
    keys: dict[str, int | None] = {"total_keys": None, "live_keys": None}
    if manifest:
        keys[manifest.snapshot.counted] = manifest.snapshot.total_keys
    for record in found.verifications:
        keys |= {name: value for name in keys if (value := getattr(record, name)) is not None}
    return {
        "cluster": found.cluster,
        "backup_id": found.backup_id,
        "taken_at": taken_at.isoformat(),
        "revision": manifest.revision if manifest else None,
        **keys,
        "size_bytes": manifest.snapshot.size_bytes if manifest else None,
        "levels": list(found.levels),
        "state": found.state,
        "age_s": round((now - taken_at).total_seconds()),
        "restorable": found.restorable,
    }


def _cells(found: BackupSet, now: datetime) -> tuple[str, ...]:
    row = _row(found, now)
    return (
        row["cluster"],
        row["backup_id"],
        row["taken_at"][:19].replace("T", " "),
        age(row["age_s"]),
        *(number(row[key]) for key in ("revision", "total_keys", "live_keys")),
        size(row["size_bytes"]),
        size(found.manifest.stored_bytes if found.manifest else None),
        ", ".join(row["levels"]) or "-",
        found.standing,
    )
