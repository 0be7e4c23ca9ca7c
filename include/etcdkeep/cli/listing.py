"""``list``: the backup sets of a repository, one line each."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from etcdkeep.cli import exit_code
from etcdkeep.cli.common import asked_repository, open_cluster, repository_option
from etcdkeep.cli.output import age, json_option, print_json, print_table, size
from etcdkeep.config.loading import load_config
from etcdkeep.copies.fallback import LOST
from etcdkeep.errors import ConfigError, EtcdkeepError
from etcdkeep.plain_text import number, one_line
from etcdkeep.say import say
from etcdkeep.side_by_side import side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from etcdkeep.records import Refused
    from etcdkeep.sets.backup_set import BackupSet, Doubt
    from etcdkeep.sets.repository import Repository
    from etcdkeep.site.site import Site

    Choose = Callable[[Repository, str], Iterable[BackupSet]]

REFUSED_SHOWN = 5
COLUMNS = ("cluster", "backup", "taken (UTC)", "age", "revision", "keys", "live", "size", "stored", "levels", "state")


@dataclass(frozen=True)
class _Line:
    """
    What is said of one set; the set itself is not kept.

    :param row: For ``--json``; its keys are fixed.
    """

    row: dict[str, Any]
    stored_bytes: int | None
    standing: str
    doubt: Doubt | None
    refused: tuple[Refused, ...]

    @property
    def cells(self) -> tuple[str, ...]:
        row = self.row
        return (
            row["cluster"],
            row["backup_id"],
            row["taken_at"][:19].replace("T", " "),
            age(row["age_s"]),
            *(number(row[key]) for key in ("revision", "total_keys", "live_keys")),
            size(row["size_bytes"]),
            size(self.stored_bytes),
            ", ".join(row["levels"]) or "-",
            f"{self.standing}, pinned" if row["pinned"] else self.standing,
        )


@dataclass(frozen=True)
class _Listing:
    """
    The lines of one cluster.

    :param warnings: Why they are those of a copy.
    :param failure: Why there are none.
    :param read: The repository that was read.
    """

    cluster: str = ""
    read: str = ""
    lines: tuple[_Line, ...] = ()
    warnings: tuple[str, ...] = ()
    failure: EtcdkeepError | None = None


@click.command("list")
@click.argument("cluster", required=False)
@click.option("--all", "everything", is_flag=True, help="Without CLUSTER: every backup of every cluster.")
@repository_option
@json_option
def list_sets(cluster: str | None, everything: bool, as_json: bool) -> None:
    """
    List the backups of CLUSTER in the order in which they were taken; or of every configured cluster the last good one and
    those that are newer.
    """
    choose = _all if cluster or everything else _since_the_last_good
    listings = [_list(choose, datetime.now(UTC), open_cluster(cluster))] if cluster else _of_every_cluster(choose)
    lines = [line for listing in listings for line in listing.lines]
    for warning in (each for listing in listings for each in listing.warnings):
        say(f"warning: {one_line(warning)}", err=True)
    if as_json:
        print_json([line.row for line in lines])
    else:
        if lines:
            print_table(COLUMNS, [line.cells for line in lines])
        _explain(lines)
        for listing in listings:
            if not listing.lines and not listing.failure:
                say(
                    f"{listing.cluster}: no backup in {listing.read}. To take one, trigger backup__{listing.cluster} in Airflow.",
                    err=True,
                )
        if lines and choose is _since_the_last_good:
            say("The last good backup of each cluster, and those that are newer; all of them: --all", err=True)
    failures = [listing.failure for listing in listings if listing.failure]
    if cluster and failures:
        raise failures[0]
    for failure in failures:
        say(f"error: {failure}", err=True)
    if failures:
        sys.exit(exit_code(failures[0]))


def _of_every_cluster(choose: Choose) -> list[_Listing]:
    config = load_config()
    sites, failed = [], []
    for name in config.clusters:
        try:
            sites.append(open_cluster(name))
        except EtcdkeepError as err:
            failed.append(_Listing(failure=err))
    try:
        config.raise_for_problems()
    except ConfigError as err:
        failed.append(_Listing(failure=err))
    return [*side_by_side(partial(_list, choose, datetime.now(UTC)), sites), *failed]


def _all(repository: Repository, cluster: str) -> Iterator[BackupSet]:
    return repository.each_set(cluster)


def _since_the_last_good(repository: Repository, cluster: str) -> Iterator[BackupSet]:
    for found in repository.from_newest(cluster):
        yield found
        if found.state == "good":
            return


def _list(choose: Choose, now: datetime, site: Site) -> _Listing:
    """Return a cluster's lines; where its repository is gone, those of the first copy that can be read, which is said."""
    cluster = site.cluster.name
    try:
        return _Listing(cluster, site.repository.store.url, _lines(choose, site.repository, cluster, now))
    except LOST as err:
        warnings = []
        for url, open_copy in {} if asked_repository() else site.copies.items():
            try:
                copy = open_copy()
                lines = _lines(choose, copy, cluster, now)
            except LOST as also:
                warnings.append(f"{url}: {also}")
                continue
            told = (*warnings, f"{site.cluster.repository}: {err}", f"listing the copy in {url}")
            return _Listing(cluster, copy.store.url, lines, told)
        return _Listing(cluster, warnings=tuple(warnings), failure=err)
    except EtcdkeepError as err:
        return _Listing(failure=err)


def _lines(choose: Choose, repository: Repository, cluster: str, now: datetime) -> tuple[_Line, ...]:
    lines = (_line(found, now) for found in choose(repository, cluster))
    return tuple(sorted(lines, key=lambda line: (line.row["taken_at"], line.row["backup_id"])))


def _line(found: BackupSet, now: datetime) -> _Line:
    manifest = found.manifest
    taken_at = found.taken_at
    keys: dict[str, int | None] = {"total_keys": None, "live_keys": None}
    if manifest:
        keys[manifest.snapshot.counted] = manifest.snapshot.total_keys
    for record in found.verifications:
        keys |= {name: value for name in keys if (value := getattr(record, name)) is not None}
    row = {
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
        "pinned": found.pinned(now) is not None,
    }
    return _Line(row, manifest.stored_bytes if manifest else None, found.standing, found.doubt, found.refused)


def _explain(lines: list[_Line]) -> None:
    """Say on standard error why sets have states that the table cannot explain."""
    for line in lines:
        if line.doubt:
            say(f"{line.doubt.word}: {one_line(line.doubt.sentence)}", err=True)
    refused = [record for line in lines for record in line.refused]
    for record in refused[:REFUSED_SHOWN]:
        say(f"{record.word}: {one_line(record.sentence)}", err=True)
    if len(refused) > REFUSED_SHOWN:
        say(f"… and {len(refused) - REFUSED_SHOWN} more records that are ignored.", err=True)
    if any(record.word == "unsigned" for record in refused):
        say(
            "Records of etcdkeep before 0.2 are not signed. Verify those backups again:\n  python -m etcdkeep verify --all",
            err=True,
        )
