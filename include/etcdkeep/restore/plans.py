"""One door to planning, whatever the cluster is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcdkeep.restore.node_plan import plan_nodes
from etcdkeep.restore.pod_facts import PodFacts
from etcdkeep.restore.pod_plan import plan_pods

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etcdkeep.config import Cluster
    from etcdkeep.manifest import Manifest
    from etcdkeep.restore.facts import NodeFacts
    from etcdkeep.restore.planning import Options
    from etcdkeep.restore.steps import Plan


def plan_restore(cluster: Cluster, manifest: Manifest, facts: Sequence[NodeFacts] | PodFacts, options: Options) -> Plan:
    """
    Plan a restore; the same arguments give the same plan.

    :param facts: Of every control-plane node, or of the kubeception control plane's pods.
    :raises RestoreRefused: with every reason why it cannot be planned.
    """
    if isinstance(facts, PodFacts):
        return plan_pods(cluster, manifest, facts, options)
    return plan_nodes(cluster, manifest, facts, options)
