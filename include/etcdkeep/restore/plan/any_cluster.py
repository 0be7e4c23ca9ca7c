"""From targets to a plan, whatever the cluster is made of: ``plan_restore(targets) -> Plan``, a pure function that cannot fail."""

from __future__ import annotations

import posixpath
from dataclasses import replace
from typing import TYPE_CHECKING

from etcdkeep.restore.node_memory import NOTE, mark_line
from etcdkeep.restore.plan.nodes import plan_nodes
from etcdkeep.restore.plan.pods import plan_pods
from etcdkeep.restore.plan.targets import PodTargets
from etcdkeep.restore.steps import Check, Write

if TYPE_CHECKING:
    from etcdkeep.restore.plan.targets import Targets
    from etcdkeep.restore.steps import Plan, Step


def plan_restore(targets: Targets) -> Plan:
    """Plan a restore; the same targets give the same plan."""
    return _marked(plan_pods(targets) if isinstance(targets, PodTargets) else plan_nodes(targets))


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
