"""
What the approvers of a restore are asked for, and the plan made from it anew.

A proposal holds the plan that people saw and everything that it was made from. Whoever carries it out plans again from
that, with this version's code and this configuration, and goes on only when the very same plan comes out. So what runs as root
on a node is never a string out of a document.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from etcdkeep import __version__
from etcdkeep.approval.answers import AirflowRun, Proposal, page_digest
from etcdkeep.errors import NotApproved
from etcdkeep.records import Kind, Signed
from etcdkeep.restore.form import Form  # noqa: TC001 - a field of the model
from etcdkeep.restore.found.pods import PodFacts
from etcdkeep.restore.judge.judgement import judge_live
from etcdkeep.restore.options import Options
from etcdkeep.restore.plan.any_cluster import plan_restore
from etcdkeep.restore.plan.targets import Facts
from etcdkeep.restore.steps import Plan, parse_plan, without_words
from etcdkeep.sets.manifest import parse_manifest

if TYPE_CHECKING:
    from etcdkeep.config.models import Cluster
    from etcdkeep.sets.backup_set import BackupSet

_FACTS: TypeAdapter[Facts] = TypeAdapter(Facts)
_OPTIONS: TypeAdapter[Options] = TypeAdapter(Options)


class RestoreProposal(Proposal):
    """
    What is proposed.

    :param plan: The plan's JSON.
    :param page: What the approvers are shown, Markdown.
    :param form: What was filled in.
    :param facts: JSON of what was found on the nodes or pods; `options` likewise of what was chosen.
    :param manifest: The backup's manifest, its exact bytes: a rollback needs the plan, and not the set.
    """

    plan: str
    page: str
    form: Form
    facts: str
    options: str
    manifest: str


PROPOSAL = Kind("restore-proposal", "restore", RestoreProposal)


def make_proposal(
    run: AirflowRun,
    plan: Plan,
    page: str,
    form: Form,
    facts: Facts,
    options: Options,
    found: BackupSet,
    requested_by: str,
) -> RestoreProposal:
    """Put together what people are asked to approve."""
    return RestoreProposal(
        run=run,
        backup_id=plan.backup_id,
        plan_sha256=plan.digest,
        page_sha256=page_digest(page),
        requested_by=requested_by,
        plan=plan.to_json(),
        page=page,
        form=form,
        facts=_FACTS.dump_json(_without_environment(facts)).decode(),
        options=_OPTIONS.dump_json(options).decode(),
        manifest=found.manifest_bytes.decode(),
    )


def _without_environment(facts: Facts) -> Facts:
    """Leave out the environment of a pod's containers: no plan needs it, and it may hold secrets."""
    if not isinstance(facts, PodFacts):
        return facts
    containers = [
        {key: value for key, value in container.items() if key not in {"env", "envFrom"}}
        for container in facts.template.get("containers", ())
    ]
    return replace(facts, template={**facts.template, "containers": containers})


def proposed_plan(proposal: Signed[RestoreProposal]) -> Plan:
    """Return the plan as it was shown; for people to read. What is carried out is :func:`plan_anew`."""
    return parse_plan(proposal.body.plan, approved=proposal.body.plan_sha256)


def plan_anew(proposal: Signed[RestoreProposal], cluster: Cluster) -> Plan:
    """
    Plan again from what the proposal was made from.

    :raises NotApproved: when a plan comes out that does something else than the one that people approved.
    """
    body = proposal.body
    approved, plan = proposed_plan(proposal), _plan(body, cluster)
    if plan is None or without_words(plan) != without_words(approved):
        raise NotApproved(
            f"restore {proposal.subject!r} of cluster {proposal.cluster!r} refused: etcdkeep {__version__} with this configuration makes another plan "
            f"than the approved one, which etcdkeep {body.version} made. Nothing was done. Start a new restore. If this one has begun, return to the version and the configuration of that time, or finish it by hand: `python -m etcdkeep runbook {proposal.cluster} "
            f"--begun {proposal.subject}`."
        )
    return plan


def check_same_set(proposal: Signed[RestoreProposal], found: BackupSet) -> None:
    """
    Check that a backup is the one that people approved.

    :raises NotApproved: when it is not, or is not believed any more.
    """
    if found.manifest is None or found.manifest_bytes.decode() != proposal.body.manifest:
        raise NotApproved(
            f"restore {proposal.subject!r} refused: backup {found.name} is not the one that was approved"
            f"{f' ({found.problem})' if found.problem else ''}. Nothing was done. Start a new restore."
        )


def _plan(body: RestoreProposal, cluster: Cluster) -> Plan | None:
    try:
        manifest = parse_manifest(body.backup_id, body.manifest.encode())
        facts, options = _FACTS.validate_json(body.facts), _OPTIONS.validate_json(body.options)
    except ValidationError:
        return None
    targets = judge_live(cluster, manifest, facts, options).targets
    return plan_restore(targets) if targets else None
