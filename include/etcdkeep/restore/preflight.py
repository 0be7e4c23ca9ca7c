"""
Every objection to a restore, all at once, before anything is touched.

Pure: what is known of the set, of the live nodes and of the clock goes in, sentences come out. Nothing here needs the
cluster's API.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from etcdkeep.restore.facts import ACTIVE, LIST
from etcdkeep.restore.node_targets import unsupported_layout
from etcdkeep.restore.tools import best_tool, image_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from etcdkeep.config import Cluster
    from etcdkeep.manifest import Manifest
    from etcdkeep.repository import BackupSet
    from etcdkeep.restore.facts import NodeFacts
    from etcdkeep.restore.planning import Options
    from etcdkeep.restore.pod_facts import PodFacts

SPACE_FACTOR = 2
MEMORY_RESERVE_BYTES = 256 * 2**20
OLD = timedelta(days=7)
EXPIRES_SOON = timedelta(days=30)

LIMITS = (
    "It restores no application data and no PersistentVolumes.",
    "Workloads scheduled after the backup do not come back.",
    "It does not undo a failed upgrade, and does not bring a deleted cluster back.",
    "It is the last resort for a broken cluster: where a quorum of members is healthy, none is needed.",
    "It is not for clusters with *advanced cluster* enabled: those have the vendor's own tool.",
)
"""What the vendor says of its own procedure; shown to the approvers."""


@dataclass(frozen=True)
class Objection:
    """
    One thing that speaks against the restore.

    :param severity: ``stop`` ends the run, ``warning`` and ``note`` are shown to the approvers.
    :param overridable: Whether an approver may have a ``stop`` passed over.
    """

    severity: Literal["stop", "warning", "note"]
    sentence: str
    overridable: bool = True


@dataclass(frozen=True)
class Circumstances:
    """
    What is known beside the nodes.

    :param expires_at: When the first certificate of the set expires; None when it was not looked at.
    :param live_uid: UID of the live cluster's namespace kube-system; None while its API does not answer.
    :param unreachable: Node → why it could not be asked.
    :param running_backup: Run id of a backup of this cluster that is under way.
    :param sealed: Why the set cannot be opened here; None when it can, or when that was not tried.
    :param taken_by: Another restore that has this cluster.
    """

    now: datetime
    expires_at: datetime | None = None
    live_uid: str | None = None
    unreachable: Mapping[str, str] | None = None
    running_backup: str | None = None
    sealed: str | None = None
    taken_by: str | None = None


def preflight(
    cluster: Cluster, found: BackupSet, nodes: Sequence[NodeFacts], options: Options, known: Circumstances
) -> tuple[Objection, ...]:
    """
    Collect every objection to a restore onto nodes, the weightiest first.

    :param nodes: Those that could be asked.
    """
    objections = [*check_set(found, options, known)]
    manifest = found.manifest
    if manifest is not None:
        objections += _identity(cluster, manifest, nodes, known)
        objections += _members(manifest, nodes, known)
        for node in nodes:
            objections += _node(manifest, node, options)
    return by_weight(objections)


def preflight_pods(found: BackupSet, facts: PodFacts, options: Options, known: Circumstances) -> tuple[Objection, ...]:
    """Collect every objection to a restore of a kubeception control plane, the weightiest first."""
    objections = [*check_set(found, options, known)]
    if found.manifest is not None:
        objections += _pods(found.manifest, facts, options)
    return by_weight(objections)


def by_weight(objections: Sequence[Objection]) -> tuple[Objection, ...]:
    """Return what cannot be passed over first, notes last."""
    weight = {"stop": 0, "warning": 1, "note": 2}
    return tuple(sorted(objections, key=lambda objection: (weight[objection.severity], objection.overridable)))


def blocking(objections: Sequence[Objection], *, override: bool = False) -> tuple[Objection, ...]:
    """
    Return the objections for which the restore ends here.

    :param override: Whether an approver has passed over those that may be.
    """
    return tuple(each for each in objections if each.severity == "stop" and not (override and each.overridable))


def check_set(found: BackupSet, options: Options, known: Circumstances) -> Iterator[Objection]:
    """Yield what speaks against the backup set itself."""
    if found.manifest is None or found.problem:
        yield Objection(
            "stop", f"backup {found.name} cannot be trusted: {found.problem or 'it has no manifest'}", overridable=False
        )
        return
    manifest = found.manifest
    if found.state == "bad":
        yield Objection(
            "stop", f"backup {found.name} was verified and found bad: {'; '.join(found.problems)}", overridable=False
        )
    elif found.state == "unverified":
        reached = ", ".join(found.levels) or "none"
        yield Objection("stop", f"backup {found.name} was never fully verified (levels reached: {reached})")
    elif "drill" not in found.levels:
        yield Objection("warning", f"no etcd was ever started from backup {found.name} (no drill)")
    age = known.now - manifest.taken_at
    words = f"the backup is {_words(age)} old: everything written since {manifest.taken_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC will be lost"
    yield Objection("warning" if age > OLD else "note", words)
    yield from _certificates(options, known)
    if known.sealed:
        yield Objection("stop", f"backup {found.name} cannot be opened here: {known.sealed}", overridable=False)
    if known.taken_by:
        words = f"restore {known.taken_by!r} has this cluster: it is under way, or it ended neither done nor taken back"
        yield Objection("stop", f"{words}; clear its task `rollback`, or override this when it was ended by hand")
    if known.running_backup:
        yield Objection(
            "stop", f"backup run {known.running_backup} of this cluster is under way; wait for its end, or stop it"
        )


def _certificates(options: Options, known: Circumstances) -> Iterator[Objection]:
    if "pki" not in options.what or known.expires_at is None:
        return
    when = f"{known.expires_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if known.expires_at <= known.now:
        yield Objection(
            "stop", f"certificates in the backup have expired ({when}); restore etcd alone, or renew them right after"
        )
    elif known.expires_at - known.now < EXPIRES_SOON:
        yield Objection("warning", f"certificates in the backup expire soon ({when})")


def _identity(
    cluster: Cluster, manifest: Manifest, nodes: Sequence[NodeFacts], known: Circumstances
) -> Iterator[Objection]:
    """The wrong-target guard."""
    expected = manifest.identity.ca_sha256
    if manifest.cluster != cluster.name:
        words = f"the backup is of cluster {manifest.cluster!r}, the target is {cluster.name!r}"
        yield Objection("stop", words, overridable=False)
    if known.live_uid and known.live_uid != manifest.identity.kube_system_uid:
        words = f"the live cluster is another one: its kube-system has UID {known.live_uid}, the backup's has {manifest.identity.kube_system_uid}"
        yield Objection("stop", words, overridable=False)
    for node in nodes:
        if node.ca_sha256 and expected and node.ca_sha256 != expected:
            words = f"node {node.node} is of another cluster: its CA has SHA-256 {node.ca_sha256[:16]}…, the backup's has {expected[:16]}…"
            yield Objection("stop", words, overridable=False)
        elif not (node.ca_sha256 and expected):
            where = f"node {node.node}" if expected else "the backup"
            yield Objection(
                "stop",
                f"it cannot be proven that node {node.node} is of the backup's cluster: {where} has no CA certificate",
            )
        if node.status and node.status.cluster_id != manifest.identity.etcd_cluster_id:
            words = f"node {node.node}: etcd's cluster id is {node.status.cluster_id}, at the backup it was {manifest.identity.etcd_cluster_id}"
            yield Objection("note", f"{words}; a restore in between changes it")


def _members(manifest: Manifest, nodes: Sequence[NodeFacts], known: Circumstances) -> Iterator[Objection]:
    for name, reason in (known.unreachable or {}).items():
        yield Objection(
            "stop", f"node {name} cannot be reached, and all members are restored together: {reason}", overridable=False
        )
    names = {member.name for member in manifest.members}
    for node in nodes:
        if node.etcd and node.etcd.name not in names:
            yield Objection(
                "stop",
                f"node {node.node}: its etcd is named {node.etcd.name!r}, the backup knows {', '.join(sorted(names))}",
            )
    healthy = [node.node for node in nodes if node.etcd_healthy]
    if len(healthy) > len(manifest.members) // 2:
        words = f"{len(healthy)} of {len(manifest.members)} member(s) are healthy ({', '.join(healthy)}): no restore is needed"
        yield Objection("stop", f"{words}; it would only take the cluster back in time")


def _node(manifest: Manifest, node: NodeFacts, options: Options) -> Iterator[Objection]:
    where = f"node {node.node}: "

    def stop(words: str) -> Objection:
        return Objection("stop", where + words, overridable=False)

    if node.etcd is None or node.apiserver is None:
        lacks = "; ".join(node.problems) or "the static pod manifests cannot be read"
        yield stop(f"{lacks}. Put the manifests back first: `unseal` gives them as control-plane/manifests")
    yield from (Objection("stop", problem, overridable=False) for problem in unsupported_layout(node, options))
    others = [earlier for earlier in node.earlier if earlier.run != options.run]
    for run in sorted({earlier.run for earlier in others if earlier.state == ACTIVE}):
        folders = ", ".join(earlier.folder for earlier in others if earlier.run == run)
        yield stop(
            f"restore {run!r} is under way or was broken off here ({folders}); finish it or take it back first{_by_hand(manifest, run)}. "
            f"{release_words(manifest.cluster, run)}"
        )
    if over := sorted({earlier.run for earlier in others if earlier.state != ACTIVE}):
        yield Objection(
            "note",
            f"{where}{len(over)} earlier restore(s) left the old state behind: {', '.join(over)} (python -m etcdkeep restore-leftovers)",
        )
    if node.running is None:
        yield stop("crictl is not there or not allowed, and containers are stopped with it (control_plane.crictl)")
    if not node.curl:
        yield stop("curl is not there, and etcd and the API server are asked with it")
    if options.way == "kubelet" and node.kubelet_running is None:
        yield stop(
            "the kubelet cannot be stopped by control_plane.kubelet's commands; correct them, or choose the way `manifests`"
        )
    elif node.kubelet_running is False:
        yield Objection("warning", where + "the kubelet does not run now; it will run after the restore")
    yield from _room(manifest, node)
    yield from _versions(manifest, node, options)


def _by_hand(manifest: Manifest, run: str) -> str:
    return f" (Airflow gone: python -m etcdkeep runbook {manifest.cluster} --begun {run})"


def release_words(cluster: str, run: str) -> str:
    """Return the next step where a restore that ended without an end still holds a place."""
    return (
        f"Clear its task `rollback`; where Airflow no longer has it and nothing was stopped or swapped, release it: "
        f"{LIST} {cluster} --release {run}"
    )


def _pods(manifest: Manifest, facts: PodFacts, options: Options) -> Iterator[Objection]:
    identity, members = manifest.identity, manifest.members
    if facts.kube_system_uid != identity.kube_system_uid:
        words = f"this is another admin cluster: its kube-system has UID {facts.kube_system_uid}, the backup's had {identity.kube_system_uid}"
        yield Objection("stop", words, overridable=False)
    if facts.namespace_uid != identity.namespace_uid:
        words = f"namespace {facts.namespace} is another one: its UID is {facts.namespace_uid}, at the backup it was {identity.namespace_uid}"
        yield Objection("stop", words, overridable=False)
    if facts.unfinished and facts.unfinished != options.run:
        words = f"restore {facts.unfinished!r} is under way or was broken off in {facts.namespace}; finish it or take it back first"
        words += _by_hand(manifest, facts.unfinished)
        yield Objection("stop", words, overridable=False)
    for run, pods in facts.holders.items():
        if run not in (options.run, facts.unfinished):
            words = f"restore {run!r} holds the claim of {', '.join(pods)}, and did not finish. {release_words(manifest.cluster, run)}"
            yield Objection("stop", words, overridable=False)
    if len(facts.members) != len(members):
        yield Objection(
            "stop", f"the backup has {len(members)} member(s), {facts.statefulset} has {len(facts.members)} now"
        )
    healthy = [member.pod for member in facts.members if member.healthy]
    if len(healthy) > len(members) // 2:
        words = f"{len(healthy)} of {len(members)} member(s) are healthy ({', '.join(healthy)}): no restore is needed"
        yield Objection("stop", f"{words}; it would only take the cluster back in time")
    if options.bump_revision and not facts.tool.bumps:
        yield Objection(
            "warning",
            f"{facts.tool.words} cannot raise the revision: clients that watch may keep a wrong cache until they are restarted",
        )


def _room(manifest: Manifest, node: NodeFacts) -> Iterator[Objection]:
    where = f"node {node.node}: "
    artifact = manifest.artifact("etcd")
    size = artifact.plaintext.size_bytes if artifact else 0
    needed = SPACE_FACTOR * size + size
    if node.free_bytes is None:
        yield Objection(
            "warning", f"{where}its free space is not known; {needed} bytes are needed beside {node.data.path}"
        )
    elif node.free_bytes < needed:
        yield Objection(
            "stop",
            f"{where}{node.free_bytes} bytes are free beside {node.data.path}, {needed} are needed (the snapshot and twice its data)",
            overridable=False,
        )
    if node.memory_bytes is not None and node.memory_bytes < size + MEMORY_RESERVE_BYTES:
        yield Objection(
            "warning",
            f"{where}{node.memory_bytes} bytes of memory are available; restoring takes about {size + MEMORY_RESERVE_BYTES}",
        )


def _versions(manifest: Manifest, node: NodeFacts, options: Options) -> Iterator[Objection]:
    where = f"node {node.node}: "
    live = {
        "kubernetes": image_version(node.apiserver.image) if node.apiserver else "",
        "etcd": image_version(node.etcd.image) if node.etcd else "",
    }
    for program, version in live.items():
        then = manifest.versions.get(program, "").lstrip("v")
        if version and then and _minor(version) != _minor(then):
            yield Objection(
                "stop",
                f"{where}{program} is {version} now, at the backup it was {then}; a restore across minor versions may not work",
            )
    if "etcd" not in options.what:
        return
    tool = best_tool(node.tools, live["etcd"] or manifest.versions.get("etcd", ""), bump=options.bump_revision)
    if tool is None:
        words = "neither etcdutl or etcdctl on the node, nor an image with them (control_plane.restore_image)"
        lacks = "; ".join((f"{where}nothing found that can restore: {words}", *node.tool_problems))
        yield Objection("stop", lacks, overridable=False)
    elif options.bump_revision and not tool.bumps:
        yield Objection(
            "warning",
            f"{where}{tool.words} cannot raise the revision: clients that watch may keep a wrong cache until they are restarted",
        )
    if tool and live["etcd"] and tool.version and _minor(tool.version) != _minor(live["etcd"]):
        yield Objection("warning", f"{where}{tool.words} restores for etcd {live['etcd']}")


def _minor(version: str) -> tuple[str, ...]:
    return tuple(version.split(".")[:2])


def _words(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours"
