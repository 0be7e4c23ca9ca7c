"""The steps of a backup as operators: each builds nothing and decides nothing, but calls the domain and returns its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etcdkeep.adapters.stores.opening import transfer
from etcdkeep.backup.cleanup import clean_up
from etcdkeep.backup.copy_out import copy_out
from etcdkeep.backup.discover import discover
from etcdkeep.backup.handover import COPIED, DISCOVERY, NODE_FILES, SAVED
from etcdkeep.backup.node_files import NodeFiles, fetch_node_files
from etcdkeep.backup.publish import compose_manifest, publish, record_attempt
from etcdkeep.backup.snapshot import save_snapshot
from etcdkeep.errors import EtcdkeepError, RecordRefused
from etcdkeep.sealing.signature import public_key_text
from etcdkeep.sets.manifest import BackupRun
from etcdkeep_airflow.operators.base import CLEANUP_COLOR, BackupOperator, filled_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from etcdkeep.backup.discover import Discovery


class DiscoverOperator(BackupOperator):
    """Finds the cluster's etcd members and the one that gives the snapshot."""

    def execute(self, context: Context) -> dict[str, Any]:
        record_attempt(self.site.repository.store, self.cluster, self.backup_id(context), context["run_id"])
        found = discover(self.site.api, self.site.cluster)
        self.log.info(
            "cluster %s: snapshot from %s, %d member(s)", self.cluster, found.candidates[0].pod, len(found.members)
        )
        return self.hand_over(context, DISCOVERY, found)


class SnapshotOperator(BackupOperator):
    """
    Saves a snapshot inside a member's pod.

    :param discovery: What `discover` returned.
    """

    template_fields: Sequence[str] = ("cluster", "repository", "discovery")

    def __init__(self, *, discovery: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.discovery = discovery

    def execute(self, context: Context) -> dict[str, Any]:
        candidates = self.receive(context, DISCOVERY, self.discovery).candidates
        attempt = context["ti"].try_number
        saved = save_snapshot(
            self.site.api, self.site.cluster, candidates, self.backup_id(context), task="snapshot", attempt=attempt
        )
        self.log.info("pod %s: saved %s at revision %d", saved.pod, saved.path, saved.snapshot.revision)
        return self.hand_over(context, SAVED, saved)


class CopyOutOperator(BackupOperator):
    """
    Streams the snapshot out of the pod, sealed, into the spool.

    :param discovery: What `discover` returned.
    :param snapshot: What `snapshot` returned.
    """

    template_fields: Sequence[str] = ("cluster", "repository", "discovery", "snapshot")

    def __init__(self, *, discovery: Any, snapshot: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.discovery = discovery
        self.snapshot = snapshot

    def execute(self, context: Context) -> dict[str, Any]:
        copied = copy_out(
            self.site.api,
            self.site.open_node,
            self.site.cluster,
            self.site.spool(self.backup_id(context)),
            self.receive(context, DISCOVERY, self.discovery),
            self.receive(context, SAVED, self.snapshot),
            attempt=context["ti"].try_number,
        )
        self.log.info(
            "%s: %d bytes sealed to %d",
            copied.artifact.name,
            copied.artifact.plaintext.size_bytes,
            copied.artifact.stored.size_bytes,
        )
        return self.hand_over(context, COPIED, copied)


class FetchPkiOperator(BackupOperator):
    """
    Streams PKI, manifests and access files of the control-plane nodes, sealed, into the spool.

    :param discovery: What `discover` returned.
    """

    template_fields: Sequence[str] = ("cluster", "repository", "discovery")

    def __init__(self, *, discovery: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.discovery = discovery

    def execute(self, context: Context) -> dict[str, Any]:
        files = fetch_node_files(
            self.site.open_node,
            self.site.cluster,
            self.site.spool(self.backup_id(context)),
            self.receive(context, DISCOVERY, self.discovery),
            self.site.access_files(),
        )
        for artifact in files.artifacts:
            self.log.info(
                "%s: %d bytes sealed to %d", artifact.name, artifact.plaintext.size_bytes, artifact.stored.size_bytes
            )
        return self.hand_over(context, NODE_FILES, files)


class UploadOperator(BackupOperator):
    """
    Publishes the set: artifacts, signature, manifest last.

    :param discovery: What `discover` returned.
    :param copied: What `copy_out` returned.
    :param node_files: What `fetch_pki` returned; None for a cluster without nodes of its own.
    """

    template_fields: Sequence[str] = ("cluster", "repository", "discovery", "copied", "node_files")

    def __init__(self, *, discovery: Any, copied: Any, node_files: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.discovery = discovery
        self.copied = copied
        self.node_files = node_files

    def execute(self, context: Context) -> dict[str, Any]:
        site, identifier = self.site, self.backup_id(context)
        signer = site.signer("backup")
        params = filled_in(context)
        manifest = compose_manifest(
            site.cluster,
            identifier,
            BackupRun(
                dag_id=self.dag_id,
                run_id=context["run_id"],
                by_hand=_by_hand(context),
                reason=params.get("reason", ""),
                pinned=params["pin"],
            ),
            self.receive(context, DISCOVERY, self.discovery),
            self.receive(context, COPIED, self.copied),
            self.receive(context, NODE_FILES, self.node_files) if site.cluster.control_plane.has_nodes else NodeFiles(),
            public_key_text(signer.public_key()),
        )
        published = publish(
            site.repository, site.spool(identifier), transfer, manifest, signer, site.cluster.immutable_days
        )
        self.log.info(
            "published %s/%s: revision %d, %d bytes",
            self.cluster,
            identifier,
            published.revision,
            published.stored_bytes,
        )
        return {"backup_id": identifier, "revision": published.revision, "stored_bytes": published.stored_bytes}


class CleanupOperator(BackupOperator):
    """
    Removes what the run left in pod, spool and repository, however it ended; a published set stays.

    :param discovery: What `discover` returned, or None when it failed.
    """

    ui_color = CLEANUP_COLOR
    template_fields: Sequence[str] = ("cluster", "repository", "discovery")

    def __init__(self, *, discovery: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.discovery = discovery

    def execute(self, context: Context) -> dict[str, Any]:
        site, identifier = self.site, self.backup_id(context)
        discovery, refused = None, None
        try:
            discovery = self.receive(context, DISCOVERY, self.discovery) if self.discovery else self._look_again()
        except RecordRefused as err:
            refused = err
        removed = clean_up(
            site.cluster, site.spool(identifier), site.repository.store, discovery, lambda: site.api, site.open_node
        )
        if refused:
            raise refused  # spool and repository are clean; which pods hold a file is not known
        self.log.info(
            "cluster %s: nothing of run %s is left (%d stored object(s) removed)", self.cluster, identifier, removed
        )
        return {"removed_objects": removed}

    def _look_again(self) -> Discovery | None:
        """Find the pods when `discover` handed nothing over: it failed, or somebody emptied its XCom."""
        try:
            return discover(self.site.api, self.site.cluster)
        except EtcdkeepError as err:
            self.log.info("cluster %s: its pods are unknown: %s", self.cluster, err)
            return None


def _by_hand(context: Context) -> bool | None:
    """Say whether a person started the run, whose id may be any; None where the run does not tell."""
    kind = getattr(context["dag_run"], "run_type", None)
    return None if kind is None else kind == "manual"
