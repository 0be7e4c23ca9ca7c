"""
What the page reads, with the rights that an API server needs: the configuration, the repositories, public keys. It asks for no
private key and no kubeconfig, also where a configuration names them.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn

from etcdkeep.config.loading import Config, config_path, load_config
from etcdkeep.errors import ConfigError, NotFound, SecretUnavailable
from etcdkeep.freshness.check import StoredSets, check_stored
from etcdkeep.freshness.glance import JudgedSets, glance
from etcdkeep.freshness.removals import looks_removed, signed_removals
from etcdkeep.overview.backup_set import SetView, set_row, set_view
from etcdkeep.overview.cluster import ClusterView, cluster_view
from etcdkeep.overview.copies import CopyView, copy_view
from etcdkeep.overview.fleet import FleetRow, fleet_row
from etcdkeep.overview.restores import RestoreView, restore_rows, restore_view
from etcdkeep.retention.gather import sets_in_use
from etcdkeep.site.site import Site
from etcdkeep_airflow.hooks import ConnectionCredentials, read_airflows_database
from etcdkeep_airflow.page.pool import Pool
from etcdkeep_airflow.page.readings import Readings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from etcdkeep.config.access import KubeconfigRef, SecretRef
    from etcdkeep.config.models import Cluster
    from etcdkeep.ports import ObjectStore
    from etcdkeep.site.credentials import Credentials

KEPT = 64
"""How many clusters, backups, copies and restores are kept in full."""
OPEN_S = 300.0
"""How long a store stays open."""
_NAMED = re.compile(r"clusters\[\d+\] \((?P<name>[^)]*)\)")


class RepositoryCredentials(ConnectionCredentials):
    """The rights in buckets, from Airflow connections; nothing that opens a backup, signs a record or reaches a cluster."""

    def __init__(self) -> None:
        super().__init__(masks=False)

    def secret(self, ref: SecretRef) -> NoReturn:
        _refuse("private key")

    def ssh_login(self, connection: str) -> NoReturn:
        _refuse("SSH login")

    def kubeconfig(self, ref: KubeconfigRef) -> NoReturn:
        _refuse("kubeconfig")

    def api_client(self, ref: KubeconfigRef) -> NoReturn:
        _refuse("kubeconfig")


def _refuse(what: str) -> NoReturn:
    raise SecretUnavailable(f"Airflow's API server reads repositories only: it is given no {what}.")


@dataclass(frozen=True)
class Configured:
    """
    The configuration as it was read last.

    :param problems: What is wrong with entries, by cluster; empty name for what belongs to none.
    :param error: Why the file as a whole cannot be read now; then the rest is what was read before.
    """

    clusters: Mapping[str, Cluster]
    problems: Mapping[str, str]
    error: str = ""


class _Stores:
    """Stores that are open: to make a bucket's client takes longer than to ask it for the newest backup of a cluster."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str | None], tuple[ObjectStore, float]] = {}

    def get(self, url: str, connection: str | None, opened: Callable[[], ObjectStore]) -> ObjectStore:
        """Return the store, open for a while: then the rights in it are asked for again."""
        now = time.monotonic()
        found = self._open.get((url, connection))
        if found is None or now - found[1] > OPEN_S:
            found = self._open[url, connection] = opened(), now
        return found[0]

    def close(self) -> None:
        self._open = {}


class _Site(Site):
    """A site whose stores others have open too."""

    def __init__(self, cluster: Cluster, credentials: Credentials, stores: _Stores) -> None:
        super().__init__(cluster, credentials)
        self._stores = stores

    def store_at(self, url: str, connection: str | None) -> ObjectStore:
        return self._stores.get(url, connection, lambda: super(_Site, self).store_at(url, connection))


class Source:
    """
    Everything that the page shows, read in the background.

    :param credentials: Rights in the repositories.
    """

    def __init__(self, credentials: Callable[[], Credentials] = RepositoryCredentials) -> None:
        self._credentials = credentials
        self._stamp: tuple[str, int, int] | None = None
        self._configured = Configured({}, {})
        self._error = ""
        self._stores = _Stores()
        self._judged = JudgedSets()
        self.pool = Pool()
        pool, entry = self.pool, self.entry
        self.rows: Readings[FleetRow] = Readings(self._read_row, self._place, pool, keep=100_000, settings=entry)
        self.older: Readings[FleetRow] = Readings(self._read_older, self._place, pool, keep=100_000, settings=entry)
        self.clusters: Readings[ClusterView] = Readings(
            self._read_cluster, self._place, pool, keep=KEPT, settings=entry
        )
        self.sets: Readings[SetView] = Readings(self._read_set, self._place, pool, keep=KEPT, settings=entry)
        self.restores: Readings[RestoreView] = Readings(
            self._read_restore, self._place, pool, keep=KEPT, settings=entry
        )
        self.copies: Readings[CopyView] = Readings(self._read_copy, self._copys_place, pool, keep=KEPT, settings=entry)

    def configured(self) -> Configured:
        """Return the configuration; the file is read again when it has changed."""
        try:
            path = config_path()
            stat = path.stat()
            stamp = (os.fspath(path), stat.st_mtime_ns, stat.st_size)
            if stamp != self._stamp:
                self._stamp, self._error = stamp, ""  # also of a file that cannot be used: it is read once
                self._configured = _configured(load_config(path))
                self._stores.close()
        except (ConfigError, OSError) as err:
            self._error = str(err)
        return replace(self._configured, error=self._error) if self._error else self._configured

    def entry(self, key: str) -> Cluster | None:
        """Return what was read last of the cluster's entry in the configuration; of a key ``cluster/…`` too."""
        return self._configured.clusters.get(key.partition("/")[0])

    def _cluster(self, name: str) -> Cluster:
        found = self.configured().clusters.get(name)
        if found is None:
            raise NotFound(f"cluster {name!r} is not in the configuration.")
        return found

    def _place(self, key: str) -> str:
        cluster = self.configured().clusters.get(key.partition("/")[0])
        return cluster.repository if cluster else ""

    def _copys_place(self, key: str) -> str:
        name, _, number = key.partition("/")
        cluster = self.configured().clusters.get(name)
        return cluster.copies[int(number)].repository if cluster and int(number) < len(cluster.copies) else ""

    def _site(self, key: str) -> Site:
        read_airflows_database()
        return _Site(self._cluster(key.partition("/")[0]), self._credentials(), self._stores)

    def _read_row(self, name: str, *, everything: bool = False) -> FleetRow:
        site, now = self._site(name), datetime.now(UTC)
        found = glance(site.repository, site.cluster, now, self._judged, site.copies, everything=everything)
        return fleet_row(found, now)

    def _read_older(self, name: str) -> FleetRow:
        return self._read_row(name, everything=True)

    def _read_cluster(self, name: str) -> ClusterView:
        site, now = self._site(name), datetime.now(UTC)
        checked = check_stored(site.repository, site.cluster, now, site.copies)
        records = site.repository.records
        in_use, _ = sets_in_use(records, name, now)
        restores, more = restore_rows(records, name)
        stored = checked.stored or StoredSets()
        gone = signed_removals(records, name, {each: stored.removed[each] for each in looks_removed(stored, stored.sets, now)})  # fmt: skip
        view = cluster_view(checked, in_use, restores, now, gone, more)
        if view is None:
            raise NotFound(f"cluster {name!r} was not read.")
        return view

    def _read_copy(self, key: str) -> CopyView:
        site = self._site(key)
        name, _, number = key.partition("/")
        open_copy = dict(enumerate(site.copies.values())).get(int(number))
        if open_copy is None:
            raise NotFound(f"cluster {name!r} has no such copy in the configuration any more.")
        return copy_view(open_copy().each_set(name))

    def _read_set(self, key: str) -> SetView:
        site, now = self._site(key), datetime.now(UTC)
        found = site.repository.get(*key.split("/", 1))
        return set_view(found, site.cluster, set_row(found, now))

    def _read_restore(self, key: str) -> RestoreView:
        site = self._site(key)
        return restore_view(site.repository.records, *key.split("/", 1))


def _configured(config: Config) -> Configured:
    problems: dict[str, str] = {}
    for sentence in config.problems:
        named = _NAMED.match(sentence)
        name = named["name"] if named else ""
        problems[name] = f"{problems[name]}; {sentence}" if name in problems else sentence
    return Configured(config.clusters, problems)
