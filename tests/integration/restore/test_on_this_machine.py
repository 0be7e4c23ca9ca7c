"""A plan walked, killed, taken back and printed, with real files, GNU programs and etcdutl; then a real etcd on the result."""

from __future__ import annotations

import hashlib
import subprocess
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from etcdkeep.config import Ssh
from etcdkeep.errors import StepFailed
from etcdkeep.restore.engine import Engine
from etcdkeep.restore.facts import PathFacts
from etcdkeep.restore.planning import Options
from etcdkeep.restore.plans import plan_restore
from etcdkeep.restore.runbook import render_runbook
from etcdkeep.restore.tools import Tool
from etcdkeep.static_pod import EtcdStaticPod
from tests.etcd import running_etcd
from tests.integration.restore.local_node import Killed, LocalNode, LocalWorld, write_keys_archive
from tests.unit.restore.builders import make_cluster, make_facts, make_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from etcdkeep.restore.steps import Plan

KUBELET = {"stop": ["kubelet-stop"], "start": ["kubelet-start"], "running": ["kubelet-running"]}


@pytest.fixture(scope="module")
def unsealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as ``unseal`` leaves it, of an etcd with one key."""
    folder = tmp_path_factory.mktemp("unsealed")
    with running_etcd(folder / "etcd") as etcd:
        etcd.put(b"/registry/configmaps/default/marker", b"as in the backup")
        etcd.snapshot(folder / "etcd.db")
    write_keys_archive(folder / "control-plane-cp-0.tar")
    return folder


@pytest.fixture
def node(tmp_path: Path) -> LocalNode:
    node = LocalNode(tmp_path / "node")
    node.root.mkdir()
    node.prepare()
    return node


def make_plan(node: LocalNode, folder: Path) -> Plan:
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
        tools=(Tool("node", "etcdutl", "", "3.5.1"),),
    )
    cluster = make_cluster(control_plane={"kubelet": KUBELET})
    plan = plan_restore(cluster, manifest, [facts], Options("r1", datetime(2026, 11, 23, tzinfo=UTC)))
    steps = (replace(step, wait_s=min(step.wait_s, 1.0)) for step in plan.steps)
    return replace(plan, steps=tuple(step for step in steps if not step.name.startswith("owner")))


def expect_restored(node: LocalNode) -> None:
    assert (node.data / "member/snap/db").exists()
    assert not (node.data / "member/live").exists()
    assert (node.root / "var/lib/.etcdkeep/r1/old/member/live").read_text() == "the live data"
    assert (node.pki / "ca.crt").read_text() == "ca of the backup"
    assert (node.pki / "only-live.crt").read_text() == "kept"
    assert (node.pki / "etcd/ca.key").stat().st_mode & 0o777 == 0o600
    assert (node.root / "started-with").read_text() == "snap\nwal\n"


def expect_as_before(node: LocalNode) -> None:
    assert (node.data / "member/live").read_text() == "the live data"
    assert (node.pki / "ca.crt").read_text() == "live ca"
    assert not (node.pki / "etcd").exists()
    assert (node.root / "kubelet").exists()
    assert (node.root / "running").exists()


def test_a_real_etcd_starts_from_what_was_restored(node: LocalNode, unsealed: Path) -> None:
    Engine(make_plan(node, unsealed), LocalWorld(node, unsealed)).walk()
    expect_restored(node)
    with running_etcd(node.data, "--name", "cp-0") as etcd:
        assert "as in the backup" in etcd.ctl("get", "/registry/configmaps/default/marker")


def test_and_back(node: LocalNode, unsealed: Path) -> None:
    engine = Engine(make_plan(node, unsealed), LocalWorld(node, unsealed))
    engine.walk()
    engine.roll_back()
    expect_as_before(node)
    engine.walk()
    expect_restored(node)


@pytest.mark.parametrize("die_at", range(20, 120, 33))
@pytest.mark.parametrize("way", ["on", "back"])
def test_a_killed_worker_is_succeeded(node: LocalNode, unsealed: Path, die_at: int, way: str) -> None:
    plan, world = make_plan(node, unsealed), LocalWorld(node, unsealed)
    node.die_at = die_at
    with suppress(Killed):
        Engine(plan, world).walk()
    node.die_at = 0
    successor = Engine(plan, world)
    if way == "on":
        successor.walk()
        expect_restored(node)
    else:
        successor.roll_back()
        expect_as_before(node)


def test_a_damaged_snapshot_stops_nothing(node: LocalNode, unsealed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    for name in ("etcd.db", "control-plane-cp-0.tar"):
        (folder / name).write_bytes((unsealed / name).read_bytes())
    data = bytearray((unsealed / "etcd.db").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "etcd.db").write_bytes(data)
    with pytest.raises(StepFailed) as caught:
        Engine(make_plan(node, folder), LocalWorld(node, folder)).walk()
    assert caught.value.step == "unpack.cp-0"
    expect_as_before(node)


def test_the_printed_runbook_does_the_same(node: LocalNode, unsealed: Path) -> None:
    page = render_runbook(make_plan(node, unsealed), Ssh())
    done = subprocess.run(
        ["bash"],
        input=page,
        text=True,
        cwd=unsealed,
        env=node.environment,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expect_restored(node)
    undo = page.split("# === Back to the state before")[1].splitlines()[1:]
    head = page.split("# === 1.")[0]
    lines = [line.removeprefix("#   ") for line in undo if line.startswith("#   ")]
    back = subprocess.run(
        ["bash"],
        input="\n".join([head, *lines]),
        text=True,
        cwd=unsealed,
        env=node.environment,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert back.returncode == 0, back.stderr[-2000:]
    expect_as_before(node)
