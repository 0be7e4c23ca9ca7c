"""Pod exec that is refused, or whose command fails: each in its own clear words."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path

import pytest

from etcdkeep.adapters.kube.client import KubeApiClient, open_kubeconfig
from etcdkeep.adapters.kube.exec import ExecTiming, PodExec
from etcdkeep.errors import (
    AccessDenied,
    CommandFailed,
    CommandMissing,
    NotFound,
    ServerUntrusted,
    Unreachable,
)
from etcdkeep.ports import PodRef, StreamLimits
from tests.exec_server import (
    STDERR,
    STDOUT,
    Certificates,
    ExecServer,
    Peer,
    close,
    failure,
    finished,
    frame,
    http,
    running,
)

LIMITS = StreamLimits(deadline_s=20, stall_s=10)
ALL_BYTES = bytes(range(256))
POD = PodRef("kube-system", "etcd-cp-0", "etcd")
CAT = ("cat", "/tmp/a b.db")
IMPATIENT = ExecTiming(connect_s=2, ping_s=0.1, silence_s=0.6, settle_s=0.3)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def server(certificates):
    with running(ExecServer(certificates)) as started:
        yield started


def pod_exec(server: ExecServer, timing: ExecTiming | None = None, **user: str) -> PodExec:
    return KubeApiClient(open_kubeconfig(server.certificates.kubeconfig(server.url, **user)), exec_timing=timing).exec(
        POD
    )


def plays(*parts: bytes):
    def behave(peer: Peer) -> None:
        peer.send(*parts)
        peer.until_gone()

    return behave


INTERNAL = "Internal error occurred: error executing command in container: "


@pytest.mark.parametrize(
    ("wire", "error", "text"),
    [
        pytest.param(
            failure("NonZeroExitCode", "exit 3", 3), CommandFailed, "exit code 3. Last output: oh", id="exit-code"
        ),
        pytest.param(
            failure(
                "InternalError", INTERNAL + 'OCI runtime exec failed: exec: "cat": executable file not found in $PATH'
            ),
            CommandMissing,
            "executable file not found",
            id="containerd-missing",
        ),
        pytest.param(failure("NonZeroExitCode", "exit 127", 127), CommandMissing, "exit 127", id="shell-missing"),
        pytest.param(
            frame(STDERR + b"error executing `cat`: executable file `cat` not found in $PATH")
            + failure("NonZeroExitCode", "exit 255", 255),
            CommandMissing,
            "no such program",
            id="crio-missing",
        ),
        pytest.param(
            frame(STDOUT + b'OCI runtime exec failed: exec: "cat": executable file not found in $PATH\r\n')
            + failure("NonZeroExitCode", "exit 126", 126),
            CommandMissing,
            "no such program",
            id="docker-missing",
        ),
        pytest.param(
            failure("InternalError", 'unable to upgrade connection: container not found ("etcd")'),
            Unreachable,
            "container not found",
            id="container-gone",
        ),
    ],
)
def test_how_a_command_fails(server, wire, error, text):
    server.behave = plays(frame(STDERR + b"oh"), wire, close())
    with pytest.raises(error, match=text) as caught:
        pod_exec(server).run(CAT, LIMITS)
    if error is CommandFailed:
        assert (caught.value.exit_code, caught.value.stderr_tail) == (3, "oh")


def forbidden(message: str) -> bytes:
    return json.dumps({"kind": "Status", "status": "Failure", "message": message}).encode()


@pytest.mark.parametrize(
    ("code", "message", "error", "text"),
    [
        pytest.param(
            400,
            "container x is not valid for pod etcd-cp-0",
            NotFound,
            "container x is not valid",
            id="wrong-container",
        ),
        pytest.param(
            400, "pod etcd-cp-0 does not have a host assigned", Unreachable, "host assigned", id="pod-pending"
        ),
        pytest.param(401, "Unauthorized", AccessDenied, "credentials in the kubeconfig", id="unauthorized"),
        pytest.param(
            403, 'cannot create resource "pods/exec"', AccessDenied, "create and get on pods/exec", id="forbidden"
        ),
        pytest.param(404, 'pods "etcd-cp-0" not found', NotFound, "not found", id="pod-gone"),
        pytest.param(429, "slow down", Unreachable, "Retry", id="too-many"),
        pytest.param(500, 'container not found ("etcd")', Unreachable, "container not found", id="not-running"),
        pytest.param(302, "elsewhere", Unreachable, "Redirect", id="redirect-not-followed"),
    ],
)
def test_a_refused_handshake(server, code, message, error, text):
    server.answer = lambda peer: http(code, forbidden(message)).replace(
        b"\r\n\r\n", b"\r\nLocation: wss://127.0.0.1:1/\r\n\r\n", 1
    )
    with pytest.raises(error, match=text) as caught:
        pod_exec(server).run(CAT, LIMITS)
    assert "pod kube-system/etcd-cp-0 container etcd" in str(caught.value)
    assert len(server.peers) == 1


def test_a_token_is_sent_with_the_handshake(server):
    server.behave = plays(finished())
    pod_exec(server, token="s3cret").run(CAT, LIMITS)
    assert server.peers[0].headers["authorization"] == "Bearer s3cret"


def test_an_expired_client_certificate_is_named(tmp_path):
    with running(ExecServer(Certificates(tmp_path, client_ends=timedelta(hours=-1)))) as server:
        server.answer = lambda peer: http(401, forbidden("Unauthorized"))
        with pytest.raises(AccessDenied, match="client certificate expired at 20"):
            pod_exec(server).run(CAT, LIMITS)


def test_an_expired_server_certificate_is_named(tmp_path):
    with (
        running(ExecServer(Certificates(tmp_path, server_ends=timedelta(hours=-1)))) as server,
        pytest.raises(ServerUntrusted, match="certificate has expired"),
    ):
        pod_exec(server).run(CAT, LIMITS)


def test_another_authority_is_refused(server, tmp_path):
    config = Certificates(tmp_path).kubeconfig(server.url, token="x")
    with pytest.raises(ServerUntrusted, match="certificate"):
        KubeApiClient(open_kubeconfig(config)).exec(POD).run(CAT, LIMITS)
    assert server.peers == []


def test_no_server(certificates):
    config = certificates.kubeconfig("https://127.0.0.1:1")
    with pytest.raises(Unreachable, match=r"https://127\.0\.0\.1:1: no answer: .*refused"):
        KubeApiClient(open_kubeconfig(config)).exec(POD).run(CAT, LIMITS)


def test_a_server_that_never_answers_the_handshake(server):
    server.answer = lambda peer: time.sleep(1) or b""
    with pytest.raises(Unreachable, match="no answer"):
        pod_exec(server, ExecTiming(connect_s=0.3)).run(CAT, LIMITS)


def test_an_api_server_below_a_path(server):
    server.behave = plays(finished(b"x"))
    config = server.certificates.kubeconfig(f"{server.url}/k8s/clusters/c-1/")
    assert KubeApiClient(open_kubeconfig(config)).exec(POD).run(CAT, LIMITS).stdout == b"x"
    assert server.peers[0].path.startswith("/k8s/clusters/c-1/api/v1/namespaces/kube-system/pods/")


def test_the_kubeconfig_in_files_works_too(server, tmp_path):
    server.behave = plays(finished(b"x"))
    directory = server.certificates.directory
    path = tmp_path / "config"
    path.write_text(
        json.dumps(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [
                    {"name": "c", "cluster": {"server": server.url, "certificate-authority": str(directory / "ca.crt")}}
                ],
                "users": [
                    {
                        "name": "u",
                        "user": {
                            "client-certificate": str(directory / "client.crt"),
                            "client-key": str(directory / "client.key"),
                        },
                    }
                ],
            }
        )
    )
    assert KubeApiClient(open_kubeconfig(Path(path))).exec(POD).run(CAT, LIMITS).stdout == b"x"
    assert server.peers[0].client_certificate
