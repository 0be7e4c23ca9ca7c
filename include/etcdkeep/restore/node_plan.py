"""The plan for a control plane of static pods on nodes: kubeadm, gke-admin, gke-user-controlplane-v2; one member or three."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace
from datetime import UTC
from typing import TYPE_CHECKING

from etcdkeep import naming
from etcdkeep.control_plane import SUDO
from etcdkeep.errors import RestoreRefused
from etcdkeep.restore import node_commands as commands
from etcdkeep.restore.facts import NodeFacts, run_base
from etcdkeep.restore.planning import SEALED_SUFFIX, Options, check_options, initial_cluster, new_token, revision_bump
from etcdkeep.restore.staging import Site, Stopped, close_run, open_run, stage_data, stage_keys, swap
from etcdkeep.restore.steps import Check, Move, Place, Plan, Remedy, Run, Step
from etcdkeep.restore.tools import MemberFlags, Tool, best_tool, image_version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etcdkeep.config import Cluster
    from etcdkeep.manifest import Artifact, Manifest
    from etcdkeep.static_pod import ApiserverStaticPod, EtcdStaticPod

STOP_S = 60.0
PARKED_S = 150.0
"""kube-apiserver's grace of 30 seconds, and the kubelet's own time to let go."""
SERVE_S = 240.0
"""From start to service, a back-off of a crashed container included."""


@dataclass(frozen=True)
class _Node:
    """A node of which all is known that the plan needs."""

    facts: NodeFacts
    etcd: EtcdStaticPod
    apiserver: ApiserverStaticPod
    tool: Tool
    site: Site
    keys_site: Site
    park: str
    archive: Artifact | None

    @property
    def name(self) -> str:
        return self.facts.node


def plan_nodes(cluster: Cluster, manifest: Manifest, nodes: Sequence[NodeFacts], options: Options) -> Plan:
    """
    Plan the restore of all members from the same snapshot, with one new cluster token.

    :param nodes: Facts of every control-plane node.
    :raises RestoreRefused: when what is known does not suffice; every reason is named.
    """
    check_options(options, manifest, cluster)
    ready = _usable(cluster, manifest, nodes, options)
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

    def steps(self, nodes: Sequence[_Node]) -> list[Step]:
        phases = (self._stage, self._stop, self._restore_pki, self._restore_etcd, self._start, self._verify)
        steps = [step for phase in phases for node in nodes for step in phase(node)]
        return [*steps, *(close_run(node.site) for node in nodes)]

    def words(self, nodes: Sequence[_Node]) -> list[str]:
        taken = f"{self.manifest.taken_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        what = " and ".join({"etcd": "etcd's data", "pki": "certificates and keys"}[part] for part in self.options.what)
        way = {
            "kubelet": "stop the kubelet and the control plane's containers; no manifest is touched",
            "manifests": "park the static pod manifests outside their folder, unchanged, until the containers are gone",
        }[self.options.way]
        lines = [
            f"Bring {what} of cluster {self.cluster.name} back to {taken} (backup {self.manifest.backup_id}, revision "
            f"{self.manifest.snapshot.revision}).",
            f"{len(nodes)} member(s): {', '.join(f'{node.etcd.name} on {node.facts.address}' for node in nodes)}; all from "
            f"the same snapshot, as a new etcd cluster with token {self.token}.",
            f"Way: {way}.",
            "Before anything stops, the snapshot is brought to each node, restored into an empty folder and checked.",
            "Nothing is deleted: the old state stays in "
            + ", ".join(dict.fromkeys(f"{node.name}:{node.site.path('old')}" for node in nodes))
            + ", and taking the restore back is a rename.",
        ]
        if self.bump:
            lines.append(
                f"Revisions go on from {self.manifest.snapshot.revision + self.bump}, past all that clients have seen."
            )
        elif "etcd" in self.options.what:
            lines.append("Revisions go back to the snapshot's (no bump): clients that watch must be restarted by hand.")
        return lines

    def after_rollback(self, nodes: Sequence[_Node]) -> list[Step]:
        return [
            replace(step, name=f"after-rollback.{step.name}", needed_until=(), remedy=None)
            for node in nodes
            for step in self._served(node)
            if (node.facts.etcd_healthy if step.name.startswith("etcd") else node.facts.ready)
        ]

    # --- phases, per node ----------------------------------------------------------------------------------------

    def _stage(self, node: _Node) -> list[Step]:
        facts = node.facts
        record = f"etcdkeep restore {self.options.run}\ncluster {self.cluster.name}\nbackup {self.manifest.backup_id}\nnode {node.name}\n"
        steps = open_run(node.site, record, until=node.site.named("close"))
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
            steps += stage_keys(node.keys_site, node.archive, node.archive.name.removesuffix(SEALED_SUFFIX), facts.pki)
        if self.options.way == "manifests":
            site = replace(node.keys_site, suffix=f"park.{node.name}")
            steps.append(
                self._folders(
                    site, [posixpath.dirname(posixpath.dirname(node.park)), posixpath.dirname(node.park), node.park]
                )
            )
        return steps

    def _stop(self, node: _Node) -> list[Step]:
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
            ),
        ]

    def _restore_pki(self, node: _Node) -> list[Step]:
        if node.archive is None:
            return []
        return swap(
            node.keys_site,
            "restore_pki",
            "keys",
            node.facts.pki.path,
            "pki",
            "the certificates and keys",
            self._stopped(node),
        )

    def _restore_etcd(self, node: _Node) -> list[Step]:
        if "etcd" not in self.options.what:
            return []
        steps = []
        if not node.facts.data.exists:
            path = node.facts.data.path
            uid, _, gid = self._owner(node.facts).partition(":")
            steps.append(
                Step(
                    f"data-folder.{node.name}",
                    "restore_etcd",
                    node.name,
                    f"make etcd's folder {path} anew",
                    Run((*SUDO, "install", "-d", "-m", "0700", "-o", uid, "-g", gid, path)),
                    node.site.is_there(path),
                )
            )
        return [
            *steps,
            *swap(
                node.site, "restore_etcd", "data", node.facts.member.path, "member", "the old data", self._stopped(node)
            ),
        ]

    def _start(self, node: _Node) -> list[Step]:
        layout, swaps = self.cluster.control_plane, self._swaps(node)
        if self.options.way == "manifests":
            gone = self._gone(node, ())
            back = replace(
                gone, name=f"unstarted.{node.name}", phase="start", done=None, undone=gone.done, undo_needed_until=swaps
            )
            return [back, *self._unparked(node, swaps)]
        kubelet = layout.kubelet
        running = (*SUDO, *kubelet.running)
        return [
            Step(
                f"unstarted.{node.name}",
                "start",
                node.name,
                "(only when taken back) stop the containers",
                undo=Run(commands.stop_containers_argv(layout)),
                undone=Check(commands.containers_argv(layout, layout.static_pods, "--quiet"), "nothing"),
                wait_s=STOP_S,
                undo_needed_until=swaps,
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

    def _verify(self, node: _Node) -> list[Step]:
        return self._served(node)

    # --- parts ---------------------------------------------------------------------------------------------------

    def _served(self, node: _Node) -> list[Step]:
        data, owner = node.facts.member.path, self._owner(node.facts)
        denied = Remedy(
            f"etcd's log says 'permission denied': the data's owner is set to {owner} again",
            Check(
                commands.etcd_log_argv(self.cluster.control_plane),
                "match",
                f"{posixpath.basename(data)}.*permission denied",
            ),
            Run((*SUDO, "chown", "-R", owner, data)),
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

    def _parked(self, node: _Node, swaps: tuple[str, ...]) -> list[Step]:
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

    def _unparked(self, node: _Node, swaps: tuple[str, ...]) -> list[Step]:
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

    def _manifests(self, node: _Node) -> list[tuple[str, str, str]]:
        files = [f"{name}.yaml" for name in self.cluster.control_plane.static_pods]
        folder = node.facts.manifests_dir.path
        return [
            (file, posixpath.join(folder, file), posixpath.join(node.park, file))
            for file in files
            if file in node.facts.manifests
        ]

    def _gone(self, node: _Node, swaps: tuple[str, ...]) -> Step:
        done = Check(commands.gone_argv(self.cluster.control_plane), "nothing")
        words = "wait until the containers are really gone, not only the manifests"
        return Step(f"gone.{node.name}", "stop", node.name, words, done=done, wait_s=PARKED_S, needed_until=swaps)

    def _stopped(self, node: _Node) -> Stopped:
        if self.options.way == "kubelet":
            by = (f"stop-kubelet.{node.name}", f"stop-containers.{node.name}")
            return Stopped(by, (f"start-kubelet.{node.name}", f"unstarted.{node.name}"))
        files = [file for file, _, _ in self._manifests(node)]
        parked = tuple(f"park-{file}.{node.name}" for file in files)
        return Stopped(
            (*parked, f"gone.{node.name}"),
            (*(f"unpark-{file}.{node.name}" for file in reversed(files)), f"unstarted.{node.name}"),
        )

    def _swaps(self, node: _Node) -> tuple[str, ...]:
        return tuple(step.name for step in (*self._restore_pki(node), *self._restore_etcd(node)))

    def _owner(self, facts: NodeFacts) -> str:
        return facts.member.owner or self.cluster.control_plane.data_owner or facts.data.owner or "0:0"


def _usable(cluster: Cluster, manifest: Manifest, nodes: Sequence[NodeFacts], options: Options) -> list[_Node]:
    """:raises RestoreRefused: with everything that is missing on any node."""
    problems: list[str] = []
    usable = []
    for facts in nodes:
        if facts.etcd is None or facts.apiserver is None:
            problems += [f"node {facts.node}: {problem}" for problem in facts.problems or ("no static pod manifests",)]
            continue
        tool = best_tool(
            facts.tools,
            image_version(facts.etcd.image) or manifest.versions.get("etcd", ""),
            bump=options.bump_revision,
        )
        if tool is None:
            problems.append(
                f"node {facts.node}: no etcdutl or etcdctl that can restore, neither on the node nor in an image there"
            )
            continue
        archive = _archive(manifest, facts.node) if "pki" in options.what else None
        if "pki" in options.what and archive is None:
            problems.append(
                f"the backup holds no certificates and keys of node {facts.node}; restore etcd alone, or choose another set"
            )
        problems += unsupported_layout(facts, options)
        site = Site(facts.node, facts.node, run_base(facts.data.path, facts.mount_points), options.run, SUDO)
        keys_site = replace(site, base=run_base(facts.pki.path, facts.mount_points))
        park = posixpath.join(run_base(facts.manifests_dir.path, facts.mount_points), options.run, "manifests")
        usable.append(_Node(facts, facts.etcd, facts.apiserver, tool, site, keys_site, park, archive))
    if problems:
        raise RestoreRefused(f"the restore of cluster {cluster.name!r} cannot be planned:", tuple(problems))
    return usable


def _archive(manifest: Manifest, node: str) -> Artifact | None:
    found = (artifact for artifact in manifest.artifacts if artifact.kind == naming.CONTROL_PLANE)
    return next((artifact for artifact in found if artifact.node == node), None)


def unsupported_layout(facts: NodeFacts, options: Options) -> list[str]:
    """Say what on a node cannot be replaced by renames alone."""
    problems = []
    if "etcd" in options.what and facts.member.path in facts.mount_points:
        problems.append(f"node {facts.node}: {facts.member.path} is a mount point and cannot be renamed")
    if "etcd" in options.what and facts.etcd and facts.etcd.wal_dir:
        problems.append(
            f"node {facts.node}: etcd keeps its log in {facts.etcd.wal_dir} (--wal-dir), which is not supported"
        )
    if "pki" in options.what and facts.pki.path in facts.mount_points:
        problems.append(
            f"node {facts.node}: {facts.pki.path} is a mount point and cannot be renamed; restore etcd alone"
        )
    if options.way == "manifests" and facts.manifests_dir.path in facts.mount_points:
        problems.append(f"node {facts.node}: {facts.manifests_dir.path} is a mount point; choose the way `kubelet`")
    return problems
