"""One door to planning, whatever the cluster is made of."""

from __future__ import annotations

import posixpath
from dataclasses import replace
from typing import TYPE_CHECKING

from etcdkeep.restore.node_memory import NOTE, mark_line
from etcdkeep.restore.node_plan import plan_nodes
from etcdkeep.restore.pod_facts import PodFacts
from etcdkeep.restore.pod_plan import plan_pods
from etcdkeep.restore.steps import Check, Write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etcdkeep.config import Cluster
    from etcdkeep.manifest import Manifest
    from etcdkeep.restore.facts import NodeFacts
    from etcdkeep.restore.planning import Options
    from etcdkeep.restore.steps import Plan, Step


def plan_restore(cluster: Cluster, manifest: Manifest, facts: Sequence[NodeFacts] | PodFacts, options: Options) -> Plan:
    """
    Plan a restore; the same arguments give the same plan.

    :param facts: Of every control-plane node, or of the kubeception control plane's pods.
    :raises RestoreRefused: with every reason why it cannot be planned.
    """
    if isinstance(facts, PodFacts):
        return _marked(plan_pods(cluster, manifest, facts, options))
    return _marked(plan_nodes(cluster, manifest, facts, options))


def _marked(plan: Plan) -> Plan:
    """Have the note that the plan leaves at each place name the plan."""
    line = mark_line(plan)

    def mark(step: Step) -> Step:
        action = step.action
        if not isinstance(action, Write) or posixpath.basename(action.path) != NOTE:
            return step
        done = Check((*action.prefix, "cat", action.path), "match", f"^{line}$")
        return replace(step, action=replace(action, text=f"{action.text}{line}\n"), done=done)

    return replace(plan, steps=tuple(mark(step) for step in plan.steps))
