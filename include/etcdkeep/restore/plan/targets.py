"""What a plan is made from: judged, complete, so that planning cannot fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from etcdkeep.restore.found.nodes import NodeFacts
from etcdkeep.restore.found.pods import PodFacts

if TYPE_CHECKING:
    from etcdkeep.config.models import Cluster
    from etcdkeep.control_plane.static_pod import ApiserverStaticPod, EtcdStaticPod
    from etcdkeep.restore.found.config_files import ApiserverFile
    from etcdkeep.restore.found.tools import Tool
    from etcdkeep.restore.options import Options
    from etcdkeep.restore.plan.staging import StagingSite
    from etcdkeep.sets.manifest import Artifact, Manifest

Facts = tuple[NodeFacts, ...] | PodFacts
"""What was found of a live control plane: of its nodes that answered, or of its pods in an admin cluster."""


@dataclass(frozen=True)
class TargetNode:
    """
    A node of which all is known that the plan needs.

    :param tool: Restores the snapshot there; None where etcd's data is not restored.
    :param site: Where its data are prepared; `keys_site` its keys.
    :param park: Where its manifests wait, with the way `manifests`.
    :param archive: Its files in the set; None when none of them are restored.
    :param config: The files beside the PKI that are put back.
    """

    facts: NodeFacts
    etcd: EtcdStaticPod
    apiserver: ApiserverStaticPod
    tool: Tool | None
    site: StagingSite
    keys_site: StagingSite
    park: str
    archive: Artifact | None
    config: tuple[ApiserverFile, ...] = ()

    @property
    def name(self) -> str:
        """The node's name."""
        return self.facts.node


@dataclass(frozen=True)
class NodeTargets:
    """
    A control plane of static pods.

    :param snapshot: None where etcd's data is not restored.
    """

    cluster: Cluster
    manifest: Manifest
    options: Options
    snapshot: Artifact | None
    nodes: tuple[TargetNode, ...]


@dataclass(frozen=True)
class PodTargets:
    """A kubeception control plane."""

    cluster: Cluster
    manifest: Manifest
    options: Options
    snapshot: Artifact
    facts: PodFacts


Targets = NodeTargets | PodTargets
