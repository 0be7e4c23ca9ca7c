"""The plan for a control plane of static pods on nodes: kubeadm, gke-admin, gke-user-controlplane-v2; one member or three."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace
from datetime import UTC
from typing import TYPE_CHECKING

from etcdkeep.control_plane.node_archive import SUDO
from etcdkeep.restore import node_commands as commands
from etcdkeep.restore.found.owner import proper_owner
from etcdkeep.restore.found.tools import MemberFlags
from etcdkeep.restore.options import SEALED_SUFFIX, Options, initial_cluster, new_token, revision_bump
from etcdkeep.restore.plan.config_steps import stage_config, swap_config
from etcdkeep.restore.plan.node_words import plan_words
from etcdkeep.restore.plan.staged_data import NewData, stage_data
from etcdkeep.restore.plan.staged_keys import bring_archive, stage_keys
from etcdkeep.restore.plan.staging import StagingSite, Stopped, close_run, open_run, swap
from etcdkeep.restore.steps import Check, Move, Place, Plan, Remedy, Run, Step, in_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etcdkeep.config.models import Cluster
    from etcdkeep.restore.found.nodes import NodeFacts
    from etcdkeep.restore.plan.targets import NodeTargets, TargetNode
    from etcdkeep.sets.manifest import Artifact, Manifest

STOP_S = 60.0
PARKED_S = 150.0
"""Should a container be stopped by the kubelet alone: kube-apiserver's grace of 30 seconds, and the kubelet's own time to let go."""
SERVE_S = 240.0
"""From start to service, a back-off of a crashed container included."""


def plan_nodes(targets: NodeTargets) -> Plan:
    """Plan the restore of all members from the same snapshot, with one new cluster token."""
    cluster, manifest, options, nodes = targets.cluster, targets.manifest, targets.options, targets.nodes
    live_revision = max((node.facts.status.revision for node in nodes if node.facts.status), default=None)
    can_bump = all(node.tool and node.tool.bumps for node in nodes)
    bump = revision_bump(manifest, options, live_revision) if options.bump_revision and can_bump else 0
    members = initial_cluster([(node.etcd.name, node.etcd.initial_advertise_peer_urls) for node in nodes])
    token = new_token(cluster, options)
    planner = _Planner(cluster, manifest, options, targets.snapshot, members, token, bump)
    return Plan(
        run=options.run,
        cluster=cluster.name,
        profile=cluster.profile,
        backup_id=manifest.backup_id,
        way=options.way,
        what=options.what,
        planned_at=options.planned_at.astimezone(UTC).isoformat(),
        expected_revision=manifest.snapshot.revision + bump,
        bump_revision=bump,
        token=token,
        places=tuple(Place(node.name, "node", node.facts.address, node.site.folder) for node in nodes),
        words=plan_words(targets, token, bump),
        steps=tuple(planner.steps(nodes)),
        after_rollback=tuple(planner.after_rollback(nodes)),
    )


@dataclass(frozen=True)
class _Planner:
    cluster: Cluster
    manifest: Manifest
    options: Options
    snapshot: Artifact | None
    initial_cluster: str
    token: str
    bump: int

    def steps(self, nodes: Sequence[TargetNode]) -> list[Step]:
        phases = (self._stage, self._stop, self._swap_pki, self._swap_etcd, self._start, self._verify)
        steps = [step for phase in phases for node in nodes for step in phase(node)]
        return [*in_order(steps), *(close_run(node.site) for node in nodes)]

    def after_rollback(self, nodes: Sequence[TargetNode]) -> list[Step]:
        return [
            replace(step, name=f"after-rollback.{step.name}", needed_until=(), remedy=None)
            for node in nodes
            for step in self._served(node)
            if (node.facts.etcd_healthy if step.name.startswith("etcd") else node.facts.ready)
        ]

    # --- phases, per node ----------------------------------------------------------------------------------------

    def _stage(self, node: TargetNode) -> list[Step]:
        facts = node.facts
        record = f"etcdkeep restore {self.options.run}\ncluster {self.cluster.name}\nbackup {self.manifest.backup_id}\nnode {node.name}\n"
        steps = open_run(node.site, self.cluster.name, record, until=node.site.named("close"))
        if self.snapshot is not None and node.tool is not None:
            flags = MemberFlags(node.etcd.name, node.etcd.initial_advertise_peer_urls, self.initial_cluster, self.token)
            live = replace(
                facts.member,
                owner=self._owner(facts),
                mode=facts.member.mode or "700",
                label=facts.member.label or facts.data.label,
            )
            revision = self.manifest.snapshot.revision + self.bump
            steps += stage_data(node.site, NewData(self.snapshot, node.tool, flags, revision, self.bump, live))
        if node.archive is not None:
            if node.keys_site.base != node.site.base:
                folders = [
                    node.keys_site.base,
                    node.keys_site.folder,
                    *(node.keys_site.path(name) for name in ("old", "stray")),
                ]
                steps.append(self._folders(node.keys_site, folders))
            steps += self._stage_archive(node, node.archive)
        if self.options.way == "manifests":
            site = replace(node.keys_site, suffix=f"park.{node.name}")
            steps.append(
                self._folders(
                    site, [posixpath.dirname(posixpath.dirname(node.park)), posixpath.dirname(node.park), node.park]
                )
            )
        return steps

    def _stage_archive(self, node: TargetNode, archive: Artifact) -> list[Step]:
        site, keys, config = node.keys_site, [], []
        if "pki" in self.options.what:
            keys = stage_keys(site, node.facts.pki)
        if node.config:
            config = stage_config(site, node.config)
        until = tuple(steps[-1].name for steps in (keys, config) if steps)
        return [bring_archive(site, archive, archive.name.removesuffix(SEALED_SUFFIX), until), *keys, *config]

    def _stop(self, node: TargetNode) -> list[Step]:
        layout, swaps = self.cluster.control_plane, self._swaps(node)
        if self.options.way == "manifests":
            return [*self._parked(node, swaps), self._gone(node, swaps)]
        kubelet = layout.kubelet
        running = (*SUDO, *kubelet.running)
        was_running = node.facts.kubelet_running
        return [
            Step(
                f"stop-kubelet.{node.name}",
                "stop",
                node.name,
                "stop the kubelet, which would start the containers again",
                Run((*SUDO, *kubelet.stop)),
                Check(running, "failure"),
                Run((*SUDO, *kubelet.start)) if was_running else None,
                Check(running) if was_running else None,
                wait_s=STOP_S,
                needed_until=swaps,
                always=True,
            ),
            Step(
                f"stop-containers.{node.name}",
                "stop",
                node.name,
                f"stop the containers {', '.join(layout.static_pods)}",
                Run(commands.stop_containers_argv(layout)),
                Check(commands.containers_argv(layout, layout.static_pods, "--quiet"), "nothing"),
                wait_s=STOP_S,
                needed_until=swaps,
                requires=(f"stop-kubelet.{node.name}",),
            ),
        ]

    def _swap_pki(self, node: TargetNode) -> list[Step]:
        site, stopped, steps = node.keys_site, self._stopped(node), []
        if "pki" in self.options.what and node.archive is not None:
            live, words = node.facts.pki.path, "the certificates and keys"
            steps = swap(site, "swap_pki", "keys", live, "pki", words, stopped)
        return [*steps, *swap_config(site, node.config, stopped)]

    def _swap_etcd(self, node: TargetNode) -> list[Step]:
        if "etcd" not in self.options.what:
            return []
        steps = []
        if not node.facts.data.exists:
            path = node.facts.data.path
            uid, _, gid = self._owner(node.facts).partition(":")
            steps.append(
                Step(
                    f"data-folder.{node.name}",
                    "swap_etcd",
                    node.name,
                    f"recreate etcd's folder {path}",
                    Run((*SUDO, "install", "-d", "-m", "0700", "-o", uid, "-g", gid, path)),
                    node.site.is_there(path),
                )
            )
        return [
            *steps,
            *swap(
                node.site, "swap_etcd", "data", node.facts.member.path, "member", "the old data", self._stopped(node)
            ),
        ]

    def _start(self, node: TargetNode) -> list[Step]:
        layout, swaps = self.cluster.control_plane, self._swaps(node)
        if self.options.way == "manifests":
            gone = self._gone(node, ())
            back = replace(
                gone,
                name=f"unstarted.{node.name}",
                phase="start",
                words="(only on a rollback) stop the containers",
                action=None,
                done=None,
                undo=gone.action,
                undone=gone.done,
                undo_needed_until=swaps,
            )
            return [back, *self._unparked(node, swaps)]
        kubelet = layout.kubelet
        running = (*SUDO, *kubelet.running)
        return [
            Step(
                f"unstarted.{node.name}",
                "start",
                node.name,
                "(only on a rollback) stop the containers",
                undo=Run(commands.stop_containers_argv(layout)),
                undone=Check(commands.containers_argv(layout, layout.static_pods, "--quiet"), "nothing"),
                wait_s=STOP_S,
                undo_needed_until=swaps,
                undo_requires=(f"start-kubelet.{node.name}",),
            ),
            Step(
                f"start-kubelet.{node.name}",
                "start",
                node.name,
                "start the kubelet, which starts the control plane",
                Run((*SUDO, *kubelet.start)),
                Check(running),
                Run((*SUDO, *kubelet.stop)),
                Check(running, "failure"),
                wait_s=STOP_S,
                undo_needed_until=swaps,
            ),
        ]

    def _verify(self, node: TargetNode) -> list[Step]:
        return self._served(node)

    # --- parts ---------------------------------------------------------------------------------------------------

    def _served(self, node: TargetNode) -> list[Step]:
        data, folder, owner = node.facts.member.path, node.facts.data.path, self._owner(node.facts)
        etcd_says = commands.etcd_log_argv(self.cluster.control_plane)
        names = "|".join(
            ["/member", *(path.replace(".", "[.]") for path in dict.fromkeys((node.etcd.data_dir, folder)))]
        )
        denied = Remedy(
            f"etcd's log says 'permission denied': set the owner of the data to {owner}, which etcd runs as",
            Check(etcd_says, "match", f"({names}).*permission denied"),
            Run((*SUDO, "sh", "-c", 'chown "$1" "$2" && chown -R "$1" "$3"', "sh", owner, folder, data)),
        )
        return [
            Step(
                f"etcd-serves.{node.name}",
                "verify",
                node.name,
                "wait until etcd can commit",
                done=Check(commands.etcd_health_argv(node.etcd, node.apiserver), "match", '"health" ?: ?"?true'),
                wait_s=SERVE_S,
                remedy=denied,
            ),
            Step(
                f"api-serves.{node.name}",
                "verify",
                node.name,
                "wait until the API server is ready",
                done=Check(commands.ready_argv(node.apiserver), "match", "^ok$"),
                wait_s=SERVE_S,
            ),
        ]

    def _folders(self, site: StagingSite, folders: list[str]) -> Step:
        words = f"create {folders[-1]}, readable by root only"
        return Step(
            site.named("folders"),
            "stage",
            site.place,
            words,
            Run(site.argv("mkdir", "-p", "-m", "0700", *folders)),
            site.is_there(folders[-1]),
        )

    def _parked(self, node: TargetNode, swaps: tuple[str, ...]) -> list[Step]:
        return [
            Step(
                f"park-{file}.{node.name}",
                "stop",
                node.name,
                f"park {file} outside the manifests folder, unchanged",
                Move(live, parked, node.site.path("stray", file), SUDO),
                node.site.is_there(parked),
                Move(parked, live, node.site.path("stray", file), SUDO),
                node.site.is_gone(parked),
                needed_until=swaps,
            )
            for file, live, parked in self._manifests(node)
        ]

    def _unparked(self, node: TargetNode, swaps: tuple[str, ...]) -> list[Step]:
        return [
            Step(
                f"unpark-{file}.{node.name}",
                "start",
                node.name,
                f"move {file} back; the kubelet starts it",
                Move(parked, live, node.site.path("stray", file), SUDO),
                node.site.is_gone(parked),
                Move(live, parked, node.site.path("stray", file), SUDO),
                node.site.is_there(parked),
                undo_needed_until=swaps,
            )
            for file, live, parked in self._manifests(node)
        ]

    def _manifests(self, node: TargetNode) -> list[tuple[str, str, str]]:
        files = [f"{name}.yaml" for name in self.cluster.control_plane.static_pods]
        folder = node.facts.manifests_dir.path
        return [
            (file, posixpath.join(folder, file), posixpath.join(node.park, file))
            for file in files
            if file in node.facts.manifests
        ]

    def _gone(self, node: TargetNode, swaps: tuple[str, ...]) -> Step:
        layout = self.cluster.control_plane
        return Step(
            f"gone.{node.name}",
            "stop",
            node.name,
            "stop and remove the containers, and wait until they are gone, not only their manifests",
            Run(commands.remove_containers_argv(layout)),
            Check(commands.gone_argv(layout), "nothing"),
            wait_s=PARKED_S,
            needed_until=swaps,
        )

    def _stopped(self, node: TargetNode) -> Stopped:
        if self.options.way == "kubelet":
            by = (f"stop-kubelet.{node.name}", f"stop-containers.{node.name}")
            return Stopped(by, (f"start-kubelet.{node.name}", f"unstarted.{node.name}"))
        files = [file for file, _, _ in self._manifests(node)]
        parked = tuple(f"park-{file}.{node.name}" for file in files)
        return Stopped(
            (*parked, f"gone.{node.name}"),
            (*(f"unpark-{file}.{node.name}" for file in reversed(files)), f"unstarted.{node.name}"),
        )

    def _swaps(self, node: TargetNode) -> tuple[str, ...]:
        return tuple(step.name for step in (*self._swap_pki(node), *self._swap_etcd(node)))

    def _owner(self, facts: NodeFacts) -> str:
        found = facts.member.owner or facts.data.owner
        return proper_owner(facts.etcd_runs_as, self.cluster.control_plane.data_owner, found) or "0:0"
