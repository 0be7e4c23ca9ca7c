"""The same adapter against a real OpenSSH server, which is also its own jump host."""

from __future__ import annotations

import subprocess
from base64 import b64decode, b64encode

import pytest

from etcdkeep.adapters.ssh.node import NodeTarget, open_node, scan_host_keys
from etcdkeep.errors import AccessDenied, CommandFailed, CommandMissing, HostKeyUnknown, ServerUntrusted, StreamCut
from etcdkeep.ports import StreamLimits
from tests.etcd import free_ports
from tests.openssh import USER, make_key, needs_sshd, running_sshd

LIMITS = StreamLimits(deadline_s=30, stall_s=10)
ADDRESS = "127.0.0.1"

pytestmark = needs_sshd


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sshd")
    make_key(folder / "user", "rsa")
    (port,) = free_ports(1)
    only_itself = f"PermitOpen {ADDRESS}:{port}"
    with running_sshd(folder / "server", ADDRESS, port, folder / "user", only_itself, "RekeyLimit 16M") as server:
        yield server


def test_bytes_exit_codes_and_standard_input(sshd):
    with open_node(sshd.target(), sshd.key) as shell:
        content = bytes(range(256)) * 40_000
        assert shell.run(("cat",), LIMITS, stdin=content).stdout == content
        assert shell.run(("printf", "%s", "a b;$HOME"), LIMITS).stdout == b"a b;$HOME"
        with pytest.raises(CommandFailed, match=r"exit code 3\. Last output: oh"):
            shell.run(("sh", "-c", "echo oh >&2; exit 3"), LIMITS)
        with pytest.raises(CommandMissing):
            shell.run(("no-such-program",), LIMITS)
        with pytest.raises(StreamCut, match="signal"):
            shell.run(("sh", "-c", "kill -9 $$"), LIMITS)


@pytest.mark.parametrize("index", [0, 1, 2], ids=["ed25519", "ecdsa", "rsa"])
def test_each_type_of_host_key_is_enough_by_itself(sshd, index):
    with open_node(sshd.target(sshd.host_keys[index]), sshd.key) as shell:
        shell.run(("true",), LIMITS)


def test_scanned_keys_and_fingerprints_are_those_of_ssh_keygen(sshd, tmp_path):
    found = scan_host_keys(sshd.target())
    for scanned, text in zip(found, sshd.host_keys, strict=True):
        (tmp_path / "key").write_text(text)
        printed = subprocess.run(
            ["ssh-keygen", "-lf", tmp_path / "key"], check=True, capture_output=True, text=True
        ).stdout
        assert scanned.fingerprint == printed.split()[1]
        assert scanned.line.split()[1:] == text.split()[:2]


def test_scanned_lines_are_known_hosts_lines_for_openssh_itself(sshd, tmp_path):
    known = tmp_path / "known_hosts"
    known.write_text("".join(f"{key.line}\n" for key in scan_host_keys(sshd.target())))
    (tmp_path / "key").write_bytes(sshd.key)
    (tmp_path / "key").chmod(0o600)
    options = [
        "-F",
        "none",
        "-o",
        f"UserKnownHostsFile={known}",
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        "BatchMode=yes",
    ]
    command = ["ssh", *options, "-i", tmp_path / "key", "-p", str(sshd.port), f"{USER}@127.0.0.1", "echo in"]
    assert subprocess.run(command, check=True, capture_output=True).stdout == b"in\n"


def test_a_wrong_host_key_and_none(sshd):
    algorithm, text = sshd.host_keys[0].split()[:2]
    blob = b64decode(text)
    changed = f"{algorithm} {b64encode(blob[:-1] + bytes([blob[-1] ^ 1])).decode()}"
    with pytest.raises(ServerUntrusted), open_node(sshd.target(changed), sshd.key):
        pass
    with pytest.raises(HostKeyUnknown), open_node(NodeTarget("127.0.0.1", sshd.port, USER, ()), sshd.key):
        pass


def test_a_refused_user(sshd):
    with (
        pytest.raises(AccessDenied, match="nobody-of-that-name@"),
        open_node(sshd.target(user="nobody-of-that-name"), sshd.key),
    ):
        pass


def test_through_itself_as_a_jump_host(sshd):
    with open_node(sshd.target(), sshd.key, jump=(sshd.target(), sshd.key)) as shell:
        assert len(b"".join(shell.stream(("head", "-c", "30000000", "/dev/zero"), LIMITS))) == 30_000_000


def test_a_jump_host_that_forbids_the_way(sshd):
    elsewhere = NodeTarget("127.0.0.1", 9, USER, sshd.host_keys)
    with (
        pytest.raises(AccessDenied, match="PermitOpen"),
        open_node(elsewhere, sshd.key, jump=(sshd.target(), sshd.key)),
    ):
        pass


def test_a_long_stream_goes_on_through_new_session_keys(sshd):
    with open_node(sshd.target(), sshd.key) as shell:
        assert sum(map(len, shell.stream(("head", "-c", "100000000", "/dev/zero"), LIMITS))) == 100_000_000
