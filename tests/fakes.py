"""
In-memory stand-ins of our ports, with state: pods with files and a small etcdctl, and nodes that run the real find,
cat and tar.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from etcdkeep.errors import CommandFailed, CommandMissing, NotFound
from etcdkeep.ports import CommandResult, PodRef, StreamLimits
from etcdkeep.snapshot import open_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CHUNK_BYTES = 4096
CLUSTER_ID = 0xCDF818194E3A8C32
COMPACTED = "Error: etcdserver: mvcc: required revision has been compacted"
UNHEALTHY = "https://127.0.0.1:2379 is unhealthy: failed to commit proposal: {}\nError: unhealthy cluster"


@dataclass
class FakeMember:
    """
    An etcd pod: what its etcdctl answers, and its files.

    :param database: What ``snapshot save`` writes: a snapshot as etcd made it.
    :param port: Where it listens for clients; `flags` are what its pod starts etcd with.
    :param programs: What its image has.
    """

    name: str
    database: bytes
    member_id: int = 1
    leader: bool = False
    learner: bool = False
    version: str = "3.5.16"
    revision: int = 7
    hash_kv: int = 1266661082
    compact_revision: int = -1
    cluster_id: int = CLUSTER_ID
    errors: tuple[str, ...] = ()
    unhealthy: str = ""
    phase: str = "Running"
    deleted: bool = False
    programs: frozenset[str] = frozenset({"etcdctl", "etcdutl", "cat", "df", "rm"})
    free_kib: int = 10**6
    reason: str = ""
    port: int = 2379
    holds_objects: bool = True
    flags: tuple[str, ...] = ()
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def pod(self) -> str:
        return f"etcd-{self.name}"

    @property
    def peer_url(self) -> str:
        return f"https://10.0.0.{self.member_id}:2380"

    @property
    def listed(self) -> dict[str, Any]:
        """Its entry of ``member list``."""
        client = f"https://10.0.0.{self.member_id}:{self.port}"
        learner = {"isLearner": True} if self.learner else {}
        return {"ID": self.member_id, "name": self.name, "peerURLs": [self.peer_url], "clientURLs": [client], **learner}

    def restart(self) -> None:
        """A new container: whatever was in the old one's file system is gone."""
        self.files.clear()


@dataclass
class Fault:
    """
    What goes wrong with the commands that match.

    :param at: Which of them it is, from 1; 0 for each.
    :param error: Raised in place of the command, or, of a stream, after `after` bytes.
    :param transform: What a stream gives in place of the true bytes.
    """

    match: str
    error: Exception | None = None
    at: int = 1
    after: int = 0
    transform: Any = None
    before: Any = None
    seen: int = 0

    def strikes(self, text: str) -> bool:
        if not re.search(self.match, text):
            return False
        self.seen += 1
        return self.at in (0, self.seen)


class Faults(list[Fault]):
    """The faults of one side, asked before each command."""

    def add(self, match: str, error: Exception | None = None, **how: Any) -> Fault:
        self.append(Fault(match, error, **how))
        return self[-1]

    def find(self, text: str) -> Fault | None:
        struck = next((fault for fault in self if fault.strikes(text)), None)
        if struck and struck.before:
            struck.before()
        return struck


def streamed(data: bytes, fault: Fault | None) -> Iterator[bytes]:
    """Yield `data` in chunks, with what the fault does to it."""
    if fault and fault.transform:
        data = fault.transform(data)
    if fault and fault.error:
        data = data[: fault.after]
    for start in range(0, len(data), CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES]
    if fault and fault.error:
        raise fault.error


class FakeExec:
    """A pod's container, as a :class:`~etcdkeep.ports.CommandRunner`."""

    def __init__(self, kube: FakeKube, member: FakeMember, where: str) -> None:
        self.kube = kube
        self.member = member
        self.where = where

    def run(self, argv: Sequence[str], limits: StreamLimits, *, stdin: bytes = b"") -> CommandResult:
        fault = self._begin(argv)
        if fault and fault.error:
            raise fault.error
        data = self._answer(argv)
        return CommandResult(fault.transform(data) if fault and fault.transform else data)

    def stream(self, argv: Sequence[str], limits: StreamLimits, *, hold_bytes: int = 0) -> Iterator[bytes]:
        fault = self._begin(argv)
        if fault and fault.error and not fault.after:
            raise fault.error
        yield from streamed(self._answer(argv), fault)

    def _begin(self, argv: Sequence[str]) -> Fault | None:
        text = f"{self.member.pod}: {' '.join(argv)}"
        self.kube.calls.append(text)
        fault = self.kube.faults.find(text)
        if argv[0] not in self.member.programs:
            raise CommandMissing(f"{argv[0]!r} in {self.where}: no such program in the image.")
        return fault

    def _answer(self, argv: Sequence[str]) -> bytes:
        words = [word for word in argv[1:] if not word.startswith("--")]
        return {"etcdctl": self._etcdctl, "etcdutl": self._etcdctl, "cat": self._cat, "df": self._df, "rm": self._rm}[
            argv[0]
        ](argv, words)

    def _cat(self, argv: Sequence[str], words: Sequence[str]) -> bytes:
        if words[0] == "/dev/null":
            return b""
        if words[0] not in self.member.files:
            raise self._failed(argv, f"cat: {words[0]}: No such file or directory")
        return self.member.files[words[0]]

    def _df(self, argv: Sequence[str], words: Sequence[str]) -> bytes:
        return (
            "Filesystem     1024-blocks     Used Available Capacity Mounted on\n"
            f"overlay           83873772 11036236  {self.member.free_kib}      14% /\n"
        ).encode()

    def _rm(self, argv: Sequence[str], words: Sequence[str]) -> bytes:
        for path in argv[3:]:
            self.member.files.pop(path, None)
        return b""

    def _etcdctl(self, argv: Sequence[str], words: Sequence[str]) -> bytes:
        member = self.member
        header = {"cluster_id": member.cluster_id, "member_id": member.member_id, "revision": member.revision}
        match words:
            case ["version"]:
                return f"etcdctl version: {member.version}\nAPI version: {member.version[:3]}\n".encode()
            case ["endpoint", "status", *_]:
                leader = member.member_id if member.leader else 99
                status = {
                    "header": header,
                    "version": member.version,
                    "dbSize": len(member.database) - 32,
                    "leader": leader,
                    "raftIndex": 5,
                    **({"isLearner": True} if member.learner else {}),
                    **({"errors": list(member.errors)} if member.errors else {}),
                }
                return json.dumps([{"Endpoint": "https://127.0.0.1:2379", "Status": status}]).encode()
            case ["endpoint", "health"]:
                alarms = "".join(f"{error.rpartition(':')[2].strip()} " for error in member.errors)
                if member.unhealthy or alarms:
                    raise self._failed(argv, UNHEALTHY.format(member.unhealthy or f"Active Alarm(s): {alarms}"))
                return b"https://127.0.0.1:2379 is healthy: successfully committed proposal: took = 4.2ms\n"
            case ["endpoint", "hashkv", *_]:
                answer = {"header": header, "hash": member.hash_kv, "compact_revision": member.compact_revision}
                return json.dumps([{"Endpoint": "https://127.0.0.1:2379", "HashKV": answer}]).encode()
            case ["member", "list", *_]:
                members = [each.listed for each in self.kube.listed or self.kube.members]
                return json.dumps({"header": header, "members": members}).encode()
            case ["get", key]:
                return f"{key}\n".encode() if member.holds_objects else b""
            case ["snapshot", "save", path]:
                member.files[f"{path}.part"] = member.database
                if len(member.database) > member.free_kib * 1024:
                    raise self._failed(argv, f"Error: write {path}.part: no space left on device")
                member.files[path] = member.files.pop(f"{path}.part")
                return f"Snapshot saved at {path}\n".encode()
            case ["snapshot", "status", path, *_]:
                return json.dumps(snapshot_status(member.files[path])).encode()
        raise AssertionError(f"the fake etcdctl does not know {words}")

    def _failed(self, argv: Sequence[str], said: str) -> CommandFailed:
        message = f"{' '.join(argv)!r} in {self.where} ended with exit code 1. Last output: {said}"
        return CommandFailed(message, exit_code=1, stderr_tail=said)


def snapshot_status(data: bytes) -> dict[str, Any]:
    """Return what ``etcdctl snapshot status -w json`` up to 3.5 prints of a sound file."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        with open_snapshot(file.fileno()) as snapshot:
            report = snapshot.check()
    names = {"hash": "hash", "revision": "revision", "totalKey": "total_keys", "totalSize": "size_bytes"}
    return {printed: getattr(report, ours) for printed, ours in names.items()}


class FakeKube:
    """
    The API of one cluster with etcd pods; implements the reading half of :class:`~etcdkeep.ports.KubeApi`.

    Its `listed` are etcd's members where they are others than those of its pods.
    """

    def __init__(self, *members: FakeMember, namespace: str = "kube-system", container: str = "etcd") -> None:
        self.members = members
        self.namespace = namespace
        self.container = container
        self.nodes = {
            member.name: [{"type": "InternalIP", "address": f"10.0.0.{member.member_id}"}] for member in members
        }
        self.faults = Faults()
        self.calls: list[str] = []
        self.listed: tuple[FakeMember, ...] = ()
        self.api_servers: list[dict[str, Any]] = []

    def get(self, path: str) -> dict[str, Any]:
        self._begin(f"GET {path}")
        kind, _, name = path.removeprefix("/api/v1/").rpartition("/")
        if kind == "namespaces" and name in ("kube-system", self.namespace):
            return {"metadata": {"name": name, "uid": f"uid-of-{name}"}}
        if kind == "nodes" and name in self.nodes:
            return {"status": {"addresses": self.nodes[name]}}
        if kind == f"namespaces/{self.namespace}/pods":
            return next(pod for pod in self._pods() if pod["metadata"]["name"] == name)
        raise NotFound(f"GET {path}: there is no such object.")

    def list(self, path: str, *, label_selector: str = "") -> list[dict[str, Any]]:
        self._begin(f"LIST {path}")
        if label_selector == "component=kube-apiserver":
            return self.api_servers
        return self._pods() if path == f"/api/v1/namespaces/{self.namespace}/pods" else []

    def version(self) -> str:
        self._begin("GET /version")
        return "v1.36.2"

    def exec(self, pod: PodRef) -> FakeExec:
        member = next((each for each in self.members if each.pod == pod.pod and not each.deleted), None)
        if member is None:
            raise NotFound(f"pod {pod.namespace}/{pod.pod} is not there.")
        return FakeExec(self, member, f"pod {pod.namespace}/{pod.pod}")

    def _begin(self, text: str) -> None:
        self.calls.append(text)
        fault = self.faults.find(text)
        if fault and fault.error:
            raise fault.error

    def _pods(self) -> list[dict[str, Any]]:
        return [
            {
                "metadata": {
                    "name": member.pod,
                    **({"deletionTimestamp": "2026-11-23T02:30:00Z"} if member.deleted else {}),
                },
                "spec": {
                    "nodeName": member.name,
                    "containers": [{"name": self.container, "command": list(member.flags)}],
                },
                "status": {
                    "phase": member.phase,
                    "reason": member.reason,
                    "hostIP": f"10.0.0.{member.member_id}",
                    "podIP": f"10.0.0.{member.member_id}",
                    "containerStatuses": [{"name": self.container, "containerID": f"containerd://{member.pod}"}],
                },
            }
            for member in self.members
        ]


class FakeNode:
    """
    A node's shell: find, cat and tar are the real programs, run without sudo; containers are those of `members`.

    :param members: Whose containers run here; each one's process id is its member id.
    """

    def __init__(self, where: str, members: Sequence[FakeMember], faults: Faults) -> None:
        self.where = where
        self.members = members
        self.faults = faults

    def run(self, argv: Sequence[str], limits: StreamLimits, *, stdin: bytes = b"") -> CommandResult:
        return CommandResult(b"".join(self.stream(argv, limits)))

    def stream(self, argv: Sequence[str], limits: StreamLimits) -> Iterator[bytes]:
        fault = self.faults.find(f"{self.where}: {' '.join(argv)}")
        if fault and fault.error and not fault.after:
            raise fault.error
        yield from streamed(self._answer([word for word in argv if word not in ("sudo", "-n")]), fault)

    def _answer(self, argv: list[str]) -> bytes:
        if argv[0].endswith("crictl"):
            (member,) = (each for each in self.members if each.pod == argv[-1])
            return json.dumps({"info": {"pid": member.member_id}}).encode()
        if found := re.match(r"/proc/(\d+)/root", argv[-1]):
            (member,) = (each for each in self.members if each.member_id == int(found[1]))
            paths = [path.removeprefix(found[0]) for path in argv if path.startswith(found[0])]
            if argv[0] == "rm":
                return b"".join(member.files.pop(path, b"")[:0] for path in paths)
            if paths[0] in member.files:
                return member.files[paths[0]]
            raise CommandFailed(
                f"cat {paths[0]} on {self.where}: no such file", exit_code=1, stderr_tail="No such file"
            )
        try:
            done = subprocess.run(argv, capture_output=True, check=False, env={**os.environ, "LC_ALL": "C"})
        except FileNotFoundError as err:
            raise CommandMissing(f"{argv[0]} on {self.where}: no such program") from err
        if done.returncode:
            said = done.stderr.decode()
            message = f"{argv[0]} on {self.where} ended with exit code {done.returncode}: {said}"
            raise CommandFailed(message, exit_code=done.returncode, stderr_tail=said)
        return done.stdout


def make_members(count: int, database: bytes, **overrides: Any) -> tuple[FakeMember, ...]:
    """Return a healthy cluster of that many members; the first leads."""
    return tuple(
        replace(FakeMember(f"cp-{index}", database, member_id=index + 1, leader=index == 0), **overrides)
        for index in range(count)
    )
