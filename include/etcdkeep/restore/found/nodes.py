"""
What is found on a control-plane node before a restore: data classes, and pure readers of what the probes print.

Everything comes from the node itself, over SSH: the cluster's API may be down. A probe that failed leaves None.
"""

from __future__ import annotations

import json
import posixpath
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from etcdkeep.control_plane.static_pod import ApiserverStaticPod, EtcdStaticPod  # noqa: TC001
from etcdkeep.errors import OutputUnexpected
from etcdkeep.restore.found.config_files import ApiserverFile, match
from etcdkeep.restore.found.tools import Tool  # noqa: TC001 - proposals keep facts, and pydantic reads these

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from etcdkeep.restore.found.config_files import ArchivedConfig

FOLDER = ".etcdkeep"
"""Holds one folder per restore, beside what it replaces; kept until a person has it removed."""
ACTIVE = "active"
"""Link in it to the restore that is under way."""
LIST = "python -m etcdkeep restore-leftovers"
"""Shows what restores left, releases places, and removes; the cluster's name follows."""
FINISHED = "finished"
ROLLED_BACK = "rolled-back"


@dataclass(frozen=True)
class PathFacts:
    """
    A file or folder of the node.

    :param path: The real one, links resolved.
    :param owner: ``uid:gid``; None when it does not exist, or could not be asked: then it stands in the node's `unknown`.
    :param mode: Octal digits.
    :param label: SELinux context, where the host has them.
    """

    path: str
    owner: str | None = None
    mode: str | None = None
    label: str | None = None

    @property
    def exists(self) -> bool:
        """Whether it is there."""
        return self.owner is not None


@dataclass(frozen=True)
class EtcdStatus:
    """What a running member says of itself. Ids are 16 hex digits."""

    cluster_id: str
    member_id: str
    version: str
    revision: int
    raft_index: int


@dataclass(frozen=True)
class EarlierRun:
    """
    What a restore left on a node.

    :param state: ``active`` (begun, and neither finished nor rolled back), ``finished``, ``rolled-back`` or
        ``abandoned`` (prepared only).
    """

    folder: str
    state: str

    @property
    def run(self) -> str:
        """The restore's name."""
        return posixpath.basename(self.folder)


@dataclass(frozen=True)
class NodeFacts:
    """
    One node.

    :param manifests: Names of the files in the manifests folder.
    :param mount_points: Those of the four paths that something is mounted on.
    :param free_bytes: On the file system of the data directory.
    :param memory_bytes: Available.
    :param kubelet_running: None when the profile's command cannot tell.
    :param running: Names of the running containers of the control plane's namespace; None without crictl.
    :param ca_sha256: Fingerprint of the cluster CA on the node; None when there is none.
    :param etcd_healthy: Whether its member can commit; False also when it does not run.
    :param ready: Whether its API server says so.
    :param config: The files outside the PKI folder that its API server names.
    :param tool_problems: Why a container runtime that is there gave no tool.
    :param absent: Static pod manifests that were looked for and do not exist.
    :param unknown: What could not be asked, and why; it is neither there nor absent.
    :param crictl_problem: Why `running` is None; `curl_problem` and `ca_problem` the same for `curl` and `ca_sha256`.
    :param etcd_runs_as: ``uid:gid``, where etcd's manifest says it.
    """

    node: str
    address: str
    etcd: EtcdStaticPod | None
    apiserver: ApiserverStaticPod | None
    manifests: tuple[str, ...]
    data: PathFacts
    member: PathFacts
    pki: PathFacts
    manifests_dir: PathFacts
    mount_points: tuple[str, ...]
    free_bytes: int | None = None
    memory_bytes: int | None = None
    kubelet_running: bool | None = None
    running: tuple[str, ...] | None = None
    curl: bool = True
    tools: tuple[Tool, ...] = ()
    ca_sha256: str | None = None
    status: EtcdStatus | None = None
    etcd_healthy: bool = False
    ready: bool = False
    earlier: tuple[EarlierRun, ...] = ()
    config: tuple[ApiserverFile, ...] = ()
    problems: tuple[str, ...] = ()
    tool_problems: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    crictl_problem: str = ""
    curl_problem: str = ""
    ca_problem: str = ""
    etcd_runs_as: str | None = None


def run_base(path: str, mount_points: Sequence[str]) -> str:
    """
    Return the folder for what is set aside from `path`, from and to which a rename stays on one file system.

    That is beside it, or inside it where it is a mount point itself (etcd leaves other names in its folder alone).
    """
    parent = path if path in mount_points else posixpath.dirname(path)
    return posixpath.join(parent, FOLDER)


def parse_stat(output: str) -> tuple[str, str] | None:
    """Read owner and mode from ``stat -c '%u:%g %a'``."""
    match = re.fullmatch(r"(\d+:\d+) (\d+)", output.strip())
    return (match[1], match[2]) if match else None


def parse_label(output: str) -> str | None:
    """Read ``stat -c %C``: None where files have no SELinux context."""
    label = output.strip()
    return label if label.count(":") >= 2 else None


def parse_mount_points(mountinfo: str) -> tuple[str, ...]:
    """Read ``/proc/self/mountinfo``: every mount point, bind mounts too, which ``df`` and device numbers do not tell."""
    fields = (line.split(" ") for line in mountinfo.splitlines())
    return tuple(
        dict.fromkeys(
            re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), each[4]) for each in fields if len(each) > 4
        )
    )


def mount_of(path: str, mount_points: Sequence[str]) -> str:
    """Return the mount point that a path lies on."""
    above = [point for point in mount_points if path == point or path.startswith(point.rstrip("/") + "/")]
    return max(above, key=len, default="/")


def parse_meminfo(output: str) -> int | None:
    """Read ``/proc/meminfo``: available bytes."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB", output, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def parse_container_names(output: str) -> tuple[str, ...]:
    """Read ``crictl ps -o json``: the containers' names."""
    return tuple(container["metadata"]["name"] for container in _items(output, "containers"))


def parse_etcd_status(output: str) -> EtcdStatus:
    """
    Read etcd's own ``/v3/maintenance/status``; numbers come as strings.

    :raises OutputUnexpected: when it is something else, such as an error.
    """
    try:
        answer = json.loads(output)
        header = answer["header"]
        return EtcdStatus(
            cluster_id=f"{int(header['cluster_id']):016x}",
            member_id=f"{int(header['member_id']):016x}",
            version=str(answer["version"]),
            revision=int(header.get("revision", 0)),
            raft_index=int(answer.get("raftIndex", 0)),
        )
    except (ValueError, KeyError, TypeError) as err:
        raise OutputUnexpected(
            f"etcd's status is not in the format of etcd 3.4 to 3.6: {output[:200]!r}.", said=output[:200]
        ) from err


def parse_healthy(output: str) -> bool:
    """Read etcd's ``/health``."""
    return bool(re.search(r'"health"\s*:\s*"?true', output))


def parse_earlier_runs(output: str) -> tuple[EarlierRun, ...]:
    """
    Read the listing of the ``.etcdkeep`` folders: ``type path target`` a line, two levels deep.

    :return: One entry per folder, in name order: a restore has one beside each thing that it replaces.
    """
    folders: dict[str, str] = {}
    active: set[str] = set()
    for line in output.splitlines():
        kind, path, *target = line.split("\t")
        parent, name = posixpath.split(path)
        if posixpath.basename(parent) == FOLDER and kind == "d":
            folders.setdefault(path, "abandoned")
        elif posixpath.basename(parent) == FOLDER and name == ACTIVE and target:
            active.add(target[0])
        elif name == FINISHED or (name == ROLLED_BACK and folders.get(parent) != FINISHED):
            folders[parent] = name
    states = {posixpath.basename(folder): state for folder, state in folders.items() if state != "abandoned"}
    states |= {posixpath.basename(folder): ACTIVE for folder in active}
    return tuple(
        EarlierRun(folder, states.get(posixpath.basename(folder), state)) for folder, state in sorted(folders.items())
    )


def _items(output: str, field: str) -> list[dict[str, Any]]:
    try:
        items: list[dict[str, Any]] = json.loads(output)[field] or []
    except (ValueError, KeyError, TypeError) as err:
        raise OutputUnexpected(f"crictl printed no JSON with {field!r}: {output[:200]!r}.", said=output[:200]) from err
    return items


def with_archived(
    facts: Sequence[NodeFacts], archived: Mapping[str, Mapping[str, ArchivedConfig]]
) -> tuple[NodeFacts, ...]:
    """Return the nodes with what the set has of their files."""
    return tuple(replace(each, config=match(each.config, archived.get(each.node, {}))) for each in facts)
