"""Clusters, manifests, facts and machines that fit each other."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from etcdkeep.config.loading import parse_config
from etcdkeep.control_plane.static_pod import ApiserverStaticPod, EtcdStaticPod
from etcdkeep.restore.found.nodes import NodeFacts, PathFacts
from etcdkeep.restore.found.pods import PodFacts
from etcdkeep.restore.found.tools import Tool
from etcdkeep.restore.judge.judgement import Judgement, judge_live
from etcdkeep.restore.plan.any_cluster import plan_restore
from etcdkeep.sets.manifest import Artifact, BackupRun, Identity, Manifest, Member, Plaintext, SnapshotFacts, Stored
from tests.unit.restore.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from etcdkeep.config.models import Cluster
    from etcdkeep.ports import CommandRunner, KubeApi
    from etcdkeep.restore.options import Options
    from etcdkeep.restore.steps import Plan

TAKEN_AT = datetime(2026, 11, 20, 2, 30, tzinfo=UTC)
PLANNED_AT = datetime(2026, 11, 23, 4, 15, tzinfo=UTC)
SNAPSHOT = "restored data@1000"
OLD_KEYS = {"/pki": None, "/pki/ca.crt": "live ca", "/pki/only-live.crt": "kept"}
CA = "c" * 64
ETCD_ID = "e" * 16


def make_cluster(**overrides: Any) -> Cluster:
    """A cluster as the configuration gives it; `control_plane` overrides go through the profile."""
    entry = {
        "name": "prod",
        "profile": "gke-admin",
        "kubeconfig": {"path": "/k"},
        "repository": "file:///srv",
        "age_recipients": ["age1z04tf0zf3evfv40maecvnxvqevzqfc7qj2ejzg775yvumsr3l9jqe4lmqv"],
        "signing": {"public_keys": ["q2y4mY0yS1lD0l1x0yN3o8Zb8mS3p2JmG3mVxgk5b0E="]},
    } | overrides
    config = parse_config(json.dumps({"schema_version": 1, "clusters": [entry]}), "test")
    config.raise_for_problems()
    return config.cluster(str(entry["name"]))


def node_names(count: int) -> list[str]:
    """``cp-0`` and so on."""
    return [f"cp-{index}" for index in range(count)]


def keys_archive(node: str) -> str:
    """Stand for a node's tar: the machine unpacks JSON."""
    return json.dumps({"pki/ca.crt": "ca of the backup", "pki/sa.key": f"key of {node}"})


def make_artifact(name: str, kind: str, content: str, node: str | None = None) -> Artifact:
    """An artifact with the digest of its plaintext."""
    data = content.encode()
    return Artifact.model_validate(
        {
            "name": name,
            "kind": kind,
            "node": node,
            "plaintext": Plaintext(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()),
            "stored": Stored(size_bytes=1, sha256="0", crc32c=0),
            "recipients": ("age1",),
        }
    )


def make_manifest(nodes: int = 1, **overrides: Any) -> Manifest:
    """A sound set of a cluster with that many members."""
    names = node_names(nodes)
    fields: dict[str, Any] = {
        "cluster": "prod",
        "profile": "gke-admin",
        "backup_id": "20261120T023000Z-1f0c9a3e",
        "taken_at": TAKEN_AT,
        "revision": 1000,
        "run": BackupRun(dag_id="backup__prod", run_id="scheduled"),
        "identity": Identity(kube_system_uid="uid-1", namespace_uid="uid-1", etcd_cluster_id=ETCD_ID, ca_sha256=CA),
        "versions": {"kubernetes": "v1.36.2", "etcd": "3.5.16"},
        "members": tuple(
            Member(name=name, pod=f"etcd-{name}", node=name, address=f"10.0.0.{index + 1}")
            for index, name in enumerate(names)
        ),
        "snapshot": SnapshotFacts(
            member=names[0],
            taken_at=TAKEN_AT,
            hash=1,
            revision=1000,
            total_keys=5,
            size_bytes=100,
            tool="etcdctl",
            tool_version="3.5.16",
        ),
        "artifacts": (
            make_artifact("etcd.db.zst.age", "etcd", SNAPSHOT),
            *(
                make_artifact(f"control-plane-{name}.tar.zst.age", "control-plane", keys_archive(name), name)
                for name in names
            ),
        ),
        "signing_key": "k",
    }
    return Manifest(**(fields | overrides))


def make_facts(name: str = "cp-0", index: int = 0, **overrides: Any) -> NodeFacts:
    """A healthy node, quiet about everything else."""
    address = f"10.0.0.{index + 1}"
    data = "/var/lib/etcd"
    fields: dict[str, Any] = {
        "node": name,
        "address": address,
        "etcd": EtcdStaticPod(
            name,
            "registry.k8s.io/etcd:3.5.16-0",
            data,
            None,
            f"{name}=https://{address}:2380",
            f"https://{address}:2380",
        ),
        "apiserver": ApiserverStaticPod(
            "registry.k8s.io/kube-apiserver:v1.36.2",
            f"https://{address}:6443",
            "/p/ca.crt",
            "/p/c.crt",
            "/p/c.key",
            "/p/k.crt",
            "/p/k.key",
        ),
        "manifests": ("etcd.yaml", "kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml"),
        "data": PathFacts(data, "2001:2001", "700"),
        "member": PathFacts(f"{data}/member", "2001:2001", "700"),
        "pki": PathFacts("/etc/kubernetes/pki", "0:0", "755"),
        "manifests_dir": PathFacts("/etc/kubernetes/manifests", "0:0", "755"),
        "mount_points": (),
        "free_bytes": 100 * 2**30,
        "memory_bytes": 8 * 2**30,
        "kubelet_running": True,
        "running": ("etcd", "kube-apiserver"),
        "tools": (Tool("node", "etcdutl", "", "3.5.16", bumps=True),),
        "ca_sha256": CA,
        "etcd_healthy": False,
    }
    return NodeFacts(**(fields | overrides))


def make_machine(name: str = "cp-0", *, wiped: bool = False) -> Machine:
    """A machine on which the control plane runs; `wiped`: its etcd data is gone."""
    machine = Machine(name, where=f"node {name}")
    machine.put("/var/lib")
    machine.put("/etc/kubernetes")
    for pod in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        machine.put(f"/etc/kubernetes/manifests/{pod}.yaml", f"manifest of {pod}")
    for path, content in OLD_KEYS.items():
        machine.put(f"/etc/kubernetes{path}", content)
    machine.live()
    machine.put("/var/lib/etcd")
    if not wiped:
        machine.put("/var/lib/etcd/member/snap/db", f"live data of {name}@1500")
    return machine


@dataclass
class FakeWorld:
    """The places of a plan, and the plaintext of its set."""

    machines: dict[str, Machine]
    artifacts: dict[str, str] = field(default_factory=dict)

    def runner(self, place: str) -> CommandRunner:
        return self.machines[place]

    def api(self) -> KubeApi:
        raise AssertionError("no plan for nodes asks the API")

    def artifact(self, name: str) -> Iterator[bytes]:
        yield self.artifacts[name].encode()


def make_world(nodes: int = 1, *, wiped: bool = False) -> FakeWorld:
    """Machines and artifacts for :func:`make_manifest`."""
    names = node_names(nodes)
    artifacts = {"etcd.db": SNAPSHOT} | {f"control-plane-{name}.tar": keys_archive(name) for name in names}
    return FakeWorld({name: make_machine(name, wiped=wiped) for name in names}, artifacts)


def judged(cluster: Cluster, manifest: Manifest, facts: Sequence[NodeFacts] | PodFacts, options: Options) -> Judgement:
    """Return what the judge says of facts that a plan is made from."""
    return judge_live(cluster, manifest, facts if isinstance(facts, PodFacts) else tuple(facts), options)


def planned(cluster: Cluster, manifest: Manifest, facts: Sequence[NodeFacts] | PodFacts, options: Options) -> Plan:
    """Return the plan of facts that can be planned."""
    judgement = judged(cluster, manifest, facts, options)
    assert judgement.targets is not None, judgement.findings
    return plan_restore(judgement.targets)
