"""What a plan for nodes says of itself, for the people who approve it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING

from etcdkeep.restore.options import not_put_back

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.restore.plan.targets import NodeTargets

WHAT_WORDS = {
    "etcd": "etcd's data",
    "pki": "certificates and keys",
    "config": "the API server's configuration beside them",
}
WAY_WORDS = {
    "kubelet": "stop the kubelet and the control plane's containers; no manifest is changed",
    "manifests": "park the static pod manifests outside their folder, unchanged, and stop the containers until they are gone",
}


def plan_words(targets: NodeTargets, token: str, bump_revision: int) -> tuple[str, ...]:
    """
    Return the sentences.

    :param token: Of the new etcd cluster.
    :param bump_revision: By how much the revision is raised; 0 for none.
    """
    return tuple(_Words(targets, token, bump_revision).lines())


@dataclass(frozen=True)
class _Words:
    targets: NodeTargets
    token: str
    bump: int

    def lines(self) -> Iterator[str]:
        cluster, manifest, options = self.targets.cluster, self.targets.manifest, self.targets.options
        nodes, revision = self.targets.nodes, manifest.snapshot.revision
        taken = f"{manifest.taken_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        what = " and ".join(WHAT_WORDS[part] for part in options.what)
        yield f"Bring {what} of cluster {cluster.name} back to {taken} (backup {manifest.backup_id}, revision {revision})."
        yield (
            f"{len(nodes)} member(s): {', '.join(f'{node.etcd.name} on {node.facts.address}' for node in nodes)}; all from "
            f"the same snapshot, as a new etcd cluster with token {self.token}."
        )
        yield from self._without()
        yield from self._replaced()
        yield f"Way: {WAY_WORDS[options.way]}."
        yield f"Before anything stops, {self._prepared()}."
        old = ", ".join(dict.fromkeys(f"{node.name}:{node.site.path('old')}" for node in nodes))
        yield f"Nothing is deleted: the old state stays in {old}, and rolling the restore back is a rename."
        if left_out := not_put_back(cluster, options.what):
            yield f"Not restored, even where the set has them: {', '.join(left_out)}. Compare the node's files with those of the set (python -m etcdkeep unseal, folder control-plane) and copy what differs."
        if self.bump:
            yield f"Revisions continue from {revision + self.bump}, so that clients do not keep stale caches."
        elif "etcd" in options.what:
            yield "Revisions go back to the snapshot's (no bump): clients that watch must be restarted by hand."

    def _without(self) -> Iterator[str]:
        """Name the members of the backup that are left out."""
        places = {node.name for node in self.targets.nodes}
        left = [member.name for member in self.targets.manifest.members if member.node not in places]
        if left:
            yield f"Left out: member(s) {', '.join(left)} of the backup; the new etcd cluster has no such member."

    def _replaced(self) -> Iterator[str]:
        """Name the files beside the PKI that are put back."""
        paths = [f"{node.name}:{file.path}" for node in self.targets.nodes for file in node.config]
        if paths:
            yield f"Files of the API server that are replaced by the backup's: {', '.join(paths)}."

    def _prepared(self) -> str:
        if "etcd" not in self.targets.options.what:
            return "the certificates and keys are copied to each node and prepared beside the live ones"
        tools = ", ".join(dict.fromkeys(node.tool.words for node in self.targets.nodes if node.tool))
        return f"the snapshot is copied to each node, restored into an empty folder with {tools}, and checked"
