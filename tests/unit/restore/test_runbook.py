"""The runbook as text; tests/integration/restore runs one line by line."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from etcdkeep.config import JumpHost, Ssh
from etcdkeep.restore.planning import Options
from etcdkeep.restore.plans import plan_restore
from etcdkeep.restore.preflight import Objection
from etcdkeep.restore.runbook import render_runbook, undo_line
from tests.unit.restore.builders import PLANNED_AT, make_cluster, make_facts, make_manifest, node_names

if TYPE_CHECKING:
    from etcdkeep.restore.steps import Plan

THROUGH_BASTION = Ssh(user="ops", port=2022, jump=JumpHost(host="bastion", port=2222))


def make_plan(way: str = "kubelet") -> Plan:
    facts = [make_facts(name, index) for index, name in enumerate(node_names(3))]
    return plan_restore(make_cluster(), make_manifest(3), facts, Options("r1", PLANNED_AT, way=way))  # type: ignore[arg-type]


@pytest.mark.parametrize("way", ["kubelet", "manifests"])
def test_bash_can_read_it(way: str) -> None:
    bash = shutil.which("bash")
    assert bash, "bash is missing"
    page = render_runbook(make_plan(way), THROUGH_BASTION)
    checked = subprocess.run([bash, "-n"], input=page, text=True, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_it_names_real_values_and_the_files_of_unseal() -> None:
    page = render_runbook(make_plan(), THROUGH_BASTION, [Objection("warning", "it is old")])
    assert "-p 2022 ops@10.0.0.2" in page
    assert "-i access/ssh_key -o IdentitiesOnly=yes" in page
    assert "-W %h:%p -p 2222 ubuntu@bastion" in page
    assert "# - warning: it is old" in page
    assert "< etcd.db" in page
    assert "< control-plane-cp-1.tar" in page
    assert "access/known_hosts" in page


def test_every_step_and_every_way_back_stands_in_it() -> None:
    plan = make_plan()
    page = render_runbook(plan, Ssh())
    forward, backward = page.split("# === Back to the state before")
    for step in plan.steps:
        if step.action is not None or step.done is not None:
            assert f"# {step.place}: {step.words}" in forward
        if step.reversible:
            assert f"undo: {step.words}" in backward


def test_the_way_back_of_one_step_is_one_line() -> None:
    plan = make_plan()
    step = next(step for step in plan.steps if step.name == "aside-data.cp-1")
    line = undo_line(plan, step)
    assert "\n" not in line
    assert "/var/lib/.etcdkeep/r1/old/member /var/lib/etcd/member" in line
    assert line.endswith("# aside-data.cp-1")
