"""A restore planned for this machine as a node, and what the node is like before and after it."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from etcdkeep.control_plane.static_pod import EtcdStaticPod
from etcdkeep.restore.found.nodes import PathFacts
from etcdkeep.restore.found.tools import Tool
from etcdkeep.restore.options import Options
from tests.unit.restore.builders import make_cluster, make_facts, make_manifest, planned

if TYPE_CHECKING:
    from pathlib import Path

    from etcdkeep.restore.steps import Plan
    from tests.integration.restore.local_node import LocalNode

KUBELET = {"stop": ["kubelet-stop"], "start": ["kubelet-start"], "running": ["kubelet-running"]}
ETCDUTL = Tool("node", "etcdutl", "", "3.5.1")


def make_plan(node: LocalNode, folder: Path, tool: Tool = ETCDUTL) -> Plan:
    """Plan to restore onto `node` with `tool` what lies in `folder`, as ``unseal`` leaves it."""
    manifest = make_manifest()
    sealed = []
    for artifact, name in zip(manifest.artifacts, ("etcd.db", "control-plane-cp-0.tar"), strict=True):
        data = (folder / name).read_bytes()
        plaintext = artifact.plaintext.model_copy(
            update={"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        )
        sealed.append(artifact.model_copy(update={"plaintext": plaintext}))
    manifest = manifest.model_copy(
        update={"artifacts": tuple(sealed), "snapshot": manifest.snapshot.model_copy(update={"revision": 2})}
    )
    data = str(node.data)
    facts = make_facts(
        etcd=EtcdStaticPod("cp-0", "etcd:3.5.1", data, None, "", "http://127.0.0.1:2380"),
        data=PathFacts(data, "0:0", "700"),
        member=PathFacts(f"{data}/member", "0:0", "700"),
        pki=PathFacts(str(node.pki), "0:0", "755"),
        tools=(tool,),
    )
    cluster = make_cluster(control_plane={"kubelet": KUBELET})
    plan = planned(cluster, manifest, [facts], Options("r1", datetime(2026, 11, 23, tzinfo=UTC)))
    steps = (replace(step, wait_s=min(step.wait_s, 1.0)) for step in plan.steps)
    return replace(plan, steps=tuple(step for step in steps if not step.name.startswith("owner")))


def expect_restored(node: LocalNode) -> None:
    """The node is as in the backup, and nothing of the old state is lost."""
    assert (node.data / "member/snap/db").exists()
    assert not (node.data / "member/live").exists()
    assert (node.root / "var/lib/.etcdkeep/r1/old/member/live").read_text() == "the live data"
    assert (node.pki / "ca.crt").read_text() == "ca of the backup"
    assert (node.pki / "only-live.crt").read_text() == "kept"
    assert (node.pki / "etcd/ca.key").stat().st_mode & 0o777 == 0o600
    assert (node.root / "started-with").read_text() == "snap\nwal\n"


def expect_as_before(node: LocalNode) -> None:
    """The node runs with the state of before."""
    assert (node.data / "member/live").read_text() == "the live data"
    assert (node.pki / "ca.crt").read_text() == "live ca"
    assert not (node.pki / "etcd").exists()
    assert (node.root / "kubelet").exists()
    assert (node.root / "running").exists()


def damaged_copy(unsealed: Path, folder: Path) -> Path:
    """Copy such a folder, with one bit of the snapshot turned."""
    shutil.copytree(unsealed, folder)
    data = bytearray((unsealed / "etcd.db").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "etcd.db").write_bytes(data)
    return folder
