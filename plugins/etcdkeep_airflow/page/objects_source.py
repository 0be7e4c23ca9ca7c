"""
What the page asks of indexes, with the one private key that an API server may hold: it opens these and nothing else.

Catalogs, comparisons and histories are made in the background and kept; a backup does not change, so they are made again seldom.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from etcdkeep.errors import NotFound, SecretUnavailable
from etcdkeep.objects.catalog import Catalog, open_catalog
from etcdkeep.objects.changes import SetChanges, changes_between, changes_since_previous
from etcdkeep.objects.nights import nightly_history
from etcdkeep.plain_text import one_line
from etcdkeep.site.site import Site
from etcdkeep_airflow.hooks import ConnectionCredentials, read_airflows_database
from etcdkeep_airflow.page.readings import Readings
from etcdkeep_airflow.page.source import RepositoryCredentials

if TYPE_CHECKING:
    from etcdkeep.config.access import SecretRef
    from etcdkeep.config.models import Cluster
    from etcdkeep.objects.nights import NightlyHistory
    from etcdkeep.sealing.age_keys import Identity
    from etcdkeep_airflow.page.source import Source

FRESH_S = 300.0
CATALOGS, CHANGES, HISTORIES = 4, 4, 64
"""How many are kept. A catalog of 200,000 objects takes 13 MiB; a comparison as much as differs."""


class IndexCredentials(RepositoryCredentials):
    """
    The rights in buckets, and the one key that opens indexes.

    :param identity: Of the cluster; nothing else is read.
    """

    def __init__(self, identity: SecretRef | None) -> None:
        super().__init__()
        self._identity = identity

    def secret(self, ref: SecretRef) -> bytes:  # type: ignore[override]
        if self._identity is None or ref != self._identity:
            return super().secret(ref)
        return ConnectionCredentials.secret(self, ref)


class ObjectsSource:
    """
    Objects of backups, read in the background.

    :param source: Knows the configuration.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.catalogs: Readings[Catalog] = Readings(
            self._catalog, self._place, source.pool, keep=CATALOGS, fresh_s=FRESH_S, settings=source.entry
        )
        self.changes: Readings[SetChanges] = Readings(
            self._changes, self._place, source.pool, keep=CHANGES, fresh_s=FRESH_S, settings=source.entry
        )
        self.histories: Readings[NightlyHistory] = Readings(
            self._history, self._place, source.pool, keep=HISTORIES, fresh_s=FRESH_S, settings=source.entry
        )

    def has_key(self, cluster: str) -> bool:
        """Say whether the configuration names a key for indexes."""
        found = self._source.configured().clusters.get(cluster)
        return found is not None and found.index_identity is not None

    def _catalog(self, key: str) -> Catalog:
        site, identities = self._opened(key)
        return open_catalog(site.repository.store, site.repository.get(*key.split("/")), identities, index_only=True)

    def _changes(self, key: str) -> SetChanges:
        """Compare the backup ``cluster/id`` with the good one before, or ``cluster/id/id`` with the second id."""
        site, identities = self._opened(key)
        cluster, backup_id, *before = key.split("/")
        if not before:
            return changes_since_previous(site.repository, cluster, identities, backup_id, index_only=True)
        old, new = (site.repository.get(cluster, each) for each in (before[0], backup_id))
        return changes_between(site.repository.store, old, new, identities, index_only=True)

    def _history(self, key: str) -> NightlyHistory:
        site, identities = self._opened(key)
        cluster, _, asked = key.partition("/")
        kind, namespace, name = json.loads(asked)
        return nightly_history(site.repository, cluster, identities, kind, namespace, name, index_only=True)

    def _opened(self, key: str) -> tuple[Site, list[Identity]]:
        read_airflows_database()
        cluster = self._cluster(key.partition("/")[0])
        site = Site(cluster, IndexCredentials(cluster.index_identity))
        identities = site.index_identities()
        if identities is None:
            raise SecretUnavailable(f"cluster {cluster.name!r} has no index_identity.")
        return site, identities

    def _cluster(self, name: str) -> Cluster:
        found = self._source.configured().clusters.get(name)
        if found is None:
            raise NotFound(f"cluster {name!r} is not in the configuration.")
        return found

    def _place(self, key: str) -> str:
        cluster = self._source.configured().clusters.get(key.partition("/")[0])
        return cluster.repository if cluster else ""


def history_key(cluster: str, kind: str, namespace: str, name: str) -> str:
    """Return the key of a history."""
    return f"{cluster}/{json.dumps([kind, namespace, name])}"


def plain(document: Any) -> Any:
    """Return JSON with every text as one harmless line: names are what somebody in a cluster wrote."""
    if isinstance(document, dict):
        return {name: plain(value) for name, value in document.items()}
    if isinstance(document, list):
        return [plain(each) for each in document]
    return one_line(document) if isinstance(document, str) else document
