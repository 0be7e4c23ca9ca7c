"""
The plan for a kubeception control plane: etcd members in pods of an admin cluster, their data on claims.

A utility pod beside each member prepares the data while etcd runs; then everything that uses etcd is scaled to zero, the
data are swapped, and everything is scaled back. Three annotations on the StatefulSet say how far it is: from the first on,
data may be swapped; from the second on, the utility pods are no longer needed; from the third on, the restore is over.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace
from datetime import UTC
from typing import TYPE_CHECKING

from etcdkeep.etcd import etcdctl
from etcdkeep.restore.found.nodes import run_base
from etcdkeep.restore.found.pods import (
    CLOSED_ANNOTATION,
    DONE_ANNOTATION,
    RUN_ANNOTATION,
    MemberPod,
    PodFacts,
    hold_annotation,
)
from etcdkeep.restore.found.tools import MemberFlags
from etcdkeep.restore.options import Options, initial_cluster, new_token, revision_bump
from etcdkeep.restore.plan.staged_data import NewData, stage_data
from etcdkeep.restore.plan.staging import StagingSite, Stopped, close_run, open_run, swap
from etcdkeep.restore.plan.utility_pod import CONTAINER, data_owner, utility_name, utility_pod
from etcdkeep.restore.steps import API, ApiCheck, Call, Check, Phase, Place, Plan, Step, in_order

if TYPE_CHECKING:
    from etcdkeep.config.models import Cluster
    from etcdkeep.restore.plan.targets import PodTargets
    from etcdkeep.sets.manifest import Artifact, Manifest

POD_S = 300.0
GONE_S = 180.0
SERVE_S = 300.0
ANSWER_S = 10.0

HELD = "held"

BEGUN = "mark-begun"
SWAPPED = "mark-swapped"


def plan_pods(targets: PodTargets) -> Plan:
    """Plan the restore of all members from the same snapshot, with one new cluster token."""
    cluster, manifest, facts, options = targets.cluster, targets.manifest, targets.facts, targets.options
    bump = revision_bump(manifest, options, facts.revision) if options.bump_revision and facts.tool.bumps else 0
    planner = PodPlanner(cluster, manifest, facts, options, new_token(cluster, options), bump)
    return Plan(
        run=options.run,
        cluster=cluster.name,
        profile=cluster.profile,
        backup_id=manifest.backup_id,
        way="pods",
        what=("etcd",),
        planned_at=options.planned_at.astimezone(UTC).isoformat(),
        expected_revision=manifest.snapshot.revision + bump,
        bump_revision=bump,
        token=planner.token,
        places=tuple(planner.places()),
        words=tuple(planner.words()),
        steps=tuple(planner.steps(targets.snapshot)),
        after_rollback=tuple(planner.after_rollback()),
        independent=False,
    )


@dataclass(frozen=True)
class PodPlanner:
    """Makes the parts of a plan for one kubeception control plane."""

    cluster: Cluster
    manifest: Manifest
    facts: PodFacts
    options: Options
    token: str
    bump: int

    def places(self) -> list[Place]:
        namespace, container = self.facts.namespace, self.cluster.control_plane.container
        places = [Place(API, "api")]
        for member in self.facts.members:
            utility = utility_name(member)
            places.append(
                Place(
                    utility,
                    "pod",
                    f"{namespace}/{utility}/{CONTAINER}",
                    self._site(member).folder,
                    made_by=f"utility.{member.pod}",
                )
            )
            places.append(Place(member.pod, "pod", f"{namespace}/{member.pod}/{container}"))
        return places

    def words(self) -> list[str]:
        facts, snapshot = self.facts, self.manifest.snapshot
        scaled = [*(posixpath.basename(path) for path in facts.clients), facts.statefulset]
        lines = [
            f"Bring etcd's data of cluster {self.cluster.name} back to {self.manifest.taken_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC "
            f"(backup {self.manifest.backup_id}, revision {snapshot.revision}).",
            f"{len(facts.members)} member(s) in namespace {facts.namespace} of the admin cluster: "
            f"{', '.join(member.pod for member in facts.members)}; all from the same snapshot, as a new etcd cluster with token {self.token}.",
            f"A utility pod ({facts.image}) beside each member restores the snapshot into an empty folder and checks it while etcd runs.",
            f"Then {', '.join(scaled)} {'are' if len(scaled) > 1 else 'is'} scaled to zero, the data folders are renamed, and what was scaled is scaled back.",
            f"Nothing is deleted: the old data stays on each claim in {self._site(facts.members[0]).path('old')}.",
        ]
        if self.bump:
            return [
                *lines,
                f"Revisions continue from {snapshot.revision + self.bump}, so that clients do not keep stale caches.",
            ]
        return [
            *lines,
            "Revisions go back to the snapshot's (no bump): the tool cannot raise them, or that was not requested.",
        ]

    def steps(self, snapshot: Artifact) -> list[Step]:
        members = self.facts.members
        steps = [step for member in members for step in (*self._claim(member), *self._data(member, snapshot))]
        steps += self._stop()
        steps.append(self._mark(BEGUN, RUN_ANNOTATION, "record that the swap of data begins"))
        steps += [step for member in members for step in self._swap(member)]
        steps.append(self._mark(SWAPPED, DONE_ANNOTATION, "record that all data is swapped"))
        steps += self._start()
        steps += self._verify()
        steps.append(self._mark("close", CLOSED_ANNOTATION, "record that the restore has ended", phase="close"))
        return list(in_order(steps))

    def after_rollback(self) -> list[Step]:
        """Only what worked before can be expected to work again."""
        if not all(member.healthy for member in self.facts.members):
            return []
        return [self._serves(member, "after-rollback.") for member in self.facts.members]

    def claiming(self, member: MemberPod) -> list[Step]:
        """Return the steps that make a member's claim this restore's: what is to be undone when it is released."""
        return [replace(step, undo_needed_until=()) for step in self._claim(member) if step.reversible]

    # --- phases --------------------------------------------------------------------------------------------------

    def _claim(self, member: MemberPod) -> list[Step]:
        record = f"etcdkeep restore {self.options.run}\ncluster {self.cluster.name}\nbackup {self.manifest.backup_id}\n"
        create = self._pod_step(f"utility.{member.pod}", "stage", member, created=True)
        hold = self._hold(member, "stage", held=True)
        claimed = open_run(self._site(member), self.cluster.name, record, until=SWAPPED)
        return [create, hold, *self._while_held(claimed, hold.name)]

    def _data(self, member: MemberPod, snapshot: Artifact) -> list[Step]:
        facts, revision = self.facts, self.manifest.snapshot.revision + self.bump
        peers = initial_cluster([(each.name, each.peer_urls) for each in facts.members])
        flags = MemberFlags(member.name, member.peer_urls, peers, self.token)
        live = replace(facts.live, owner=data_owner(self.cluster, facts))
        steps = stage_data(self._site(member), NewData(snapshot, facts.tool, flags, revision, self.bump, live))
        return self._while_held(steps, self._hold(member, "stage", held=True).name)

    def _while_held(self, steps: list[Step], hold: str) -> list[Step]:
        return [replace(step, needed_until=(SWAPPED,), undo_needed_until=(hold,)) for step in steps]

    def _stop(self) -> list[Step]:
        facts, steps = self.facts, []
        if facts.budget is not None:
            steps.append(self._budget_step("budget-away", "stop", present=False))
        for path, replicas in facts.clients.items():
            steps.append(self._scale(f"scale-down-{posixpath.basename(path)}", "stop", path, replicas, 0))
        steps.append(self._scale(f"scale-down-{facts.statefulset}", "stop", facts.path, facts.replicas, 0))
        steps += [
            Step(
                f"gone.{member.pod}",
                "stop",
                API,
                f"wait until pod {member.pod} is gone",
                done=ApiCheck(self._pod_path(member.pod), value=False),
                wait_s=GONE_S,
                needed_until=(SWAPPED,),
            )
            for member in facts.members
        ]
        return steps

    def _swap(self, member: MemberPod) -> list[Step]:
        facts, site = self.facts, self._site(member)
        down = (f"scale-down-{facts.statefulset}", f"gone.{member.pod}")
        up_undone = (f"scale-up-{facts.statefulset}", f"ungone.{member.pod}", f"utility-away.{member.pod}")
        live = posixpath.join(facts.data_dir, "member")
        steps = [
            *swap(site, "swap_etcd", "data", live, "member", f"the old data of {member.pod}", Stopped(down, up_undone)),
            close_run(site, "swap_etcd"),
            self._hold(member, "swap_etcd", held=False),
        ]
        return [replace(step, needed_until=(SWAPPED,), undo_needed_until=(BEGUN,)) for step in steps]

    def _start(self) -> list[Step]:
        facts = self.facts
        steps = [
            self._pod_step(f"utility-away.{member.pod}", "start", member, created=False) for member in facts.members
        ]
        steps += [
            Step(
                f"ungone.{member.pod}",
                "start",
                API,
                f"(only on a rollback) wait until pod {member.pod} is gone",
                undone=ApiCheck(self._pod_path(member.pod), value=False),
                wait_s=GONE_S,
                undo_needed_until=(BEGUN,),
            )
            for member in facts.members
        ]
        steps.append(self._scale(f"scale-up-{facts.statefulset}", "start", facts.path, 0, facts.replicas))
        steps += [self._serves(member) for member in facts.members]
        for path, replicas in facts.clients.items():
            steps.append(self._scale(f"scale-up-{posixpath.basename(path)}", "start", path, 0, replicas))
        if facts.budget is not None:
            steps.append(self._budget_step("budget-back", "start", present=True))
        return steps

    def _verify(self) -> list[Step]:
        return [
            Step(
                f"serves-{posixpath.basename(path)}",
                "verify",
                API,
                f"wait until {posixpath.basename(path)} is ready",
                done=ApiCheck(path, "status.readyReplicas", replicas),
                wait_s=SERVE_S,
            )
            for path, replicas in self.facts.clients.items()
        ]

    # --- parts ---------------------------------------------------------------------------------------------------

    def _serves(self, member: MemberPod, prefix: str = "") -> Step:
        health = etcdctl.endpoint_health_argv(self.cluster.control_plane, ANSWER_S)
        words = f"wait until {member.pod} can commit"
        return Step(f"{prefix}etcd-serves.{member.pod}", "start", member.pod, words, done=Check(health), wait_s=SERVE_S)

    def _mark(self, name: str, annotation: str, words: str, phase: Phase = "swap_etcd") -> Step:
        def patch(value: str | None) -> Call:
            return Call("patch", self.facts.path, {"metadata": {"annotations": {annotation: value}}})

        marked = f"metadata.annotations.{annotation}"
        return Step(
            name,
            phase,
            API,
            words,
            patch(self.options.run),
            ApiCheck(self.facts.path, marked, self.options.run),
            patch(None),
            ApiCheck(self.facts.path, marked, self.options.run, "other"),
            needed_until=(SWAPPED,) if name == BEGUN else (),
        )

    def _hold(self, member: MemberPod, phase: Phase, *, held: bool) -> Step:
        """
        Note which claims this restore holds, where that can be asked without a pod that has the claim.

        So a lost utility pod is made again to release its claim, and none is made for a claim that is released.
        """
        annotation = hold_annotation(member.pod, self.options.run)

        def patch(value: str | None) -> Call:
            return Call("patch", self.facts.path, {"metadata": {"annotations": {annotation: value}}})

        field = f"metadata.annotations.{annotation}"
        on = patch(HELD), ApiCheck(self.facts.path, field, HELD)
        off = patch(None), ApiCheck(self.facts.path, field, HELD, "other")
        return Step(
            f"{'hold' if held else 'release'}.{member.pod}",
            phase,
            API,
            f"record that this restore {'holds' if held else 'has released'} the claim of {member.pod}",
            *(*on, *off) if held else (*off, *on),
            needed_until=(SWAPPED,),
            undo_needed_until=() if held else (BEGUN,),
        )

    def _scale(self, name: str, phase: Phase, path: str, before: int, after: int) -> Step:
        def to(replicas: int) -> Call:
            return Call("patch", path, {"spec": {"replicas": replicas}})

        def check(replicas: int) -> ApiCheck:
            return ApiCheck(path, "spec.replicas" if replicas else "status.replicas", replicas)

        return Step(
            name,
            phase,
            API,
            f"scale {posixpath.basename(path)} to {after}",
            to(after),
            check(after),
            to(before),
            check(before),
            wait_s=GONE_S,
            needed_until=(SWAPPED,) if phase == "stop" else (),
            undo_needed_until=(BEGUN,) if phase == "start" else (),
            always=phase == "stop",
        )

    def _budget_step(self, name: str, phase: Phase, *, present: bool) -> Step:
        metadata = {"name": posixpath.basename(self.facts.budget_path), "namespace": self.facts.namespace}
        saved = dict(self.facts.budget or {})
        body = {
            "apiVersion": saved.get("apiVersion", "policy/v1"),
            "kind": "PodDisruptionBudget",
            "metadata": metadata
            | {key: saved["metadata"][key] for key in ("labels", "annotations") if key in saved["metadata"]},
            "spec": saved["spec"],
        }
        create = Call("create", posixpath.dirname(self.facts.budget_path), body)
        delete = Call("delete", self.facts.budget_path)
        there, away = ApiCheck(self.facts.budget_path), ApiCheck(self.facts.budget_path, value=False)
        words = f"{'restore' if present else 'remove'} PodDisruptionBudget {metadata['name']}"
        forward = (create, there, delete, away) if present else (delete, away, create, there)
        return Step(
            name,
            phase,
            API,
            words,
            *forward,
            wait_s=GONE_S,
            needed_until=() if present else (SWAPPED,),
            undo_needed_until=(BEGUN,) if present else (),
        )

    def _pod_step(self, name: str, phase: Phase, member: MemberPod, *, created: bool) -> Step:
        pod = utility_name(member)
        path = self._pod_path(pod)
        create = Call("create", posixpath.dirname(path), utility_pod(self.cluster, self.facts, member))
        delete = Call("delete", path)
        runs, away = ApiCheck(path, "status.phase", "Running"), ApiCheck(path, value=False)
        forward = (create, runs, delete, away) if created else (delete, away, create, runs)
        return Step(
            name,
            phase,
            API,
            f"{'start' if created else 'remove'} utility pod {pod} beside {member.pod}",
            *forward,
            wait_s=POD_S,
            needed_until=(SWAPPED,) if created else (),
            undo_needed_until=() if created else (BEGUN,),
        )

    def _site(self, member: MemberPod) -> StagingSite:
        base = run_base(self.facts.data_dir, (self.facts.mount,))
        return StagingSite(utility_name(member), member.pod, base, self.options.run, ())

    def _pod_path(self, pod: str) -> str:
        return f"/api/v1/namespaces/{self.facts.namespace}/pods/{pod}"
