"""An admin cluster's API as data: StatefulSets make and end their pods, claims keep their files, pods run commands."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from etcdkeep.errors import CommandFailed, NotFound, StreamStalled, Unreachable
from etcdkeep.ports import CommandResult, CommandRunner, PodRef, StreamLimits
from tests.unit.restore.builders import SNAPSHOT
from tests.unit.restore.machine import Fault, Killed, Machine

NAMESPACE = "user-1"
APPS = f"/apis/apps/v1/namespaces/{NAMESPACE}"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
BUDGET = f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets/kube-apiserver-pdb"
ETCD = f"{APPS}/statefulsets/kube-etcd"
FLAGS = [
    "--data-dir=/var/lib/etcd/data",
    "--name=$(POD_NAME)",
    "--initial-advertise-peer-urls=https://$(POD_NAME).kube-etcd:2380",
]


class Claim(Machine):
    """A volume that keeps its files, whichever pod runs commands on it; the member runs when its StatefulSet's pod does."""

    used: bool = True

    def live(self) -> None:
        """The API decides what runs."""

    def in_use(self) -> bool:
        """Say whether the member's pod is there."""
        return self.used


def make_claim(name: str) -> Claim:
    claim = Claim(name, data_dir="/var/lib/etcd/data")
    claim.put("/var/lib/etcd/data/member/snap/db", f"live data of {name}@1500")
    return claim


@dataclass
class AdminApi:
    """
    Implements :class:`~etcdkeep.ports.KubeApi`; see :class:`~tests.unit.restore.machine.Fault` for what may go wrong.

    :param objects: Path → object; a change replaces the object, so that what was read stays as it was.
    """

    members: int = 1
    shell: bool = True
    crashing: bool = False
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    claims: dict[str, Claim] = field(default_factory=dict)
    fault: Fault | None = None
    count: int = 0
    nodes_down: bool = False
    going: dict[str, int] = field(default_factory=dict)
    watch: Callable[[AdminApi], None] = lambda api: None

    def __post_init__(self) -> None:
        container = {
            "name": "kube-etcd",
            "image": "registry.k8s.io/etcd:3.5.16-0",
            "command": ["etcd", *FLAGS],
            "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "volumeMounts": [{"name": "data", "mountPath": "/var/lib/etcd"}],
        }
        self.objects |= {
            "/api/v1/namespaces/kube-system": {"metadata": {"uid": "uid-1"}},
            f"/api/v1/namespaces/{NAMESPACE}": {"metadata": {"uid": "uid-2"}},
            BUDGET: {
                "metadata": {"name": "kube-apiserver-pdb", "uid": "x", "resourceVersion": "7"},
                "spec": {"minAvailable": 1},
            },
            f"{APPS}/deployments/gke-master-etcd-maintenance": self._workload(
                "gke-master-etcd-maintenance", 1, {"containers": []}
            ),
            f"{APPS}/statefulsets/kube-apiserver": self._workload("kube-apiserver", 3, {"containers": []}),
            ETCD: self._workload(
                "kube-etcd", self.members, {"containers": [container], "securityContext": {"fsGroup": 2001}}
            ),
        }
        self.objects[ETCD]["spec"]["volumeClaimTemplates"] = [{"metadata": {"name": "data"}}]
        self.claims = {f"data-kube-etcd-{index}": make_claim(f"kube-etcd-{index}") for index in range(self.members)}
        self._live()

    # --- the port ------------------------------------------------------------------------------------------------

    def get(self, path: str) -> dict[str, Any]:
        with _Struck(self):
            try:
                return self.objects[path]
            except KeyError:
                raise NotFound(path) from None

    def list(self, path: str, *, label_selector: str = "") -> list[dict[str, Any]]:
        del label_selector
        return [each for name, each in self.objects.items() if posixpath.dirname(name) == path]

    def version(self) -> str:
        return "v1.36.2"

    def create(self, path: str, body: Mapping[str, Any]) -> None:
        with _Struck(self):
            self.objects.setdefault(f"{path}/{body['metadata']['name']}", dict(body))

    def patch(self, path: str, body: Mapping[str, Any]) -> None:
        with _Struck(self):
            self.objects[path] = _merged(self.objects[path], body)

    def delete(self, path: str) -> None:
        with _Struck(self):
            self.objects.pop(path, None)

    def exec(self, pod: PodRef) -> CommandRunner:
        return _PodRunner(self, pod)

    def lose_utility_pods(self, how: str) -> None:
        """Take them away at once, leave them as evicted ones, or have them go while the next calls come."""
        for path in [path for path in self.objects if "etcd-utility" in path]:
            pod = self.objects[path]
            if how == "evicted":
                self.objects[path] = {**pod, "status": {"phase": "Failed", "reason": "Evicted"}}
            elif how == "terminating":
                self.going[path] = 5
                self.objects[path] = {**pod, "metadata": {**pod["metadata"], "deletionTimestamp": "now"}}
            else:
                del self.objects[path]

    # --- the world's own life ------------------------------------------------------------------------------------

    def _workload(self, name: str, replicas: int, template: dict[str, Any]) -> dict[str, Any]:
        spec = {"replicas": replicas, "serviceName": name, "template": {"spec": template}}
        return {"metadata": {"name": name, "annotations": {}}, "spec": spec, "status": {}}

    def _live(self) -> None:
        for path, workload in list(self.objects.items()):
            if path.startswith(APPS):
                wanted = workload["spec"]["replicas"]
                self.objects[path] = {**workload, "status": {"replicas": wanted, "readyReplicas": wanted}}
        for index in range(self.members):
            name = f"kube-etcd-{index}"
            self.claims[f"data-{name}"].used = index < self.objects[ETCD]["spec"]["replicas"]
            if self.claims[f"data-{name}"].used:
                self.objects.setdefault(
                    f"{PODS}/{name}", {"metadata": {"name": name}, "spec": {"nodeName": f"node-{index}"}}
                )
                claim = self.claims[f"data-{name}"]
                if "/var/lib/etcd/data/member" not in claim.files:
                    claim.put("/var/lib/etcd/data/member/snap/db", "an empty etcd's")
            else:
                self.objects.pop(f"{PODS}/{name}", None)
        for path in [path for path in self.going if self.going[path] == 0]:
            del self.going[path]
            self.objects.pop(path, None)
        self.going = {path: left - 1 for path, left in self.going.items()}
        for path in list(self.objects):
            if path.startswith(f"{PODS}/") and (self.objects[path].get("status") or {}).get("phase") != "Failed":
                state = {"waiting": {"reason": "CrashLoopBackOff"}} if self.crashing else {"running": {}}
                pending = self.nodes_down and "utility" in path
                status = {
                    "phase": "Pending" if pending else "Running",
                    "containerStatuses": [{"name": "kube-etcd", "state": state}],
                }
                self.objects[path] = {**self.objects[path], "status": status}


class _Struck:
    """Counts a call and has its fault strike before or after it."""

    def __init__(self, api: AdminApi, *, command: bool = False) -> None:
        self._api = api
        self._command = command

    def __enter__(self) -> None:
        self._api.count += 1
        self._strike(before=True)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._api._live()
        self._api.watch(self._api)
        if kind in (None, NotFound):
            self._strike(before=False)

    def _strike(self, *, before: bool) -> None:
        fault = self._api.fault
        if fault is None or self._api.count < fault.at or fault.before != before:
            return
        if fault.kind == "fail":
            raise CommandFailed("it does not work", exit_code=1)
        if fault.kind == "timeout":
            raise StreamStalled("the deadline passed")
        self._api.fault = None
        if fault.kind in ("drain", "lost", "evicted", "terminating"):
            self._api.lose_utility_pods(fault.kind)
            if fault.kind != "drain":
                if self._command:
                    raise CommandFailed("command terminated with exit code 137", exit_code=137)
                return
        if fault.kind == "kill":
            raise Killed
        raise Unreachable("the connection was cut")


@dataclass
class _PodRunner:
    api: AdminApi
    pod: PodRef

    @property
    def where(self) -> str:
        return f"pod {self.pod.pod}"

    def run(self, argv: Sequence[str], limits: StreamLimits, *, stdin: bytes = b"") -> CommandResult:
        with _Struck(self.api, command=True):
            found = self.api.objects.get(f"{PODS}/{self.pod.pod}")
            if found is None:
                raise NotFound(f"{self.where} is not there")
            if (found.get("status") or {}).get("phase") == "Pending":
                raise Unreachable("the kubelet does not answer")
            if (found.get("status") or {}).get("phase") == "Failed":
                raise Unreachable('HTTP 500: container not found ("utility")')
            if self.api.crashing and self.pod.container == "kube-etcd":
                raise Unreachable('unable to upgrade connection: container not found ("kube-etcd")')
            if argv[0] == "etcdctl":
                return CommandResult(self._etcdctl(argv))
            if argv[0] == "which":
                if not self.api.shell:
                    raise CommandFailed("which", exit_code=1)
                return CommandResult(b"/bin/x")
            if argv[-1] in ("--help", "version"):
                text = (
                    "etcdutl version: 3.5.16"
                    if argv[-1] == "version"
                    else "--data-dir --initial-cluster-token --bump-revision --mark-compacted"
                )
                return CommandResult(text.encode())
            index = self.pod.pod.rpartition("-")[2]
            return self.api.claims[f"data-kube-etcd-{index}"].run(argv, limits, stdin=stdin)

    def stream(self, argv: Sequence[str], limits: StreamLimits) -> Iterator[bytes]:
        yield self.run(argv, limits).stdout

    def _etcdctl(self, argv: Sequence[str]) -> bytes:
        if "status" in argv:
            header = '{"cluster_id": 1, "member_id": 2, "revision": 1500}'
            return f'[{{"Status": {{"header": {header}, "version": "3.5.16"}}}}]'.encode()
        return b"is healthy"


@dataclass
class PodWorld:
    """The places of a kubeception plan."""

    admin: AdminApi

    def runner(self, place: str) -> CommandRunner:
        container = "utility" if "utility" in place else "kube-etcd"
        return self.admin.exec(PodRef(NAMESPACE, place, container))

    def api(self) -> AdminApi:
        return self.admin

    def artifact(self, name: str) -> Iterator[bytes]:
        assert name == "etcd.db"
        yield SNAPSHOT.encode()


def _merged(target: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7396."""
    merged = dict(target)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key) or {}, value) if isinstance(value, Mapping) else value
    return merged
