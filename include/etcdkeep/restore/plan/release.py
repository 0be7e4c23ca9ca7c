"""The release of claims that an unfinished restore of a kubeception control plane holds: what is left when it cannot be rolled back."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from etcdkeep.errors import RequestRefused
from etcdkeep.restore.found.nodes import LIST
from etcdkeep.restore.plan.pods import PodPlanner
from etcdkeep.restore.steps import Plan

if TYPE_CHECKING:
    from etcdkeep.config.models import Cluster
    from etcdkeep.restore.found.pods import PodFacts
    from etcdkeep.restore.options import Options
    from etcdkeep.sets.manifest import Manifest


def plan_release(cluster: Cluster, manifest: Manifest, facts: PodFacts, options: Options) -> Plan:
    """
    Plan the release of the claims that an unfinished restore holds; rolling this plan back carries it out.

    :param options: Of the restore that holds them; only its name matters.
    :raises RequestRefused: when that restore holds none, or has stopped or swapped something.
    """
    run, pods = options.run, facts.holders.get(options.run, ())
    problems = []
    if not pods:
        problems.append(f"it holds no claim in namespace {facts.namespace}: {LIST} {cluster.name}")
    if facts.unfinished == run:
        problems.append(
            "it has begun to swap data: clear its task `rollback`, or roll it back with its runbook (--begun)"
        )
    elif facts.stopped:
        problems.append(
            f"{', '.join(facts.stopped)} is scaled to zero: clear its task `rollback`, or scale it up first"
        )
    if problems:
        raise RequestRefused(
            f"restore {run!r} of cluster {cluster.name!r} was not released; nothing was changed:", tuple(problems)
        )
    planner = PodPlanner(cluster, manifest, facts, options, "", 0)
    steps = [step for member in facts.members if member.pod in pods for step in planner.claiming(member)]
    return Plan(
        run=run,
        cluster=cluster.name,
        profile=cluster.profile,
        backup_id=manifest.backup_id,
        way="pods",
        what=(),
        planned_at=options.planned_at.astimezone(UTC).isoformat(),
        expected_revision=0,
        bump_revision=0,
        token="",
        places=tuple(planner.places()),
        words=(f"Release the claims of {', '.join(pods)}, which restore {run} holds.",),
        steps=tuple(steps),
        independent=False,
    )
