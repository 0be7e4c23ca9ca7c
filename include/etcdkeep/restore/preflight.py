"""
Every objection to a restore, all at once, before anything is touched.

Pure: what is known of the set, of the live nodes and of the clock goes in, sentences come out. Nothing here needs the
cluster's API.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from etcdkeep.naming import CONTROL_PLANE
from etcdkeep.restore.config_files import put_back
from etcdkeep.restore.facts import ACTIVE, LIST
from etcdkeep.restore.members import doubtful
from etcdkeep.restore.node_targets import unsupported_layout
from etcdkeep.restore.tools import best_tool, image_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from etcdkeep.config import Cluster
    from etcdkeep.manifest import Manifest
    from etcdkeep.repository import BackupSet
    from etcdkeep.restore.config_files import ArchivedFile
    from etcdkeep.restore.facts import NodeFacts
    from etcdkeep.restore.planning import Options
    from etcdkeep.restore.pod_facts import PodFacts

SPACE_FACTOR = 2
WAL_BYTES = 64 * 2**20
"""What etcd preallocates for the write-ahead log of a new member."""
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
    :param topic: ``healthy``: no restore is needed; ``unasked``: something could not be asked from here, so that the
        answer is not known.
    """

    severity: Literal["stop", "warning", "note"]
    sentence: str
    overridable: bool = True
    topic: Literal["", "healthy", "unasked"] = ""


@dataclass(frozen=True)
class Circumstances:
    """
    What is known beside the nodes.

    :param expires_at: When the first certificate of the set expires; None when it was not looked at.
    :param live_uid: UID of the live cluster's namespace kube-system; None while its API does not answer.
    :param unreachable: Node → why there is no connection to it.
    :param unasked: Node → why it runs none of our commands.
    :param left_out: Member of the backup that cannot be restored and may be left out → why.
    :param running_backup: Run id of a backup of this cluster that is under way.
    :param sealed: Why the set cannot be opened here; None when it can, or when that was not tried.
    :param archived: Node → what its archive holds beside the PKI; None when it was not read.
    :param locked_by: Another restore that has locked this cluster.
    """

    now: datetime
    expires_at: datetime | None = None
    live_uid: str | None = None
    unreachable: Mapping[str, str] | None = None
    unasked: Mapping[str, str] | None = None
    left_out: Mapping[str, str] | None = None
    running_backup: str | None = None
    sealed: str | None = None
    locked_by: str | None = None
    archived: Mapping[str, Mapping[str, ArchivedFile]] | None = None


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
    manifest = found.manifest
    if manifest is None:
        yield Objection(
            "stop", f"backup {found.name} cannot be trusted ({found.state}): {found.problem}", overridable=False
        )
        return
    if found.state == "bad":
        yield Objection("stop", f"backup {found.name} is bad: {'; '.join(found.problems)}", overridable=False)
    elif found.state == "unverified":
        reached = ", ".join(found.levels) or "none"
        yield Objection("stop", f"backup {found.name} was never fully verified (levels reached: {reached})")
    elif "drill" not in found.levels:
        yield Objection("warning", f"no etcd was ever started from backup {found.name} (no drill)")
    age = known.now - manifest.taken_at
    words = f"the backup is {_words(age)} old: everything written since {manifest.taken_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC will be lost"
    yield Objection("warning" if age > OLD else "note", words)
    yield from (Objection("warning", f"when the backup was taken: {note}") for note in manifest.notes)
    yield from _certificates(options, known)
    if known.sealed:
        yield Objection(
            "stop", f"backup {found.name} cannot be opened here: {known.sealed}", overridable=False, topic="unasked"
        )
    if known.locked_by:
        words = f"cluster {manifest.cluster} is locked by restore {known.locked_by!r}, which did not finish"
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
            lacks = node.ca_problem or f"node {node.node} has no CA certificate"
            lacks = lacks if expected else "the backup has no CA certificate"
            yield Objection("stop", f"it cannot be proven that node {node.node} is of the backup's cluster: {lacks}")
        if node.status and node.status.cluster_id != manifest.identity.etcd_cluster_id:
            words = f"node {node.node}: etcd's cluster id is {node.status.cluster_id}, at the backup it was {manifest.identity.etcd_cluster_id}"
            yield Objection("note", f"{words}; a restore in between changes it")


def _members(manifest: Manifest, nodes: Sequence[NodeFacts], known: Circumstances) -> Iterator[Objection]:
    for name, reason in (known.unreachable or {}).items():
        yield Objection(
            "stop",
            f"node {name} cannot be reached, and all members are restored together: {reason}",
            overridable=False,
            topic="unasked",
        )
    for name, reason in (known.unasked or {}).items():
        yield Objection(
            "stop", f"node {name} cannot be asked, and all members are restored together: {reason}", overridable=False
        )
    left_out = known.left_out or {}
    count = len({member.name for member in manifest.members} - left_out.keys())
    for name, reason in left_out.items():
        yield Objection(
            "stop",
            f"member {name} of the backup cannot be restored: {reason}. Override this to restore the other {count} member(s) "
            "without it; make sure first that its node is off for good, for it would serve the old data",
        )
    archived = {artifact.node for artifact in manifest.artifacts if artifact.kind == CONTROL_PLANE}
    for member in manifest.members:
        if doubtful(member) and member.node not in archived and member.node in {node.node for node in nodes}:
            words = f"node {member.node} keeps its own certificates and keys: the backup holds none of it ({member.problem})"
            yield Objection("warning", words)
    names = {member.name for member in manifest.members}
    for node in nodes:
        if node.etcd and node.etcd.name not in names:
            yield Objection(
                "stop",
                f"node {node.node}: its etcd is named {node.etcd.name!r}, the backup knows {', '.join(sorted(names))}",
            )
    healthy = [node.node for node in nodes if node.etcd_healthy]
    if len(healthy) > count // 2:
        words = f"{len(healthy)} of {count} member(s) are healthy ({', '.join(healthy)}): no restore is needed"
        yield Objection("stop", f"{words}; it would only take the cluster back in time", topic="healthy")


def _node(manifest: Manifest, node: NodeFacts, options: Options) -> Iterator[Objection]:
    where = f"node {node.node}: "

    def stop(words: str) -> Objection:
        return Objection("stop", where + words, overridable=False)

    if node.etcd is None or node.apiserver is None:
        lacks = "; ".join(node.problems) or "the static pod manifests cannot be read"
        way_out = (
            ". Put the manifests back first: `unseal` gives them as control-plane/manifests" if node.absent else ""
        )
        yield stop(lacks + way_out)
    yield from (stop(f"{unknown}. A restore is planned only when that is known") for unknown in node.unknown)
    yield from (Objection("warning", where + note) for note in (node.etcd.notes if node.etcd else ()))
    yield from (Objection("stop", problem, overridable=False) for problem in unsupported_layout(node, options))
    others = [earlier for earlier in node.earlier if earlier.run != options.run]
    for run in sorted({earlier.run for earlier in others if earlier.state == ACTIVE}):
        folders = ", ".join(earlier.folder for earlier in others if earlier.run == run)
        yield stop(
            f"restore {run!r} is under way or was broken off here ({folders}); finish it or roll it back first{_by_hand(manifest, run)}. "
            f"{release_words(manifest.cluster, run)}"
        )
    if over := sorted({earlier.run for earlier in others if earlier.state != ACTIVE}):
        yield Objection(
            "note",
            f"{where}{len(over)} earlier restore(s) left the old state behind: {', '.join(over)} (python -m etcdkeep restore-leftovers)",
        )
    if node.running is None:
        yield stop(
            node.crictl_problem or "cannot run crictl, which is needed to stop containers (control_plane.crictl)"
        )
    if not node.curl:
        yield stop(node.curl_problem or "cannot run curl, which asks etcd and the API server")
    if options.way == "kubelet" and node.kubelet_running is None:
        yield stop(
            "the kubelet cannot be stopped by control_plane.kubelet's commands; correct them, or choose the way `manifests`"
        )
    elif node.kubelet_running is False:
        yield Objection("warning", where + "the kubelet does not run now; it will run after the restore")
    yield from _config(node, options)
    yield from _room(manifest, node)
    yield from _versions(manifest, node, options)


def _config(node: NodeFacts, options: Options) -> Iterator[Objection]:
    """What the API server reads beside the PKI, compared with the set; above all the keys of encryption at rest."""
    for file in node.config:
        where = f"node {node.node}: {file.path}"
        lost, newer = ", ".join(file.lost_keys), ", ".join(file.newer_keys)
        if file.then is None:
            if file.sha256 is None:
                words = f"{where}, which kube-apiserver.yaml names, is neither on the node nor in the backup"
                yield Objection("stop", f"{words}; the API server does not start without it")
            elif file.encryption and "etcd" in options.what:
                words = f"{where}: the backup holds no encryption configuration"
                yield Objection("warning", f"{words}; values that it holds encrypted are read with the node's keys")
        elif put_back(file, options):
            if not file.movable:
                words = f"{where} differs from the backup's and lies on another file system than the PKI: no rename puts it back"
                yield Objection(
                    "stop", f"{words}. Put it there by hand: `unseal` gives it as control-plane/{file.archived}"
                )
                continue
            keys = [f"keys that come back: {lost}"] if lost else []
            keys += [f"keys that are set aside: {newer}"] if newer else []
            yield Objection("warning", "; ".join([f"{where} is replaced by the backup's and set aside", *keys]))
        elif file.sha256 is None:
            yield Objection(
                "stop",
                f"{where}, which kube-apiserver.yaml names, is not on the node, and the API server does not start without "
                "it; choose `pki` or `config` too, which bring the backup's",
            )
        elif file.differs and file.encryption and lost and "etcd" in options.what:
            yield Objection(
                "stop",
                f"{where}: encryption at rest: the node has not the key(s) {lost} of the backup, so its API server could not read "
                "the restored data. Choose `pki` or `config` too, which put the backup's configuration in place; or add these keys "
                f"behind the newer ones first (`unseal` gives them as control-plane/{file.archived})",
            )
        elif file.differs:
            yield Objection("note", f"{where} differs from the backup's and stays as it is")


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
        words = f"restore {facts.unfinished!r} is under way or was broken off in {facts.namespace}; finish it or roll it back first"
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
    if len(healthy) > len(facts.members) // 2:
        words = (
            f"{len(healthy)} of {len(facts.members)} member(s) are healthy ({', '.join(healthy)}): no restore is needed"
        )
        yield Objection("stop", f"{words}; it would only take the cluster back in time", topic="healthy")
    if options.bump_revision and not facts.tool.bumps:
        yield Objection(
            "warning",
            f"{facts.tool.words} cannot raise the revision: clients that watch may keep a wrong cache until they are restarted",
        )


def _room(manifest: Manifest, node: NodeFacts) -> Iterator[Objection]:
    where = f"node {node.node}: "
    artifact = manifest.artifact("etcd")
    size = artifact.plaintext.size_bytes if artifact else 0
    needed = SPACE_FACTOR * size + size + WAL_BYTES
    if node.free_bytes is None:
        yield Objection(
            "warning", f"{where}its free space is not known; {needed} bytes are needed beside {node.data.path}"
        )
    elif node.free_bytes < needed:
        yield Objection(
            "stop",
            f"{where}{node.free_bytes} bytes are free beside {node.data.path}, {needed} are needed (the snapshot, twice its data, and 64 MiB of write-ahead log)",
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
