"""Bringing a snapshot out of its pod: one pass from the stream into the sealed artifact, nothing in the clear here."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from etcdkeep import naming
from etcdkeep.backup.discover import Discovery, member_address, pod_runner
from etcdkeep.backup.snapshot import MAY_PASS, TRAILER_BYTES, SavedSnapshot, save_snapshot
from etcdkeep.documents import Document
from etcdkeep.errors import (
    MembersUnfit,
    NotFound,
    SnapshotDamaged,
    StreamCut,
    StreamStalled,
    Unreachable,
)
from etcdkeep.ports import CommandRunner, KubeApi, StreamLimits
from etcdkeep.sealing.digest import Hasher
from etcdkeep.sets.manifest import Artifact

if TYPE_CHECKING:
    from etcdkeep.backup.spool import Spool
    from etcdkeep.config.models import Cluster

log = logging.getLogger(__name__)

OpenNode = Callable[[str], AbstractContextManager[CommandRunner]]
"""Opens a shell on a node, given its address."""

SOURCE_TROUBLE = (StreamCut, StreamStalled, Unreachable, SnapshotDamaged, *MAY_PASS)
"""What another try, on another member where there is one, may mend: a cut or silent stream, a restarted pod."""


class CopiedSnapshot(Document):
    """The sealed artifact in the spool, and the snapshot that it holds."""

    artifact: Artifact
    saved: SavedSnapshot


def copy_out(
    api: KubeApi,
    open_node: OpenNode,
    cluster: Cluster,
    spool: Spool,
    discovery: Discovery,
    saved: SavedSnapshot,
    *,
    attempt: int,
) -> CopiedSnapshot:
    """
    Stream the snapshot out of the pod into the spool, sealed.

    When the stream fails or the file is gone, a new snapshot is taken, on another member where there is one.

    :param attempt: The task's try, from 1.
    :raises StreamCut: and the other errors of the stream, when the second time failed as well.
    """
    done = spool.finished(naming.ETCD_ARTIFACT)
    if done is not None:
        log.info("%s is in the spool already", naming.ETCD_ARTIFACT)
        return CopiedSnapshot.model_validate(done)
    others = [member for member in discovery.candidates if member.pod != saved.pod]
    same = [member for member in discovery.candidates if member.pod == saved.pod]
    try:
        return _seal(api, open_node, cluster, spool, discovery, saved)
    except SOURCE_TROUBLE as err:
        log.warning("pod %s: %s could not be copied out: %s", saved.pod, saved.path, err)
    again = save_snapshot(api, cluster, [*others, *same], spool.identifier, task="copy_out", attempt=attempt)
    try:
        return _seal(api, open_node, cluster, spool, discovery, again)
    except MAY_PASS as err:
        raise MembersUnfit(f"pod {again.pod}: {again.path} could not be copied out either: {err}") from err


def checked(chunks: Iterable[bytes], size_bytes: int, where: str, passed: Hasher) -> Iterator[bytes]:
    """
    Pass a snapshot through, comparing length and the SHA-256 that ends the file with the bytes themselves.

    :param size_bytes: Size of the database image as ``snapshot status`` gave it, without the trailer.
    :param passed: Fed with what passes; the trailer holds its digest just before the trailer itself.
    :raises StreamCut: when fewer bytes came.
    :raises SnapshotDamaged: when more came, or other bytes than etcd wrote.
    """
    expected = size_bytes + TRAILER_BYTES
    trailer = b""
    seen = 0
    for chunk in chunks:
        body = chunk[: max(0, size_bytes - seen)]
        passed.update(body)
        trailer += chunk[len(body) :]
        seen += len(chunk)
        if seen > expected:
            raise SnapshotDamaged(
                f"{where}: more than the {expected} bytes that `snapshot status` announced; not a snapshot as saved."
            )
        yield chunk
    if seen < expected:
        raise StreamCut(
            f"{where}: {seen} of {expected} bytes arrived, then the stream ended with success; the copy was discarded."
        )
    sha256 = passed.digest().sha256
    if sha256 != trailer.hex():
        raise SnapshotDamaged(
            f"{where}: SHA-256 of the copied bytes is {sha256}, the file's own trailer says {trailer.hex()}; "
            "bytes were altered in the pod or on the way."
        )
    passed.update(trailer)


def container_process_argv(runtime_id: str, crictl: Sequence[str]) -> tuple[str, ...]:
    """
    Return the node command whose output names the first process of a container.

    :param runtime_id: As in a pod's status, such as ``containerd://4f2a…``.
    :param crictl: How crictl is called on the node.
    """
    runtime, _, container = runtime_id.partition("://")
    if runtime == "docker":
        return ("sudo", "-n", "docker", "inspect", container)
    return ("sudo", "-n", *crictl, "inspect", "-o", "json", container)


def parse_container_process(output: bytes) -> int:
    """
    Read the process id from ``crictl inspect`` or ``docker inspect``.

    :raises NotFound: when there is none, as for a container that has stopped.
    """
    try:
        answer = json.loads(output)
        process = int(answer[0]["State"]["Pid"] if isinstance(answer, list) else answer["info"]["pid"])
    except (ValueError, KeyError, TypeError, IndexError) as err:
        raise NotFound(
            f"the container runtime reported no process for the etcd container; it printed {output[:200]!r}."
        ) from err
    if process <= 0:
        raise NotFound("the etcd container has no process: it has stopped. Run the backup again when etcd is up.")
    return process


def container_root(api: KubeApi, cluster: Cluster, node: CommandRunner, pod: str) -> str:
    """Return the folder of the node through which a running container's files can be read: ``/proc/PID/root``."""
    statuses = api.get(f"/api/v1/namespaces/{cluster.namespace}/pods/{pod}")["status"].get("containerStatuses") or []
    runtime_id = next(
        (status.get("containerID") for status in statuses if status["name"] == cluster.control_plane.container), None
    )
    if not runtime_id:
        raise NotFound(f"pod {cluster.namespace}/{pod}: container {cluster.control_plane.container!r} is not running.")
    argv = container_process_argv(runtime_id, cluster.control_plane.crictl)
    output = node.run(argv, StreamLimits(cluster.limits.command_s)).stdout
    return f"/proc/{parse_container_process(output)}/root"


def _seal(
    api: KubeApi, open_node: OpenNode, cluster: Cluster, spool: Spool, discovery: Discovery, saved: SavedSnapshot
) -> CopiedSnapshot:
    size = saved.snapshot.size_bytes
    limits = StreamLimits(cluster.limits.long_work_s(size), cluster.limits.stall_s)
    where = f"pod {cluster.namespace}/{saved.pod}: {saved.path}"

    def sealed(chunks: Iterable[bytes]) -> CopiedSnapshot:
        passed = Hasher()
        artifact = spool.seal(naming.ETCD_ARTIFACT, "etcd", checked(chunks, size, where, passed), passed=passed)
        copied = CopiedSnapshot(artifact=artifact, saved=saved)
        spool.finish(naming.ETCD_ARTIFACT, copied)
        return copied

    if cluster.copy_out == "exec":
        runner = pod_runner(api, cluster, saved.pod)
        return sealed(runner.stream(("cat", saved.path, "-"), limits, hold_bytes=size + TRAILER_BYTES))
    member = next(member for member in discovery.members if member.pod == saved.pod)
    with open_node(member_address(member)) as node:
        root = container_root(api, cluster, node, saved.pod)
        return sealed(node.stream(("sudo", "-n", "cat", f"{root}{saved.path}"), limits))
