"""Whether what was chosen makes sense for this backup and cluster."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from etcdkeep.restore.judge.finding import Finding, final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.config.models import Cluster
    from etcdkeep.restore.options import Options
    from etcdkeep.sets.manifest import Manifest


def judge_choice(cluster: Cluster, manifest: Manifest, options: Options) -> Iterator[Finding]:
    """Yield why nothing can be planned from this choice."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,50}", options.run, re.IGNORECASE):
        yield final(f"run {options.run!r} is not a name for a folder and a pod; use letters, digits and dashes only")
    if not options.what:
        yield final("nothing is selected to restore")
    if manifest.cluster != cluster.name:
        yield final(f"the backup is of cluster {manifest.cluster!r}, not of {cluster.name!r}")
    if manifest.profile != cluster.profile:
        yield final(f"the backup is of a {manifest.profile} cluster, the configuration says {cluster.profile}")
    if {"pki", "config"} & set(options.what) and "etcd" not in options.what and not cluster.control_plane.has_nodes:
        yield final("a kubeception cluster has no PKI of its own to restore")
    if "etcd" in options.what and manifest.artifact("etcd") is None:
        yield final("the backup holds no snapshot of etcd; choose another set")
