"""An API server or a node that says no, or says nothing: each gives its own error with the next step, and loses nothing."""

from __future__ import annotations

import re

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from etcdkeep.errors import (
    AccessDenied,
    HostKeyUnknown,
    MembersUnfit,
    NotFound,
    ServerUntrusted,
    TransientError,
    Unreachable,
)
from tests.backup_run import assert_nothing_lost, assert_one_good_set

KUBE_SYSTEM = r"^GET /api/v1/namespaces/kube-system(\?|$)"
EXEC = r"/pods/kube-etcd-0/exec"
SECRET = r"^GET /api/v1/namespaces/kube-system/secrets/sshkeys"

API_ANSWERS = [
    pytest.param(401, AccessDenied, "HTTP 401.*not accepted: expired, revoked, or of another cluster", id="401"),
    pytest.param(403, AccessDenied, "HTTP 403.*Allow the kubeconfig's account", id="403"),
    pytest.param(404, NotFound, "HTTP 404.*Check the name", id="404"),
    pytest.param(500, Unreachable, "HTTP 500.*Retry", id="500"),
    pytest.param(503, Unreachable, "HTTP 503.*Retry", id="503"),
    pytest.param(0, Unreachable, "no answer.*Is the API server up", id="hung-up"),
]


def in_one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    return " ".join(str(error.value).split())


@pytest.mark.parametrize(("code", "error", "said"), API_ANSWERS)
def test_the_api_refuses_a_read(site, start_run, code, error, said):
    run = start_run("harbor", discovered=False)
    with site.faults.api(code, match=KUBE_SYSTEM), pytest.raises(error) as caught:
        run.task("discover")
    assert re.search(f"GET /api/v1/namespaces/kube-system on https://.*{said}", in_one_line(caught))
    assert_nothing_lost(run)


@pytest.mark.parametrize(("code", "error", "said"), API_ANSWERS)
@pytest.mark.parametrize("task", ["snapshot", "copy_out"])
def test_the_api_refuses_an_exec(site, start_run, task, code, error, said):
    error = MembersUnfit if error is NotFound else error  # a pod that is not there may be restarting
    run = start_run("skiff")
    if task == "copy_out":
        run.until("snapshot")
    with site.faults.api(code, match=EXEC), pytest.raises(error) as caught:
        run.task(task)
    assert re.search(f"in pod skiff/kube-etcd-0 container kube-etcd on https://.*{said}", in_one_line(caught))
    assert_nothing_lost(run)


def test_an_expired_client_certificate_is_named(site, start_run):
    kubeconfig = {"path": str(site.clusters["harbor"].expired_kubeconfig)}
    run = start_run("harbor", discovered=False, kubeconfig=kubeconfig)
    with pytest.raises(AccessDenied, match=r"client certificate expired at \d{4}-.*; renew it"):
        run.task("discover")
    assert_nothing_lost(run)


def test_a_passing_failure_of_the_api_is_retried_and_ends_in_one_good_set(site, start_run):
    run = start_run("skiff", discovered=False)
    with site.faults.api(503, match=KUBE_SYSTEM, times=1), pytest.raises(TransientError):
        run.task("discover")
    run.whole()
    assert_one_good_set(run)


def test_cleanup_that_meets_a_silent_api_says_what_is_left_and_removes_it_the_next_time(site, start_run):
    run = start_run("skiff")
    run.until("copy_out")
    with site.faults.api(500, match=EXEC), pytest.raises(TransientError) as caught:
        run.task("cleanup")
    assert re.search(
        f"may have left files.*pod skiff/kube-etcd-0, .*/etcdkeep-{run.identifier}-.*HTTP 500", str(caught.value)
    )
    assert [name for name in run.leftovers() if ".db" in name] != []
    assert_nothing_lost(run)


NODE = r"SSH to ubuntu@127\.0\.0\.11:\d+"
JUMP = r"SSH to ubuntu@127\.0\.0\.10:\d+"
SSH_FAULTS = [
    pytest.param("refuse", "harbor-cp-0", Unreachable, f"{NODE} through the jump host .*cannot reach", id="node-refuses"),
    pytest.param("refuse", "jump", Unreachable, f"{JUMP}: no connection: .*Is the host up", id="jump-host-down"),
    pytest.param("drop", "harbor-cp-0", Unreachable, f"{NODE}: no SSH session.*Is an SSH server on that port", id="node-hangs-up"),
    pytest.param("drop", "jump", Unreachable, f"{JUMP}: no SSH session.*Is an SSH server on that port", id="jump-host-hangs-up"),
    pytest.param("forward", "jump", Unreachable, f"{NODE} through the jump host .*cannot reach", id="jump-host-cannot-forward"),
    pytest.param("auth", "harbor-cp-0", AccessDenied, f"{NODE}: the server refused the key SHA256:.*authorized_keys", id="node-refuses-the-key"),
    pytest.param("auth", "jump", AccessDenied, f"{JUMP}: the server refused the key SHA256:.*authorized_keys", id="jump-host-refuses-the-key"),
    pytest.param("hostkey", "harbor-cp-0", ServerUntrusted, f"{NODE}: the host shows the host key .*expects .*nothing was sent", id="node-shows-another-host-key"),
    pytest.param("hostkey", "jump", ServerUntrusted, f"{JUMP}: the host shows the host key .*expects .*nothing was sent", id="jump-host-shows-another-host-key"),
    pytest.param("sudo", "harbor-cp-0", AccessDenied, r"sudo does not allow it without a password.*NOPASSWD", id="sudo-refuses"),
]  # fmt: skip


@pytest.mark.parametrize(("action", "where", "error", "said"), SSH_FAULTS)
def test_ssh_to_a_node_fails(site, start_run, action, where, error, said):
    run = start_run("harbor")
    with site.faults.ssh(action, where=where) as fault, pytest.raises(error) as caught:
        run.retried("fetch_pki", tries=3, pause_s=0.1)
    assert action == "refuse" or site.faults.hits(fault.id)
    assert re.search(said, in_one_line(caught))
    assert_nothing_lost(run)


def test_another_ssh_key_is_refused_and_shown_only_by_its_fingerprint(site, start_run, tmp_path):
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    (tmp_path / "stranger").write_bytes(pem)
    run = start_run("harbor", ssh={"key": {"path": str(tmp_path / "stranger")}})
    with pytest.raises(AccessDenied, match="the server refused the key SHA256:") as caught:
        run.task("fetch_pki")
    assert not any(line.decode() in str(caught.value) for line in pem.splitlines()[1:-1])
    assert_nothing_lost(run)


@pytest.mark.parametrize("hop", ["node", "jump"])
def test_the_line_that_an_unknown_host_key_gives_can_be_pasted(site, start_run, hop):
    unknown = {"host_keys": []} if hop == "node" else {"jump": {"host_keys": []}}
    run = start_run("harbor", ssh=unknown)
    with pytest.raises(HostKeyUnknown) as caught:
        run.task("fetch_pki")
    found = caught.value
    host = site.clusters["harbor"].node.ssh if hop == "node" else site.jump
    assert found.line in host.key_lines
    assert found.fingerprint in str(found)
    assert str(found).endswith(f"add this line to its host_keys:\n{found.line}")
    pasted = {"host_keys": [found.line]} if hop == "node" else {"jump": {"host_keys": [found.line]}}
    run.reconfigure(ssh=pasted)
    assert run.task("fetch_pki")["artifacts"]
    assert_nothing_lost(run)


@pytest.mark.parametrize(
    ("field", "code", "said"),
    [
        pytest.param("vsphere_tmp", 404, "HTTP 404.*secrets/sshkeys|secrets/sshkeys.*HTTP 404", id="no-secret"),
        pytest.param("another", None, "Secret kube-system/sshkeys has no field 'another'; set ssh.key", id="no-field"),
    ],
)
def test_the_secret_with_the_ssh_key_is_not_there(site, start_run, field, code, said):
    run = start_run("harbor", ssh={"key": {"secret": f"kube-system/sshkeys/{field}"}})
    if code:
        with site.faults.api(code, match=SECRET), pytest.raises(NotFound, match=said):
            run.task("fetch_pki")
    else:
        with pytest.raises(NotFound, match=said):
            run.task("fetch_pki")
    assert_nothing_lost(run)
