"""Connections of a plan: opened once, and anew after a cut."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from etcdkeep.errors import Unreachable
from etcdkeep.ports import KubeApi, StreamLimits
from etcdkeep.restore.options import Options
from etcdkeep.site.restore_world import RestoreWorld
from tests.unit.restore.admin_api import AdminApi
from tests.unit.restore.builders import PLANNED_AT, make_cluster, make_facts, make_machine, make_manifest, planned
from tests.unit.restore.machine import Fault, Machine

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = StreamLimits(1)
LOOK = ("test", "-e", "/var")


def test_a_cut_connection_is_opened_again_and_all_are_closed_at_the_end() -> None:
    machine = make_machine()
    opened: list[str] = []
    closed: list[str] = []

    @contextmanager
    def open_node(address: str) -> Iterator[Machine]:
        opened.append(address)
        yield machine
        closed.append(address)

    def open_api() -> KubeApi:
        return AdminApi()

    plan = planned(make_cluster(), make_manifest(), [make_facts()], Options("r1", PLANNED_AT))
    with RestoreWorld(
        plan, open_node=open_node, open_api=open_api, open_artifact=lambda name: iter([name.encode()])
    ) as world:
        world.runner("cp-0").run(LOOK, LIMITS)
        world.runner("cp-0").run(LOOK, LIMITS)
        assert opened == ["10.0.0.1"]
        machine.fault = Fault(machine.count + 1, "cut", before=True)
        with pytest.raises(Unreachable):
            world.runner("cp-0").run(LOOK, LIMITS)
        assert closed == ["10.0.0.1"]
        world.runner("cp-0").run(LOOK, LIMITS)
        assert list(world.artifact("etcd.db")) == [b"etcd.db"]
    assert (opened, closed) == (["10.0.0.1"] * 2, ["10.0.0.1"] * 2)
