"""
What a person chooses, and the numbers and names of a plan that follow from it. Pure.

What each kind of control plane needs is in :mod:`node_plan` (static pods on nodes) and :mod:`pod_plan` (kubeception).
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etcdkeep.config.models import Cluster
    from etcdkeep.sets.manifest import Manifest

SNAPSHOT_FILE = "etcd.db"
SEALED_SUFFIX = ".zst.age"
"""An artifact's plaintext has the artifact's name without it: what ``age -d | zstd -d`` would be told to write."""

BUMP_BASE = 1_000_000_000
BUMP_PER_S = 20_000
"""More writes in a second than etcd can take: so no watcher has seen a revision that the restored etcd will give out again."""

What = Literal["etcd", "pki", "config"]
"""`config`: the files beside the PKI that the API server names; `pki` includes them, as far as they fit what stays."""


@dataclass(frozen=True)
class Options:
    """
    What the person who restores has chosen.

    :param run: Names the restore, such as ``restore-20261123T041500Z-1f0c9a3e``; the same in every try.
    :param planned_at: Aware; part of the plan, so that planning anew gives the same plan.
    :param way: How the control plane is stopped; kubeception clusters have their own.
    """

    run: str
    planned_at: datetime
    what: tuple[What, ...] = ("etcd", "pki")
    way: Literal["kubelet", "manifests"] = "kubelet"
    bump_revision: bool = True


def not_put_back(cluster: Cluster, what: Sequence[What]) -> tuple[str, ...]:
    """Return the configured files and folders that travel in the set, and that a restore leaves as the node has them."""
    layout = cluster.control_plane
    paths = dict.fromkeys(posixpath.normpath(path) for path in (*cluster.extra_paths, *layout.optional_paths))
    pki = posixpath.normpath(layout.pki_dir)
    return tuple(path for path in paths if "pki" not in what or not (path == pki or path.startswith(f"{pki}/")))


def revision_bump(manifest: Manifest, options: Options, live_revision: int | None) -> int:
    """
    Say by how much the restored etcd's revision is raised above the snapshot's.

    Clients have seen revisions past the snapshot's; one that comes again with other content would corrupt their caches
    (kubernetes #118501). The bump exceeds all that can have been written since, and the live revision where it is known.
    """
    since_s = max(0, int((options.planned_at.astimezone(UTC) - manifest.taken_at.astimezone(UTC)).total_seconds()))
    beyond_live = max(0, (live_revision or 0) - manifest.snapshot.revision)
    return BUMP_BASE + max(since_s * BUMP_PER_S, beyond_live)


def new_token(cluster: Cluster, options: Options) -> str:
    """Return the token of the new logical cluster: one for all members, and another for every restore."""
    return f"etcdkeep-{cluster.name}-{options.run}"


def initial_cluster(members: Sequence[tuple[str, str]]) -> str:
    """
    Return ``name=url,…`` of all members, from each one's own name and peer URLs.

    One member's own ``--initial-cluster`` is not enough: kubeadm writes it when that member joins.
    """
    return ",".join(f"{name}={url}" for name, urls in members for url in urls.split(","))
