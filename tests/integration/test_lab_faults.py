"""Every switch that makes the lab misbehave, met by a stock client."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import IncompleteRead
from typing import TYPE_CHECKING, Any

import pytest
import websocket

from lab.layout import BUCKET
from lab.waiting import wait_for
from tests.integration.test_lab_nodes import Ssh

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab import Site
    from lab.site import ClusterHandle

SIZE = 3 * 2**20
STATUS_CHANNEL = 3


@pytest.fixture
def harbor(site: Site) -> ClusterHandle:
    return site.clusters["harbor"]


@pytest.fixture
def ssh(site: Site, tmp_path: Path) -> Ssh:
    return Ssh(site, tmp_path)


@pytest.fixture
def payload(harbor: ClusterHandle) -> Iterator[tuple[str, bytes]]:
    """A file in the etcd container: its path in there, and its bytes."""
    data = os.urandom(SIZE)
    path = harbor.node.container_folder("etcd") / "tmp/payload"
    path.write_bytes(data)
    yield f"{harbor.node.view}/containers/etcd/etcd/tmp/payload", data
    path.unlink(missing_ok=True)


class Received:
    """What an exec brought: bytes per channel, the status, and how the connection ended."""

    def __init__(self) -> None:
        self.channels: dict[int, bytes] = {}
        self.ending = ""

    @property
    def stdout(self) -> bytes:
        return self.channels.get(1, b"")

    @property
    def status(self) -> dict[str, Any] | None:
        text = self.channels.get(STATUS_CHANNEL)
        return json.loads(text) if text else None


def run_exec(
    cluster: ClusterHandle, *argv: str, protocol: str = "v5.channel.k8s.io", timeout_s: float = 2.0
) -> Received:
    """Run a command with a plain WebSocket client, and note every frame."""
    server = json.loads(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    query = urllib.parse.urlencode([("command", word) for word in argv] + [("stdout", "1"), ("stderr", "1")])
    url = f"{server.replace('https', 'wss')}/api/v1/namespaces/kube-system/pods/etcd-{cluster.node.name}/exec?{query}"
    pki = cluster.node.root / "etc/kubernetes/pki"
    tls = {
        "ca_certs": str(pki / "ca.crt"),
        "certfile": str(cluster.node.root.parent / "admin.crt"),
        "keyfile": str(cluster.node.root.parent / "admin.key"),
    }
    client = websocket.create_connection(url, sslopt=tls, subprotocols=[protocol], timeout=timeout_s)
    received = Received()
    with contextlib.closing(client):
        while not received.ending:
            try:
                opcode, frame = client.recv_data()
            except websocket.WebSocketTimeoutException:
                received.ending = "silence"
            except (websocket.WebSocketException, OSError):
                received.ending = "cut"
            else:
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    received.ending = f"close {int.from_bytes(frame[:2], 'big')}"
                else:
                    received.channels[frame[0]] = received.channels.get(frame[0], b"") + frame[1:]
    return received


class TestExecStream:
    @pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v5.channel.k8s.io"])
    def test_without_a_fault(self, harbor: ClusterHandle, payload: tuple[str, bytes], protocol: str) -> None:
        received = run_exec(harbor, "cat", payload[0], protocol=protocol)
        assert received.stdout == payload[1]
        assert received.status == {"metadata": {}, "status": "Success"}
        assert received.ending == "close 1000"

    def test_status_of_a_failed_command(self, harbor: ClusterHandle) -> None:
        status = run_exec(harbor, "sh", "-c", "exit 4").status
        assert status is not None
        assert (status["status"], status["reason"]) == ("Failure", "NonZeroExitCode")
        assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "4"}]

    def test_status_of_a_command_that_cannot_start(self, harbor: ClusterHandle) -> None:
        status = run_exec(harbor, "no-such-program").status
        assert status is not None
        assert (status["reason"], status["code"]) == ("InternalError", 500)
        assert "OCI runtime exec failed" in status["message"]

    @pytest.mark.parametrize(
        ("action", "ending"),
        [
            pytest.param("cut", "cut", id="cut"),
            pytest.param("close", "close 1000", id="clean-close-without-status"),
            pytest.param("stall", "silence", id="stall"),
        ],
    )
    def test_ends_early(
        self, site: Site, harbor: ClusterHandle, payload: tuple[str, bytes], action: str, ending: str
    ) -> None:
        with site.faults.exec_stream(action, match="^cat ", after=100_000) as fault:
            received = run_exec(harbor, "cat", payload[0])
        assert received.ending == ending
        assert received.status is None
        assert payload[1][:100_000].startswith(received.stdout)
        assert site.faults.hits(fault.id) == 1

    def test_corrupts_one_byte(self, site: Site, harbor: ClusterHandle, payload: tuple[str, bytes]) -> None:
        with site.faults.exec_stream("corrupt", match="^cat ", after=100_000):
            received = run_exec(harbor, "cat", payload[0])
        different = [
            index for index, pair in enumerate(zip(received.stdout, payload[1], strict=True)) if len(set(pair)) > 1
        ]
        assert different == [100_000]
        assert received.status == {"metadata": {}, "status": "Success"}

    def test_truncates_with_success(self, site: Site, harbor: ClusterHandle, payload: tuple[str, bytes]) -> None:
        with site.faults.exec_stream("truncate", match="^cat ", after=100_000):
            received = run_exec(harbor, "cat", payload[0])
        assert received.stdout == payload[1][:100_000]
        assert received.status == {"metadata": {}, "status": "Success"}

    def test_drops_the_status(self, site: Site, harbor: ClusterHandle, payload: tuple[str, bytes]) -> None:
        with site.faults.exec_stream("no-status", match="^cat "):
            received = run_exec(harbor, "cat", payload[0])
        assert (received.stdout, received.status, received.ending) == (payload[1], None, "close 1000")

    def test_restarts_the_container_midway(self, site: Site, harbor: ClusterHandle, payload: tuple[str, bytes]) -> None:
        before = harbor.node.container("etcd").id
        with site.faults.exec_stream("restart", match="^sh ", after=1000):
            received = run_exec(harbor, "sh", "-c", f"head -c 2000 {payload[0]}; sleep 60", timeout_s=10)
        assert received.status is not None
        assert received.status["details"]["causes"][0]["message"] == "137"
        wait_for(lambda: harbor.node.container("etcd").id != before, "etcd to start again")
        wait_for(lambda: harbor.kubectl("get", "--raw", "/readyz", check=False).returncode == 0, "harbor's API")
        assert not (harbor.node.container_folder("etcd") / "tmp/payload").exists()

    def test_strikes_as_often_as_told(self, site: Site, harbor: ClusterHandle) -> None:
        with site.faults.exec_stream("close", match="^echo ", times=2):
            endings = [run_exec(harbor, "echo", "x").status is None for _ in range(3)]
        assert endings == [True, True, False]

    def test_answers_for_a_command(self, site: Site, harbor: ClusterHandle) -> None:
        with site.faults.exec_answer(match="endpoint health", stderr="unhealthy\n", code=1):
            received = run_exec(harbor, "etcdctl", "endpoint", "health")
        assert received.channels[2] == b"unhealthy\n"
        assert received.status is not None
        assert received.status["details"]["causes"][0]["message"] == "1"

    def test_disk_fills_up_under_the_snapshot(self, site: Site, harbor: ClusterHandle) -> None:
        ca, cert, key = harbor.etcd_tls
        tls = (f"--endpoints={harbor.etcd_endpoints[0]}", f"--cacert={ca}", f"--cert={cert}", f"--key={key}")
        path = f"{harbor.node.view}/containers/etcd/etcd/tmp/full.db"
        with site.faults.no_space():
            received = run_exec(harbor, "etcdctl", *tls, "snapshot", "save", path, timeout_s=10)
        assert b"no space left on device" in received.channels[2]
        assert received.status is not None
        assert received.status["reason"] == "NonZeroExitCode"
        assert not (harbor.node.container_folder("etcd") / "tmp/full.db").exists()


class TestApi:
    @pytest.mark.parametrize("code", [401, 403, 404, 429, 500, 503])
    def test_answers_with_a_code(self, site: Site, harbor: ClusterHandle, code: int) -> None:
        with site.faults.api(code, match="GET /api/v1/nodes$", times=1, retry_after_s=1):
            answers = [api_get(harbor, "/api/v1/nodes")[0] for _ in range(2)]
        assert answers == [code, 200]

    def test_slow_answer(self, site: Site, harbor: ClusterHandle) -> None:
        with site.faults.api_slow(0.5, match="GET /version", times=1):
            started = time.monotonic()
            api_get(harbor, "/version")
        assert time.monotonic() - started > 0.5

    def test_only_the_named_cluster(self, site: Site, harbor: ClusterHandle) -> None:
        with site.faults.api(500, match="GET /version", where="^fleet$"):
            assert api_get(harbor, "/version")[0] == 200
            assert api_get(site.clusters["fleet"], "/version")[0] == 500


def api_get(cluster: ClusterHandle, path: str) -> tuple[int, bytes]:
    folder = cluster.kubeconfig.parent
    context = ssl.create_default_context(cafile=str(cluster.node.root / "etc/kubernetes/pki/ca.crt"))
    context.load_cert_chain(folder / "admin.crt", folder / "admin.key")
    server = json.loads(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    try:
        with urllib.request.urlopen(server + path, context=context, timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as err:
        return err.code, err.read()


class TestSsh:
    def test_refused(self, site: Site, harbor: ClusterHandle) -> None:
        def listening() -> bool:
            with contextlib.suppress(OSError), socket.create_connection((harbor.node.address, harbor.node.ssh.port), 1):
                return True
            return False

        with site.faults.ssh("refuse", where="^harbor-cp-0$"):
            wait_for(lambda: not listening(), "the node to refuse", 5)
        wait_for(listening, "the node to listen", 5)

    @pytest.mark.parametrize(
        ("action", "message"),
        [
            pytest.param("hostkey", b"Host key verification failed", id="changed-host-key"),
            pytest.param("auth", b"Permission denied", id="key-not-accepted"),
            pytest.param("drop", b"", id="hung-up"),
        ],
    )
    def test_no_login(self, site: Site, harbor: ClusterHandle, ssh: Ssh, action: str, message: bytes) -> None:
        with site.faults.ssh(action, where="^harbor-cp-0$"):
            failed = ssh(harbor.node.ssh, "true", check=False)
        assert failed.returncode == 255
        assert message in failed.stderr
        assert ssh(harbor.node.ssh, "true").returncode == 0

    def test_sudo_asks_for_a_password(self, site: Site, harbor: ClusterHandle, ssh: Ssh) -> None:
        with site.faults.ssh("sudo"):
            failed = ssh(harbor.node.ssh, "sudo -n tar -cf - /", check=False)
        assert (failed.returncode, failed.stderr) == (1, b"sudo: a password is required\n")

    @pytest.mark.parametrize("action", ["refuse", "forward"])
    def test_jump_host_down(self, site: Site, harbor: ClusterHandle, ssh: Ssh, action: str) -> None:
        with site.faults.ssh(action, where="^jump$"):
            time.sleep(0.2)
            assert ssh(harbor.node.ssh, "true", through_jump=True, check=False).returncode == 255
        wait_for(lambda: ssh(harbor.node.ssh, "true", through_jump=True, check=False).returncode == 0, "the jump host")

    def test_cut_after_some_bytes(self, site: Site, harbor: ClusterHandle, ssh: Ssh) -> None:
        with site.faults.ssh("cut", match="head -c", after=50_000):
            failed = ssh(harbor.node.ssh, "head -c 3000000 /dev/zero", check=False)
        assert failed.returncode == 255
        assert len(failed.stdout) <= 50_000

    def test_corrupted_byte(self, site: Site, harbor: ClusterHandle, ssh: Ssh) -> None:
        with site.faults.ssh("corrupt", match="head -c", after=1000):
            spoiled = ssh(harbor.node.ssh, "head -c 3000 /dev/zero").stdout
        assert spoiled == bytes(1000) + b"\x01" + bytes(1999)


class TestMembers:
    def test_stopped_member_leaves_the_cluster_working(self, site: Site) -> None:
        fleet = site.clusters["fleet"]
        first = fleet.nodes[0]
        with first.member.stopped():
            assert fleet.etcdctl("endpoint", "health", check=False).returncode != 0
            wait_for(lambda: fleet.kubectl("get", "nodes", check=False).returncode == 0, "another API server", 20)
        wait_for(lambda: fleet.etcdctl("endpoint", "health", check=False).returncode == 0, "all members")

    def test_frozen_member_is_unhealthy(self, site: Site) -> None:
        fleet = site.clusters["fleet"]
        with fleet.nodes[2].member.frozen():
            health = fleet.etcdctl("endpoint", "health", "--command-timeout=2s", "-w", "json", check=False).stdout
        assert sorted(item["health"] for item in json.loads(health)) == [False, True, True]
        wait_for(lambda: fleet.etcdctl("endpoint", "health", check=False).returncode == 0, "all members")

    def test_tampered_member_disagrees(self, site: Site) -> None:
        fleet = site.clusters["fleet"]
        member = fleet.nodes[1].member
        old, new = hashlib.sha256(os.urandom(8)).hexdigest().encode(), b"f" * 64
        fleet.etcdctl("put", "/lab/tamper", old.decode())
        wait_for(lambda: old in member.database(), "the value to reach the file")
        with member.stopped():
            assert member.tamper(old, new) >= 1
        try:
            wait_for(lambda: fleet.etcdctl("endpoint", "health", check=False).returncode == 0, "all members")
            assert len(hashes(fleet)) == 2
        finally:
            with member.stopped():
                member.tamper(new, old)
        wait_for(lambda: len(hashes(fleet)) == 1, "the members to agree")


def hashes(cluster: ClusterHandle) -> set[int]:
    revision = json.loads(cluster.etcdctl("endpoint", "status", "-w", "json").stdout)[0]["Status"]["header"]["revision"]
    answers = json.loads(cluster.etcdctl("endpoint", "hashkv", f"--rev={revision}", "-w", "json").stdout)
    return {answer["HashKV"]["hash"] for answer in answers}


class TestStore:
    @pytest.fixture
    def prefix(self, site: Site) -> str:
        return f"{site.gcs_url}/storage/v1/b/{BUCKET}/o/t-{time.time_ns()}"

    def upload(self, site: Site, prefix: str, data: bytes, condition: str = "") -> int:
        name = prefix.rpartition("/")[2]
        url = f"{site.gcs_url}/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={name}{condition}"
        return http("POST", url, data)[0]

    @pytest.mark.parametrize(
        ("method", "suffix", "code"),
        [
            pytest.param("GET", "?alt=media&ifGenerationMatch=1", 412, id="read"),
            pytest.param("DELETE", "?ifGenerationMatch=1", 412, id="delete"),
            pytest.param("GET", "?ifGenerationMatch=0", 412, id="metadata"),
            pytest.param("GET", "?alt=media", 200, id="no-condition"),
        ],
    )
    def test_conditions_hold(self, site: Site, prefix: str, method: str, suffix: str, code: int) -> None:
        self.upload(site, prefix, b"x")
        assert http(method, prefix + suffix)[0] == code

    def test_create_only_copy_and_rewrite(self, site: Site, prefix: str) -> None:
        self.upload(site, prefix, b"x")
        for verb in ("rewriteTo", "copyTo"):
            target = f"{prefix}/{verb}/b/{BUCKET}/o/{prefix.rpartition('/')[2]}-{verb}?ifGenerationMatch=0"
            assert [http("POST", target, b"")[0] for _ in range(2)] == [200, 412]

    def test_create_only_resumable_upload(self, site: Site, prefix: str) -> None:
        name = prefix.rpartition("/")[2]
        url = f"{site.gcs_url}/upload/storage/v1/b/{BUCKET}/o?uploadType=resumable&ifGenerationMatch=0"
        code, _, headers = http("POST", url, json.dumps({"name": name}).encode())
        self.upload(site, prefix, b"somebody was faster")
        finished = http("PUT", headers["Location"], b"late")[0]
        assert (code, finished) == (200, 412)
        assert http("POST", url, json.dumps({"name": name}).encode())[0] == 412

    def test_answers_with_a_code(self, site: Site, prefix: str) -> None:
        with site.faults.gcs("status", match="^POST /upload", value=503, times=1):
            assert [self.upload(site, prefix, b"x") for _ in range(2)] == [503, 200]

    @pytest.mark.parametrize(
        ("action", "expected"),
        [
            pytest.param("truncate", b"a" * 1000, id="truncate"),
            pytest.param("corrupt", b"a" * 1000 + b"`" + b"a" * 198_999, id="corrupt"),
            pytest.param("cut", None, id="cut"),
        ],
    )
    def test_spoiled_read(self, site: Site, prefix: str, action: str, expected: bytes | None) -> None:
        self.upload(site, prefix, b"a" * 200_000)
        with site.faults.gcs(action, match="alt=media", after=1000):
            code, body, _ = http("GET", f"{prefix}?alt=media")
        assert body == expected if expected is not None else code == 0

    def test_cut_upload_leaves_nothing(self, site: Site, prefix: str) -> None:
        with site.faults.gcs("cut-upload", match="^POST /upload", after=100_000):
            assert self.upload(site, prefix, b"a" * 2_000_000) in (0, 502)
        assert http("GET", prefix)[0] == 404


def http(method: str, url: str, data: bytes | None = None) -> tuple[int, bytes, Any]:
    """Return code, body and headers; code 0 when the connection broke."""
    request = urllib.request.Request(url, data=data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read(), response.headers
    except urllib.error.HTTPError as err:
        return err.code, err.read(), err.headers
    except (OSError, IncompleteRead):
        return 0, b"", {}
