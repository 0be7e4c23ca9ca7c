"""What tells, on a real cluster, whether it is as it was backed up: a marker from before the backup, changed after it, and a later one."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Protocol

from etcdkeep.acceptance.telling import CheckFailed
from etcdkeep.backup.discover import discover, pod_runner
from etcdkeep.errors import EtcdkeepError, NotFound
from etcdkeep.etcd import etcdctl
from etcdkeep.ports import StreamLimits

if TYPE_CHECKING:
    from etcdkeep.config.models import Cluster
    from etcdkeep.ports import CommandRunner, KubeApi
    from etcdkeep.site.site import Site

AS_BACKED_UP = ("as-backed-up", False)
CHANGED = ("changed-after-the-backup", True)
SETTLED_S = 120.0
ANSWER_S = 30.0


class Markers(Protocol):
    """One marker from before the backup, and one from after it."""

    where: str

    def write(self) -> None:
        """Before the backup: make the marker."""

    def spoil(self) -> None:
        """After the backup: change the marker, and make the later one."""

    def seen(self) -> tuple[str, bool]:
        """Return what the marker says, and whether the later one is there."""

    def remove(self) -> None:
        """Remove all of it; no error when there is none."""


class ObjectMarkers:
    """ConfigMaps in a namespace of their own."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._namespace = f"etcdkeep-acceptance-{secrets.token_hex(3)}"
        self._path = f"/api/v1/namespaces/{self._namespace}"
        self.where = f"namespace {self._namespace}"

    def write(self) -> None:
        self._api.create("/api/v1/namespaces", {"metadata": {"name": self._namespace}})
        self._create("marker", AS_BACKED_UP[0])

    def spoil(self) -> None:
        self._api.patch(f"{self._path}/configmaps/marker", {"data": {"is": CHANGED[0]}})
        self._create("later", CHANGED[0])

    def seen(self) -> tuple[str, bool]:
        marker = self._api.get(f"{self._path}/configmaps/marker")
        return marker["data"]["is"], self._is_there("configmaps/later")

    def remove(self) -> None:
        self._api.delete(self._path)
        deadline = time.monotonic() + SETTLED_S
        while self._is_there(""):
            if time.monotonic() > deadline:
                raise CheckFailed(
                    f"{self.where} is deleted and still there after {SETTLED_S:.0f} s: kubectl get namespace {self._namespace} -o yaml"
                )
            time.sleep(1)

    def _create(self, name: str, value: str) -> None:
        self._api.create(f"{self._path}/configmaps", {"metadata": {"name": name}, "data": {"is": value}})

    def _is_there(self, what: str) -> bool:
        try:
            self._api.get(f"{self._path}/{what}".rstrip("/"))
        except NotFound:
            return False
        return True


class KeyMarkers:
    """Keys in a user cluster's etcd, outside all that its API server reads: for a cluster whose own API is not configured."""

    def __init__(self, runner: CommandRunner, cluster: Cluster) -> None:
        self._runner = runner
        self._control_plane = cluster.control_plane
        self._folder = f"/etcdkeep-acceptance-{secrets.token_hex(3)}/"
        self.where = f"etcd of {cluster.name}, keys {self._folder}*"

    def write(self) -> None:
        self._etcdctl("put", f"{self._folder}marker", AS_BACKED_UP[0])

    def spoil(self) -> None:
        for name in ("marker", "later"):
            self._etcdctl("put", f"{self._folder}{name}", CHANGED[0])

    def seen(self) -> tuple[str, bool]:
        marker, later = (
            self._etcdctl("get", f"{self._folder}{name}", "--print-value-only") for name in ("marker", "later")
        )
        return marker, bool(later)

    def remove(self) -> None:
        self._etcdctl("del", self._folder, "--prefix")

    def _etcdctl(self, *command: str) -> str:
        argv = etcdctl.etcdctl_argv(self._control_plane, *command, timeout_s=ANSWER_S / 2)
        return self._runner.run(argv, StreamLimits(ANSWER_S)).stdout.decode().strip()


def markers_of(site: Site) -> Markers:
    """Return markers that can be set on this cluster."""
    cluster = site.cluster
    if cluster.control_plane.has_nodes or cluster.own_kubeconfig:
        return ObjectMarkers(site.own_api)
    return KeyMarkers(pod_runner(site.api, cluster, discover(site.api, cluster).candidates[0].pod), cluster)


def settle(markers: Markers, wanted: tuple[str, bool]) -> str:
    """
    Wait until a cluster that has just started shows these markers.

    :raises CheckFailed: when it does not.
    """
    deadline = time.monotonic() + SETTLED_S
    while True:
        try:
            seen = markers.seen()
            if seen == wanted:
                return f"{markers.where}: it is {seen[0]}, the later one is {'there' if seen[1] else 'gone'}"
            problem = f"the marker says {seen[0]!r}, the later one is {'there' if seen[1] else 'gone'}"
        except EtcdkeepError as err:  # right after an outage, even a valid account may be refused
            problem = str(err)
        if time.monotonic() > deadline:
            raise CheckFailed(f"{markers.where}, after {SETTLED_S:.0f} s: {problem}")
        time.sleep(1)
