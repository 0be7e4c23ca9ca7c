"""Finding and calling the tool that restores."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from etcdkeep.restore.found import tools
from etcdkeep.restore.found.tools import Tool

if TYPE_CHECKING:
    from pathlib import Path

UTIL = "gcr.io/gke-on-prem-release/etcd-util:1.5.0-gke.0"
ETCD = "registry.k8s.io/etcd:3.5.16-0"
USAGE = '--data-dir="" Path\n --initial-cluster-token="etcd-cluster"\n'


@pytest.mark.parametrize(
    ("restore_image", "images"),
    [
        pytest.param("gcr.io/gke-on-prem-release/etcd-util:{version}", [UTIL, ETCD], id="any-version-of-the-profiles"),
        pytest.param(UTIL, [UTIL, ETCD], id="exact"),
        pytest.param("registry.local/other:1", [ETCD], id="the-profiles-is-not-there"),
        pytest.param(None, [ETCD], id="etcds-own"),
    ],
)
def test_only_images_that_are_there_are_asked(restore_image: str | None, images: list[str]) -> None:
    listed = tools.parse_images(f"docker.io/library/busybox:1 sha256:1\n{UTIL} sha256:2\n{ETCD} sha256:3\n")
    found = tools.candidates({"docker": listed}, restore_image, ETCD)
    assert [tool.image for tool in found if tool.program == "etcdutl"] == ["", *images]
    assert all(tool.image_id == listed.get(tool.image, "") for tool in found)


def test_a_listing_without_ids() -> None:
    assert tools.parse_images(f"{UTIL}\n\n{ETCD}\n") == {UTIL: "", ETCD: ""}


def test_a_program_says_what_it_can() -> None:
    tool = tools.describe_tool(
        Tool("node", "etcdutl"),
        "etcdutl version: 3.5.16\nAPI version: 3.5",
        USAGE + "--bump-revision=0 --mark-compacted",
    )
    assert tool == Tool("node", "etcdutl", "", "3.5.16", bumps=True)
    old = tools.describe_tool(Tool("node", "etcdctl"), "etcdctl version: 3.4.13", USAGE)
    assert old == Tool("node", "etcdctl", "", "3.4.13", bumps=False)


def test_etcdctl_of_3_6_cannot_restore() -> None:
    assert (
        tools.describe_tool(
            Tool("node", "etcdctl"), "etcdctl version: 3.6.1", "COMMANDS:\n save\tStores an etcd node snapshot"
        )
        is None
    )


@pytest.mark.parametrize(
    ("bump", "expected"),
    [pytest.param(True, "c", id="bump-wanted"), pytest.param(False, "b", id="no-bump-wanted")],
)
def test_the_best_tool(bump: bool, expected: str) -> None:
    found = [
        Tool("docker", "etcdctl", "a", "3.4.1"),
        Tool("docker", "etcdctl", "b", "3.5.1"),
        Tool("docker", "etcdctl", "c", "3.6.1", bumps=True),
    ]
    best = tools.best_tool(found, "3.5.16", bump=bump)
    assert best is not None
    assert best.image == expected
    assert tools.best_tool([], "3.5.16", bump=bump) is None


@pytest.mark.parametrize(
    ("tool", "argv"),
    [
        pytest.param(
            Tool("node", "etcdutl"),
            'sudo -n sh -c echo $$ > "$1"; shift; exec "$@" sh /f/n.pid env ETCDCTL_API=3 etcdutl version',
            id="node",
        ),
        pytest.param(
            Tool("nerdctl", "etcdctl", "i"),
            "sudo -n nerdctl --namespace k8s.io run --rm --name n --pull never --network none --user 0:0 -v /f:/f --env ETCDCTL_API=3 i etcdctl version",
            id="nerdctl",
        ),
        pytest.param(
            Tool("docker", "etcdctl", "i", labelled=True, image_id="sha256:1"),
            "sudo -n docker run --rm --name n --network none --user 0:0 --security-opt label=disable -v /f:/f --env ETCDCTL_API=3 sha256:1 etcdctl version",
            id="docker-with-selinux",
        ),
        pytest.param(
            Tool("ctr", "etcdutl", "i"),
            "sudo -n ctr --namespace k8s.io run --rm --user 0:0 --env ETCDCTL_API=3 --mount type=bind,src=/f,dst=/f,options=rbind:rw i n etcdutl version",
            id="ctr",
        ),
    ],
)
def test_calls(tool: Tool, argv: str) -> None:
    assert " ".join(tools.tool_argv(tool, ("version",), folder="/f", name="n")) == argv


def test_a_call_that_still_runs_is_found_and_ended(tmp_path: Path) -> None:
    tool, folder = Tool("node", "tail", prefix=()), str(tmp_path)
    seen = tools.remains_argv(tool, folder, "n")
    assert subprocess.check_output(seen) == b""
    running = subprocess.Popen(tools.tool_argv(tool, ("-f", "/dev/null", f"{folder}/file"), folder=folder, name="n"))
    while not subprocess.check_output(seen):
        assert running.poll() is None
    subprocess.run(tools.remove_remains_argv(tool, folder, "n"), check=True)
    assert running.wait(10) == -signal.SIGKILL
    assert subprocess.check_output(seen) == b""


def test_a_number_that_another_process_has_by_now_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "n.pid").write_text(f"{os.getpid()}\n")
    tool = Tool("node", "etcdutl", prefix=())
    assert subprocess.check_output(tools.remains_argv(tool, str(tmp_path), "n")) == b""


@pytest.mark.parametrize(
    ("image", "version"),
    [
        pytest.param(ETCD, "3.5.16", id="kubeadm"),
        pytest.param("gcr.io/gke/etcd:v3.4.13-0-gke.1", "3.4.13", id="gke"),
        pytest.param("registry.example.net:5000/etcd@sha256:abc", "", id="digest"),
    ],
)
def test_the_version_in_an_images_tag(image: str, version: str) -> None:
    assert tools.image_version(image) == version
