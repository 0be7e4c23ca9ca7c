"""``verify``: backups read back from the repository and checked."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from etcdkeep.cli.common import (
    IDENTITY_VARIABLE,
    find_set,
    keep_result,
    open_cluster,
    print_findings,
    repository_option,
)
from etcdkeep.cli.output import json_option, print_json, progress
from etcdkeep.config.loading import load_config
from etcdkeep.errors import SecretUnavailable
from etcdkeep.say import say
from etcdkeep.sets.backup_set import ANY, USABLE
from etcdkeep.verify.run import verify_set

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.sets.results import Verification
    from etcdkeep.site.site import Site


@click.command()
@click.argument("name", metavar="CLUSTER[/ID]", required=False)
@click.option("--all", "every", is_flag=True, help="Every backup of CLUSTER, or of all configured clusters.")
@click.option("--no-record", is_flag=True, help="Do not store the result with the set.")
@repository_option
@json_option
def verify(name: str | None, every: bool, no_record: bool, as_json: bool) -> None:
    """
    Read a backup back from the repository and check it, as far as the age identity allows. Without ID: the one taken
    last. The result is signed and stored with the set, where the key for that is here (signing.verify.key).
    """
    if not every and not name:
        raise click.UsageError("Give CLUSTER or CLUSTER/ID, or --all.")
    if every and name and "/" in name:
        raise click.UsageError("--all takes a CLUSTER, no CLUSTER/ID.")
    chosen = _every(name) if every else iter([find_set(str(name), ANY)])
    answers: list[dict[str, Any]] = []
    results: list[Verification] = []
    for site, found in chosen:
        record = _verify(site, found, no_record=no_record)
        results.append(record)
        facts = {"cluster": found.cluster, "backup_id": found.backup_id, "ok": record.ok}
        answers.append({**facts, **record.model_dump(mode="json")})
        if not as_json:
            _tell(found, record)
    if as_json:
        print_json(answers if every else answers[0])
    if any(record.ok and not record.complete for record in results):
        raise SecretUnavailable(
            f"only the stored bytes were compared: set {IDENTITY_VARIABLE} to the age identity file to check what is in them."
        )
    sys.exit(0 if all(record.ok for record in results) else 3)


def _every(cluster: str | None) -> Iterator[tuple[Site, BackupSet]]:
    """Yield the sets whose manifest is believed; of one cluster, or of all."""
    config = load_config()
    for each in [cluster] if cluster else list(config.clusters):
        site = open_cluster(each)
        for found in site.repository.sets(each):
            if found.state in USABLE:
                yield site, found
            else:
                say(f"{found.name}: {found.state}, left alone: {found.problem}", err=True)
    if not cluster:
        config.raise_for_problems()


def _verify(site: Site, found: BackupSet, *, no_record: bool) -> Verification:
    with progress(found.name) as tick:
        record = verify_set(site.repository, site.cluster, found, site.identities(), tick, write_index=not no_record)
    if not no_record:
        keep_result(site, found, record)
    return record


def _tell(found: BackupSet, record: Verification) -> None:
    word = (
        found.doubt.word if found.doubt else "BAD" if record.problems else "good" if record.complete else "not verified"
    )
    say(f"{found.name}: {word}; levels {', '.join(record.levels) or '-'}")
    print_findings(record)
