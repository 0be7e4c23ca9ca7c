"""A plan walked, killed, rolled back and printed, with real files, GNU programs and etcdutl; then a real etcd on the result."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from etcdkeep.config.access import Ssh
from etcdkeep.errors import StepFailed
from etcdkeep.restore.engine import Engine
from etcdkeep.restore.runbook import render_runbook
from tests.etcd import running_etcd
from tests.integration.restore.local_node import Killed, LocalNode, LocalWorld
from tests.integration.restore.local_restore import damaged_copy, expect_as_before, expect_restored, make_plan

if TYPE_CHECKING:
    from pathlib import Path


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
    folder = damaged_copy(unsealed, tmp_path / "damaged")
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
