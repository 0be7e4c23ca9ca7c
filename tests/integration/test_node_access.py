"""The way to a node over SSH: host keys, our own key, jump hosts."""

from __future__ import annotations

import logging

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519

from etcdkeep.adapters.ssh.node import NodeTarget, open_node, scan_host_keys
from etcdkeep.config.host_keys import parse_host_key
from etcdkeep.errors import AccessDenied, ConfigError, HostKeyUnknown, ServerUntrusted, StreamCut, Unreachable
from etcdkeep.ports import StreamLimits
from tests.ssh_server import (
    ECDSA,
    ED25519,
    HOST_KEYS,
    KEY,
    NO_PASSWORD,
    OPENSSH,
    OTHER_HOST_KEY,
    PEM,
    PKCS8,
    RSA,
    TRADITIONAL,
    USER_KEYS,
    Node,
    hangs,
    line,
    running,
    says,
)

LIMITS = StreamLimits(deadline_s=20, stall_s=10)
ALL_BYTES = bytes(range(256))


@pytest.fixture
def node():
    with running(Node()) as started:
        yield started


@pytest.fixture
def jump_host():
    with running(Node()) as started:
        yield started


@pytest.mark.parametrize("algorithm", [ED25519, ECDSA, RSA])
def test_each_type_of_host_key_is_enough_by_itself(node, algorithm):
    node.behave = says()
    with open_node(node.target(line(HOST_KEYS[algorithm])), KEY) as shell:
        shell.run(("true",), LIMITS)


def test_one_of_several_lines_is_enough_and_other_hosts_lines_do_not_count(node):
    node.behave = says()
    lines = (line(OTHER_HOST_KEY), f"[127.0.0.1]:{node.port} {line(HOST_KEYS[ED25519])} comment")
    with open_node(node.target(*lines), KEY) as shell:
        shell.run(("true",), LIMITS)
    with pytest.raises(HostKeyUnknown), open_node(node.target(f"10.0.0.9 {line(HOST_KEYS[ED25519])}"), KEY):
        pass


def test_an_unknown_host_is_refused_with_the_line_to_paste(node):
    node.behave = says()
    target = NodeTarget("127.0.0.1", node.port, "ubuntu", ())
    with pytest.raises(HostKeyUnknown) as caught, open_node(target, KEY):
        pass
    assert caught.value.line == f"[127.0.0.1]:{node.port} {line(HOST_KEYS[ED25519])}"
    assert caught.value.fingerprint == HOST_KEYS[ED25519].get_fingerprint()
    assert caught.value.line in str(caught.value)
    assert caught.value.fingerprint in str(caught.value)
    assert node.logins == []
    with open_node(node.target(caught.value.line), KEY) as shell:
        shell.run(("true",), LIMITS)


@pytest.mark.parametrize(
    "offered",
    [pytest.param((ED25519,), id="same-type"), pytest.param((RSA,), id="only-another-type")],
)
def test_a_changed_host_key_is_refused_before_anything_is_sent(offered):
    with running(Node(host_keys=offered)) as node:
        with pytest.raises(ServerUntrusted) as caught, open_node(node.target(line(OTHER_HOST_KEY)), KEY):
            pass
        assert OTHER_HOST_KEY.get_fingerprint() in str(caught.value)
        assert HOST_KEYS[offered[0]].get_fingerprint() in str(caught.value)
        assert node.logins == []


def test_a_line_that_is_no_host_key(node):
    with pytest.raises(ConfigError, match="host key line"), open_node(node.target("ssh-ed25519 AAAA"), KEY):
        pass


def test_host_keys_are_scanned_without_a_login(node):
    keys = scan_host_keys(NodeTarget("127.0.0.1", node.port, "ubuntu", ()))
    assert [key.line for key in keys] == [
        f"[127.0.0.1]:{node.port} {line(HOST_KEYS[name])}" for name in (ED25519, ECDSA, RSA)
    ]
    assert [key.fingerprint for key in keys] == [HOST_KEYS[name].get_fingerprint() for name in (ED25519, ECDSA, RSA)]
    assert all(parse_host_key(key.line) for key in keys)
    assert node.logins == []


def test_nothing_of_the_user_is_read(node, monkeypatch, tmp_path):
    """A known_hosts file and an agent that would make the login work are not asked."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{node.port} {line(HOST_KEYS[ED25519])}\n")
    (tmp_path / ".ssh" / "id_ed25519").write_bytes(KEY)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(HostKeyUnknown), open_node(NodeTarget("127.0.0.1", node.port, "ubuntu", ()), KEY):
        pass
    stranger = ed25519.Ed25519PrivateKey.generate().private_bytes(PEM, OPENSSH, NO_PASSWORD)
    with pytest.raises(AccessDenied, match="refused the key"), open_node(node.target(), stranger):
        pass


# --- our key -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", USER_KEYS)
@pytest.mark.parametrize("form", [OPENSSH, PKCS8, TRADITIONAL], ids=["openssh", "pkcs8", "traditional"])
def test_keys_in_every_usual_format(node, kind, form):
    if kind == "ed25519" and form is TRADITIONAL:
        form = OPENSSH
    node.behave = says(b"in")
    text = USER_KEYS[kind].private_bytes(PEM, form, NO_PASSWORD)
    with open_node(
        node.target(), b"\n" + text.replace(b"\n", b"\r\n") if form is not OPENSSH else text.rstrip()
    ) as shell:
        assert shell.run(("true",), LIMITS).stdout == b"in"


ENCRYPTED = serialization.BestAvailableEncryption(b"secret")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(b"", "no private key", id="empty"),
        pytest.param(KEY[:200], "no private key", id="cut-off"),
        pytest.param(line(OTHER_HOST_KEY).encode(), "not a private one", id="public-key"),
        pytest.param(USER_KEYS["ed25519"].private_bytes(PEM, PKCS8, ENCRYPTED), "passphrase", id="encrypted-pem"),
        pytest.param(USER_KEYS["rsa"].private_bytes(PEM, TRADITIONAL, ENCRYPTED), "passphrase", id="encrypted-rsa"),
        pytest.param(
            USER_KEYS["ed25519"].private_bytes(PEM, OPENSSH, ENCRYPTED),
            "passphrase",
            id="encrypted-openssh",
        ),
        pytest.param(
            ec.generate_private_key(ec.SECP256K1()).private_bytes(PEM, PKCS8, NO_PASSWORD),
            "SSH does not use",
            id="other-curve",
        ),
        pytest.param(
            dsa.generate_private_key(1024).private_bytes(PEM, PKCS8, NO_PASSWORD),
            "expected RSA, ECDSA or Ed25519",
            id="dsa",
        ),
    ],
)
def test_an_unusable_key_is_explained_without_being_shown(node, text, reason):
    with pytest.raises(AccessDenied, match=reason) as caught, open_node(node.target(), text):
        pass
    assert "ubuntu@127.0.0.1" in str(caught.value)
    assert caught.value.__cause__ is None
    assert not any(len(part) > 12 and part in str(caught.value) for part in text.decode().splitlines()[1:])


def test_a_refused_key_names_user_host_and_fingerprint(node):
    with (
        pytest.raises(AccessDenied, match=f"root@127.0.0.1:{node.port}: the server refused the key SHA256:"),
        open_node(node.target(user="root"), KEY),
    ):
        pass


# --- the way there -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        pytest.param("127.0.0.1", "refused", id="refused"),
        pytest.param("no-such-host.invalid", "no connection", id="name-unknown"),
    ],
)
def test_an_unreachable_host(host, reason):
    target = NodeTarget(host, 1, "ubuntu", (line(OTHER_HOST_KEY),))
    with pytest.raises(Unreachable, match=f"ubuntu@{host}:1: .*{reason}"), open_node(target, KEY):
        pass


def test_a_port_that_is_no_ssh_server(tmp_path):
    from tests.exec_server import Certificates, ExecServer
    from tests.exec_server import running as serving

    with serving(ExecServer(Certificates(tmp_path))) as web:
        port = int(web.url.rsplit(":", 1)[1])
        target = NodeTarget("127.0.0.1", port, "ubuntu", (line(OTHER_HOST_KEY),))
        with pytest.raises(Unreachable, match="no SSH session"), open_node(target, KEY, connect_s=0.5):
            pass


def test_through_a_jump_host_with_its_own_user_keys_and_host_keys(node, jump_host):
    node.behave = says(ALL_BYTES * 10_000)
    jump = (jump_host.target(line(HOST_KEYS[RSA])), USER_KEYS["rsa"].private_bytes(PEM, TRADITIONAL, NO_PASSWORD))
    with open_node(node.target(), KEY, jump=jump) as shell:
        assert shell.run(("cat",), LIMITS).stdout == ALL_BYTES * 10_000
    assert len(jump_host.logins) == 1


def test_host_keys_are_scanned_through_a_jump_host(node, jump_host):
    keys = scan_host_keys(NodeTarget("127.0.0.1", node.port, "ubuntu", ()), jump=(jump_host.target(), KEY))
    assert len(keys) == 3


def test_both_hops_host_keys_are_checked(node, jump_host):
    with (
        pytest.raises(HostKeyUnknown, match=f":{node.port}"),
        open_node(NodeTarget("127.0.0.1", node.port, "ubuntu", ()), KEY, jump=(jump_host.target(), KEY)),
    ):
        pass
    stranger = jump_host.target(line(OTHER_HOST_KEY))
    with (
        pytest.raises(ServerUntrusted, match=f":{jump_host.port}"),
        open_node(node.target(), KEY, jump=(stranger, KEY)),
    ):
        pass
    assert node.logins == []


@pytest.mark.parametrize(
    ("prepare", "error", "text"),
    [
        pytest.param(
            lambda jump, node: setattr(jump, "forwarding", False),
            AccessDenied,
            "through the jump host .*forbids.*AllowTcpForwarding",
            id="forbidden",
        ),
        pytest.param(
            lambda jump, node: setattr(node, "port", 1),
            Unreachable,
            "the jump host ubuntu@127.0.0.1:.* cannot reach 127.0.0.1:1",
            id="node-down",
        ),
        pytest.param(
            lambda jump, node: setattr(jump, "port", 1),
            Unreachable,
            "SSH to ubuntu@127.0.0.1:1: no connection",
            id="jump-host-down",
        ),
    ],
)
def test_a_jump_host_that_does_not_help(node, jump_host, prepare, error, text):
    prepare(jump_host, node)
    with pytest.raises(error, match=text), open_node(node.target(), KEY, jump=(jump_host.target(), KEY)):
        pass


def test_a_jump_host_that_goes_down_in_the_middle(node, jump_host):
    node.behave = hangs
    with open_node(node.target(), KEY, jump=(jump_host.target(), KEY)) as shell:
        chunks = shell.stream(("cat",), LIMITS)
        next(chunks)
        jump_host.cut()
        with pytest.raises(StreamCut):
            next(chunks)


def test_clients_own_log_stays_quiet(node, caplog):
    with pytest.raises(ServerUntrusted), open_node(node.target(line(OTHER_HOST_KEY)), KEY):
        pass
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
