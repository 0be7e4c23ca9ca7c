"""The plan for a control plane of static pods on nodes: kubeadm, gke-admin, gke-user-controlplane-v2; one member or three."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace
from datetime import UTC
from typing import TYPE_CHECKING

from etcdkeep.control_plane import SUDO
from etcdkeep.restore import node_commands as commands
from etcdkeep.restore.config_steps import stage_config, swap_config
from etcdkeep.restore.node_targets import TargetNode, usable_nodes
from etcdkeep.restore.owner import proper_owner
from etcdkeep.restore.planning import (
    SEALED_SUFFIX,
    Options,
    check_options,
    initial_cluster,
    new_token,
    not_put_back,
    revision_bump,
)
from etcdkeep.restore.staging import Site, Stopped, bring_archive, close_run, open_run, stage_data, stage_keys, swap
from etcdkeep.restore.steps import Check, Move, Place, Plan, Remedy, Run, Step, in_order
from etcdkeep.restore.tools import MemberFlags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etcdkeep.config import Cluster
    from etcdkeep.manifest import Artifact, Manifest
    from etcdkeep.restore.facts import NodeFacts

WHAT_WORDS = {
    "etcd": "etcd's data",
    "pki": "certificates and keys",
    "config": "the API server's configuration beside them",
}
STOP_S = 60.0
PARKED_S = 150.0
"""Should a container be stopped by the kubelet alone: kube-apiserver's grace of 30 seconds, and the kubelet's own time to let go."""
SERVE_S = 240.0
"""From start to service, a back-off of a crashed container included."""


def plan_nodes(cluster: Cluster, manifest: Manifest, nodes: Sequence[NodeFacts], options: Options) -> Plan:
    """
    Plan the restore of all members from the same snapshot, with one new cluster token.

    :param nodes: Facts of every control-plane node.
    :raises RestoreRefused: when what is known does not suffice; every reason is named.
    """
    check_options(options, manifest, cluster)
    ready = usable_nodes(cluster, manifest, nodes, options)
    live_revision = max((node.status.revision for node in nodes if node.status), default=None)
    can_bump = all(node.tool.bumps for node in ready)
    bump = revision_bump(manifest, options, live_revision) if options.bump_revision and can_bump else 0
    members = initial_cluster([(node.etcd.name, node.etcd.initial_advertise_peer_urls) for node in ready])
    token = new_token(cluster, options)
    planner = _Planner(cluster, manifest, options, members, token, bump)
    revision = manifest.snapshot.revision + bump
    return Plan(
        run=options.run,
        cluster=cluster.name,
        profile=cluster.profile,
        backup_id=manifest.backup_id,
        way=options.way,
        what=options.what,
        planned_at=options.planned_at.astimezone(UTC).isoformat(),
        expected_revision=revision,
        bump_revision=bump,
        token=token,
        places=tuple(Place(node.name, "node", node.facts.address, node.site.folder) for node in ready),
        words=tuple(planner.words(ready)),
        steps=tuple(planner.steps(ready)),
        after_rollback=tuple(planner.after_rollback(ready)),
    )


@dataclass(frozen=True)
class _Planner:
    cluster: Cluster
    manifest: Manifest
    options: Options
    initial_cluster: str
    token: str
    bump: int

    def steps(self, nodes: Sequence[TargetNode]) -> list[Step]:
        phases = (self._stage, self._stop, self._swap_pki, self._swap_etcd, self._start, self._verify)
        steps = [step for phase in phases for node in nodes for step in phase(node)]
        return [*in_order(steps), *(close_run(node.site) for node in nodes)]

    def words(self, nodes: Sequence[TargetNode]) -> list[str]:
        taken = f"{self.manifest.taken_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        what = " and ".join(WHAT_WORDS[part] for part in self.options.what)
        way = {
            "kubelet": "stop the kubelet and the control plane's containers; no manifest is touched",
            "manifests": "park the static pod manifests outside their folder, unchanged, and stop the containers until they are gone",
        }[self.options.way]
        lines = [
            f"Bring {what} of cluster {self.cluster.name} back to {taken} (backup {self.manifest.backup_id}, revision "
            f"{self.manifest.snapshot.revision}).",
            f"{len(nodes)} member(s): {', '.join(f'{node.etcd.name} on {node.facts.address}' for node in nodes)}; all from "
            f"the same snapshot, as a new etcd cluster with token {self.token}.",
            *self._without(nodes),
            *self._replaced(nodes),
            f"Way: {way}.",
            f"Before anything stops, {self._prepared(nodes)}.",
            "Nothing is deleted: the old state stays in "
            + ", ".join(dict.fromkeys(f"{node.name}:{node.site.path('old')}" for node in nodes))
            + ", and rolling the restore back is a rename.",
        ]
        if left_out := not_put_back(self.cluster, self.options.what):
            lines.append(
                f"Not put back: {', '.join(left_out)}. Compare them with the set's (python -m etcdkeep unseal, folder control-plane) and copy what differs."
            )
        if self.bump:
            lines.append(
                f"Revisions go on from {self.manifest.snapshot.revision + self.bump}, past all that clients have seen."
            )
        elif "etcd" in self.options.what:
            lines.append("Revisions go back to the snapshot's (no bump): clients that watch must be restarted by hand.")
        return lines

    def _without(self, nodes: Sequence[TargetNode]) -> list[str]:
        """Name the members of the backup that are left out."""
        places = {node.name for node in nodes}
        left = [member.name for member in self.manifest.members if member.node not in places]
        return (
            [f"Left out: member(s) {', '.join(left)} of the backup; the new etcd cluster has no such member."]
            if left
            else []
        )

    def _replaced(self, nodes: Sequence[TargetNode]) -> list[str]:
        """Name the files beside the PKI that are put back."""
        paths = [f"{node.name}:{file.path}" for node in nodes for file in node.config]
        return [f"Files of the API server that become the backup's: {', '.join(paths)}."] if paths else []

    def after_rollback(self, nodes: Sequence[TargetNode]) -> list[Step]:
        return [
            replace(step, name=f"after-rollback.{step.name}", needed_until=(), remedy=None)
            for node in nodes
            for step in self._served(node)
            if (node.facts.etcd_healthy if step.name.startswith("etcd") else node.facts.ready)
        ]

    def _prepared(self, nodes: Sequence[TargetNode]) -> str:
        if "etcd" not in self.options.what:
            return "the certificates and keys are brought to each node and put together beside the live ones"
        tools = ", ".join(dict.fromkeys(node.tool.words for node in nodes))
        return f"the snapshot is brought to each node, restored into an empty folder with {tools}, and checked"

    # --- phases, per node ----------------------------------------------------------------------------------------

    def _stage(self, node: TargetNode) -> list[Step]:
        facts = node.facts
        record = f"etcdkeep restore {self.options.run}\ncluster {self.cluster.name}\nbackup {self.manifest.backup_id}\nnode {node.name}\n"
        steps = open_run(node.site, self.cluster.name, record, until=node.site.named("close"))
        if "etcd" in self.options.what:
            flags = MemberFlags(node.etcd.name, node.etcd.initial_advertise_peer_urls, self.initial_cluster, self.token)
            live = replace(
                facts.member,
                owner=self._owner(facts),
                mode=facts.member.mode or "700",
                label=facts.member.label or facts.data.label,
            )
            steps += stage_data(node.site, self.manifest, node.tool, flags, self.bump, live)
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
                    f"make etcd's folder {path} anew",
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
            f"etcd's log says 'permission denied': the data's owner is set to {owner}, which etcd runs as",
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

    def _folders(self, site: Site, folders: list[str]) -> Step:
        words = f"make {folders[-1]}, readable by root only"
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
            "stop and remove the containers, and wait until they are really gone, not only the manifests",
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
