"""The same with the real docker: its client, its daemon, and an image of the vendor's name with nothing but etcd's tools."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingUnixStreamServer
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from etcdkeep.errors import CommandFailed, EtcdkeepError, StepFailed
from etcdkeep.ports import StreamLimits
from etcdkeep.restore.engine import Engine, StepEvent
from etcdkeep.restore.found.tools import MemberFlags, Tool, remove_remains_argv, restore_args, tool_argv
from etcdkeep.restore.probe.nodes import gather_node
from tests.docker_engine import IMAGE, docker, imported
from tests.etcd import running_etcd
from tests.integration.restore.local_node import LocalNode, LocalWorld
from tests.integration.restore.local_restore import damaged_copy, expect_as_before, expect_restored, make_plan
from tests.unit.restore.builders import make_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from etcdkeep.restore.found.nodes import NodeFacts
    from etcdkeep.restore.steps import Plan

CONTAINER = "etcdkeep-r1"
FOR_EVER = ("etcdctl", "--endpoints=http://127.0.0.1:1", "--dial-timeout=1h", "--command-timeout=1h", "get", "key")


def look(node: LocalNode, restore_image: str | None = None) -> NodeFacts:
    """Look the node over as a restore does."""
    overrides = {"control_plane": {"restore_image": restore_image}} if restore_image else {}
    return gather_node(node, make_cluster(**overrides), "cp-0", "127.0.0.1")


@pytest.fixture
def tool(etcd_util: str) -> Tool:
    """The tool as a look at the node finds it."""
    return Tool("docker", "etcdutl", IMAGE, "3.5.1", image_id=etcd_util)


def test_the_vendors_image_is_found_by_the_profile_alone(node: LocalNode, tool: Tool) -> None:
    found = [each for each in look(node).tools if each.image == IMAGE]
    assert found == [tool, replace(tool, program="etcdctl")]


@pytest.mark.parametrize("program", ["etcdutl", "etcdctl"])
def test_a_real_etcd_starts_from_what_a_container_restored(
    node: LocalNode, unsealed: Path, tool: Tool, program: str
) -> None:
    plan = make_plan(node, unsealed, replace(tool, program=program))
    Engine(plan, LocalWorld(node, unsealed)).walk()
    expect_restored(node)
    with running_etcd(node.data, "--name", "cp-0") as etcd:
        assert "as in the backup" in etcd.ctl("get", "/registry/configmaps/default/marker")
    assert containers() == []


def test_and_back(node: LocalNode, unsealed: Path, tool: Tool) -> None:
    engine = Engine(make_plan(node, unsealed, tool), LocalWorld(node, unsealed))
    engine.walk()
    engine.roll_back()
    expect_as_before(node)


def test_a_damaged_snapshot_stops_nothing(node: LocalNode, unsealed: Path, tool: Tool, tmp_path: Path) -> None:
    folder = damaged_copy(unsealed, tmp_path / "damaged")
    with pytest.raises(StepFailed, match="expected sha256") as caught:
        Engine(make_plan(node, folder, tool), LocalWorld(node, folder)).walk()
    assert caught.value.step == "unpack.cp-0"
    expect_as_before(node)
    assert containers() == []


def test_a_folder_with_something_in_it_is_no_target(node: LocalNode, unsealed: Path, tool: Tool) -> None:
    (node.root / "taken").mkdir()
    (node.root / "taken/precious").write_text("kept")
    (node.root / "etcd.db").write_bytes((unsealed / "etcd.db").read_bytes())
    member = MemberFlags("cp-0", "http://127.0.0.1:2380", "cp-0=http://127.0.0.1:2380", "token")
    args = restore_args(f"{node.root}/etcd.db", f"{node.root}/taken", member, 0)
    with pytest.raises(CommandFailed, match="not empty"):
        node.run(tool_argv(tool, args, folder=str(node.root), name="etcdkeep-test"), StreamLimits(60))
    assert [path.name for path in (node.root / "taken").iterdir()] == ["precious"]


def test_what_a_killed_worker_left_is_ended_and_set_aside(node: LocalNode, unsealed: Path, tool: Tool) -> None:
    plan, world = make_plan(node, unsealed, tool), LocalWorld(node, unsealed)
    Engine(plan, world).walk(("stage",))
    half_done = node.root / "var/lib/.etcdkeep/r1/data.part"
    half_done.mkdir()
    (half_done / "half").write_text("kept")
    docker("run", "--detach", "--name", CONTAINER, "--network", "none", IMAGE, *FOR_EVER)
    Engine(plan, world).walk()
    expect_restored(node)
    assert containers() == []
    assert (half_done.with_name("stray") / "data.part/half").read_text() == "kept"


def test_a_container_that_ended_by_itself_meanwhile_is_no_trouble(node: LocalNode, tool: Tool) -> None:
    node.run(remove_remains_argv(tool, str(node.root), "etcdkeep-nobody"), StreamLimits(60))


def test_an_image_that_went_after_the_plan_is_not_pulled(node: LocalNode, unsealed: Path, tool: Tool) -> None:
    with imported(IMAGE.replace(":TEST", ":GONE"), ["etcdutl"]) as image_id:
        plan = make_plan(node, unsealed, replace(tool, image_id=image_id))
    with pytest.raises(StepFailed, match="No such image") as caught:
        Engine(plan, LocalWorld(node, unsealed)).walk()
    assert caught.value.step == "unpack.cp-0"
    assert "Unable to find image" not in str(caught.value)
    expect_as_before(node)


@pytest.mark.usefixtures("etcd_util")
def test_an_image_that_is_not_there_is_named(node: LocalNode) -> None:
    facts = look(node, "registry.example.net/etcd-util:{version}")
    assert "docker" not in {tool.runtime for tool in facts.tools}
    assert facts.tool_problems == ("docker has no image registry.example.net/etcd-util:{version}",)


def test_a_daemon_that_is_down_is_named(
    node: LocalNode, unsealed: Path, tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(node, unsealed, tool)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    facts = look(node)
    assert "docker" not in {tool.runtime for tool in facts.tools}
    (problem,) = facts.tool_problems
    assert problem.startswith(
        "docker is installed but does not answer: exit code 1, 'Cannot connect to the Docker daemon"
    )
    expect_stuck_before_the_container(node, unsealed, plan, "Is the docker daemon running")


def test_a_daemon_that_answers_with_an_error_is_named(
    node: LocalNode, unsealed: Path, tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(node, unsealed, tool)
    with daemon_that_fails(tmp_path / "ill.sock"):
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/ill.sock")
        facts = look(node)
        assert any("no space left on device" in problem for problem in facts.tool_problems)
        expect_stuck_before_the_container(node, unsealed, plan, "no space left on device")


def expect_stuck_before_the_container(node: LocalNode, unsealed: Path, plan: Plan, said: str) -> None:
    """The walk ends with the daemon's own words, with nothing stopped."""
    events: list[StepEvent] = []
    with pytest.raises(EtcdkeepError, match=said):
        Engine(plan, LocalWorld(node, unsealed), events.append, unreachable_s=1).walk()
    assert (events[-1].step, events[-1].state) == ("remains.cp-0", "failed")
    expect_as_before(node)


def containers() -> list[str]:
    """Return the containers of the run and of the looks at the node that are still there."""
    return docker("ps", "--all", "--quiet", "--filter", "name=^etcdkeep-").split()


@contextmanager
def daemon_that_fails(socket: Path) -> Iterator[None]:
    """Serve docker's API, and answer every call with an error."""

    class Fails(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Api-Version", "1.41")
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(500)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"message": "open /var/lib/docker/tmp: no space left on device"}')

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with ThreadingUnixStreamServer(str(socket), Fails) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
