"""Airflow connections of type `ssh`: each field honoured at a real SSH server, or refused by its name."""

from __future__ import annotations

import ast
import inspect
import logging
import socket
import threading
from contextlib import contextmanager
from functools import partial
from io import StringIO
from time import monotonic

import paramiko
import pytest
from airflow.providers.ssh.hooks.ssh import SSHHook
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from etcdkeep.errors import (
    AccessDenied,
    ConfigError,
    EtcdkeepError,
    HostKeyUnknown,
    SecretUnavailable,
    ServerUntrusted,
    Unreachable,
)
from etcdkeep.ports import StreamLimits
from etcdkeep.site.credentials import FileCredentials
from etcdkeep.site.site import Site
from etcdkeep_airflow import hooks, ssh_connection
from tests.builders import make_cluster, make_entry, make_file
from tests.connections import FORMS, give_connection
from tests.ssh_server import (
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
    line,
    running,
    says,
)

LIMITS = StreamLimits(deadline_s=20, stall_s=10)
HOST_KEY = line(HOST_KEYS[ED25519])
PASSWORD = "canary-password-of-the-login"
PASSPHRASE = "canary-passphrase-of-the-key"
LOCKED = serialization.BestAvailableEncryption(PASSPHRASE.encode())
STRANGER = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(autouse=True)
def _configuration(tmp_path, monkeypatch):
    config = tmp_path / "clusters.yaml"
    config.write_text(make_file(make_entry()))
    monkeypatch.setenv("ETCDKEEP_CONFIG", str(config))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="module")
def server():
    with running(Node(behave=says(b"in"))) as started:
        yield started


@pytest.fixture
def node(server):
    server.password = PASSWORD
    for seen in (server.connections, server.logins, server.passwords):
        seen.clear()
    return server


@pytest.fixture
def connect(node, monkeypatch):
    """Give Airflow a sound connection to the node, with other fields as given; None takes one away."""

    def add(form="json", connection_id="ssh_prod", *, extra=None, **columns):
        columns = {"conn_type": "ssh", "host": "127.0.0.1", "login": "ubuntu", "port": node.port, **columns}
        extra = {"private_key": KEY.decode(), "host_key": HOST_KEY, **(extra or {})}
        columns["extra"] = {name: value for name, value in extra.items() if value is not None}
        return give_connection(
            monkeypatch, connection_id, form, **{name: value for name, value in columns.items() if value is not None}
        )

    return add


def site_of(connection="ssh_prod", **ssh):
    cluster = make_cluster(ssh={"connection": connection, **ssh}, limits={"connect_s": 5})
    return Site(cluster, hooks.ConnectionCredentials())


def says_in(site, address="127.0.0.1"):
    """Log in, and return what a command prints."""
    with site.open_node(address) as shell:
        return shell.run(("true",), LIMITS).stdout


def negotiated(node, name):
    return node.connections[-1].get_extra_info(name)


# --- honoured ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_connection_opens_a_node_and_the_provider_s_own_hook_reads_the_same(node, connect, form, tmp_path):
    (tmp_path / "key").write_bytes(KEY)
    extra = {
        "private_key": None,
        "key_file": str(tmp_path / "key"),
        "conn_timeout": 7,
        "ciphers": ["aes256-ctr", "aes128-ctr"],
        "disabled_algorithms": {"macs": ["hmac-sha2-512"]},
        "compress": "false",
        "no_host_key_check": "false",
    }
    site = site_of(connect(form, password=PASSWORD, extra=extra))
    assert says_in(site) == b"in"
    hook = SSHHook("ssh_prod", conn_retry_attempts=1)
    target, jump = site.node_target("127.0.0.1")
    assert jump is None
    assert (target.host, target.port, target.user) == (hook.remote_host, hook.port, hook.username)
    assert (target.password, site.ssh_key) == (hook.password, (tmp_path / "key").read_bytes())
    assert target.host_keys == (f"{hook.host_key.get_name()} {hook.host_key.get_base64()}",)
    options = target.options
    assert (options.connect_s, list(options.ciphers), options.compress) == (
        hook.conn_timeout,
        hook.ciphers,
        hook.compress,
    )
    assert {kind: list(names) for kind, names in options.disabled.items()} == hook.disabled_algorithms
    with hook.get_conn() as client:
        assert client.get_transport().is_authenticated()


@pytest.mark.parametrize("kind", USER_KEYS)
@pytest.mark.parametrize("passphrase", [None, PASSPHRASE], ids=["open", "locked"])
@pytest.mark.parametrize("key_format", [OPENSSH, PKCS8, TRADITIONAL], ids=["openssh", "pkcs8", "traditional"])
def test_a_private_key_with_its_passphrase(connect, kind, passphrase, key_format):
    form = "uri" if passphrase else "json"
    if kind == "ed25519" and key_format is TRADITIONAL:
        key_format = OPENSSH
    text = USER_KEYS[kind].private_bytes(PEM, key_format, LOCKED if passphrase else NO_PASSWORD).decode()
    site = site_of(connect(form, extra={"private_key": text, "private_key_passphrase": passphrase}))
    assert says_in(site) == b"in"
    assert b"ENCRYPTED" not in site.ssh_key
    assert site_of().ssh_key == site.ssh_key, "a retry stores the same bytes"


def test_a_key_file_with_its_passphrase(connect, tmp_path):
    (tmp_path / "key").write_bytes(USER_KEYS["rsa"].private_bytes(PEM, TRADITIONAL, LOCKED).replace(b"\n", b"\r\n"))
    extra = {"private_key": None, "key_file": str(tmp_path / "key"), "private_key_passphrase": PASSPHRASE}
    assert says_in(site_of(connect(extra=extra))) == b"in"


@pytest.mark.parametrize("form", FORMS)
def test_a_password_logs_in(node, connect, form):
    site = site_of(connect(form, password=PASSWORD, extra={"private_key": None}))
    assert says_in(site) == b"in"
    assert node.passwords == [PASSWORD]
    assert site.ssh_key == b""


def test_a_password_is_tried_when_the_key_is_refused_and_not_before(node, connect):
    assert says_in(site_of(connect(password=PASSWORD))) == b"in"
    assert node.passwords == []
    other = STRANGER.private_bytes(PEM, OPENSSH, NO_PASSWORD).decode()
    assert says_in(site_of(connect(password=PASSWORD, extra={"private_key": other}))) == b"in"
    assert node.passwords == [PASSWORD]


def test_a_server_that_wants_key_and_password_gets_both(connect):
    with both_wanted() as port:
        with pytest.raises(AccessDenied, match=r"requires more than the key \(password\)"):
            says_in(site_of(connect(port=port)))
        with site_of(connect(port=port, password=PASSWORD)).open_node("127.0.0.1") as shell:
            assert shell.where == f"node ubuntu@127.0.0.1:{port}"


def test_a_password_is_never_a_key(connect, monkeypatch):
    give_connection(monkeypatch, "keyless", conn_type="ssh", login="ubuntu", password=KEY.decode())
    cluster = make_cluster(ssh={"key": {"connection": "keyless"}})
    with pytest.raises(SecretUnavailable, match=r"'keyless' holds no key.*Its password is not one.*ssh\.connection"):
        _ = Site(cluster, hooks.ConnectionCredentials()).ssh_key


def test_a_key_alone_may_still_be_taken_from_a_connection_with_its_passphrase(node, connect):
    locked = USER_KEYS["ed25519"].private_bytes(PEM, OPENSSH, LOCKED).decode()
    connect(extra={"private_key": locked, "private_key_passphrase": PASSPHRASE})
    ssh = {"key": {"connection": "ssh_prod"}, "port": node.port, "host_keys": [HOST_KEY]}
    assert says_in(Site(make_cluster(ssh=ssh), hooks.ConnectionCredentials())) == b"in"


@pytest.mark.parametrize(
    "host_key",
    [
        pytest.param(HOST_KEY, id="as-the-provider-has-it"),
        pytest.param(f"{HOST_KEY} comment", id="comment"),
        pytest.param(HOST_KEY.split()[1], id="bare"),
        pytest.param(line(HOST_KEYS[RSA]).split()[1], id="bare-rsa"),
        pytest.param(f"{line(OTHER_HOST_KEY)}\n{HOST_KEY}\n", id="one-of-several"),
    ],
)
def test_a_host_key_of_the_connection_is_trusted(connect, host_key):
    assert says_in(site_of(connect(extra={"host_key": host_key}))) == b"in"


def test_host_keys_of_the_entry_count_too(connect):
    assert says_in(site_of(connect(extra={"host_key": None}), host_keys=[HOST_KEY])) == b"in"
    assert says_in(site_of(connect(extra={"host_key": line(OTHER_HOST_KEY)}), host_keys=[HOST_KEY])) == b"in"


@pytest.mark.parametrize("password", [None, PASSWORD])
def test_an_unknown_or_changed_host_gets_nothing(node, connect, tmp_path, password):
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{node.port} {HOST_KEY}\n")
    with pytest.raises(HostKeyUnknown):
        says_in(site_of(connect(password=password, extra={"host_key": None})))
    with pytest.raises(ServerUntrusted):
        says_in(site_of(connect(password=password, extra={"host_key": line(OTHER_HOST_KEY)})))
    assert (node.logins, node.passwords) == ([], [])


@pytest.mark.parametrize("form", FORMS)
def test_conn_timeout_is_how_long_a_silent_host_is_waited_for(connect, form):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        site = site_of(connect(form, port=silent.getsockname()[1], extra={"conn_timeout": 0.3}))
        began = monotonic()
        with pytest.raises(Unreachable):
            says_in(site)
        assert monotonic() - began < 4, "limits.connect_s is 5"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ciphers", [["aes128-ctr", "aes256-ctr"], "aes128-ctr,aes256-ctr"])
def test_ciphers_are_offered_in_the_order_given(node, connect, form, ciphers):
    says_in(site_of(connect(form, extra={"ciphers": ciphers})))
    assert negotiated(node, "recv_cipher") == "aes128-ctr"


def test_a_weak_cipher_needs_its_name_in_the_entry(node, connect):
    connection = connect(extra={"ciphers": ["aes256-cbc"]})
    with pytest.raises(
        ConfigError, match=r"'ssh_prod': ciphers names 'aes256-cbc', which is weak.*ssh\.weak_algorithms"
    ):
        says_in(site_of(connection))
    with pytest.raises(ConfigError, match=r"'ssh_prod': ciphers names 'rot13', which is not supported"):
        says_in(site_of(connect(extra={"ciphers": ["rot13"]})))
    assert node.logins == []


@pytest.mark.parametrize("form", FORMS)
def test_disabled_algorithms_are_not_offered(node, connect, form):
    says_in(site_of(connect(form, extra={"ciphers": ["aes128-ctr"]})))
    usual = {name: negotiated(node, f"recv_{name}") for name in ("mac", "cipher")}
    disabled = {"macs": [usual["mac"]], "ciphers": ["aes256-gcm@openssh.com"]}
    says_in(site_of(connect(form, extra={"disabled_algorithms": disabled, "ciphers": ["aes128-ctr"]})))
    assert negotiated(node, "recv_mac") not in (usual["mac"], None)
    says_in(site_of(connect(form, extra={"disabled_algorithms": disabled})))
    assert negotiated(node, "recv_cipher") == "aes128-gcm@openssh.com"


@pytest.mark.parametrize(
    ("kind", "names"),
    [("keys", ["ssh-ed25519"]), ("kex", None), ("macs", None), ("ciphers", None)],
)
def test_nothing_weak_comes_in_where_all_is_disabled(node, connect, kind, names):
    transport = paramiko.Transport.__dict__[f"_preferred_{kind}"]
    all_names = names or list(transport)
    with pytest.raises(ConfigError, match=f"'ssh_prod': disabled_algorithms leaves none of the usable {kind}"):
        says_in(site_of(connect(extra={"disabled_algorithms": {kind: all_names}})))
    assert node.logins == []


@pytest.mark.parametrize(
    ("extra", "expected"), [({}, 15), ({"keepalive_interval": 3}, 3), ({"keepalive_interval": "0"}, 0)]
)
def test_keepalive_interval(connect, extra, expected):
    with site_of(connect(extra=extra)).open_node("127.0.0.1") as shell:
        assert shell._transport.packetizer._Packetizer__keepalive_interval == expected


@pytest.mark.parametrize(
    ("extra", "expected"), [({}, "none"), ({"compress": "true"}, "zlib@openssh.com"), ({"compress": False}, "none")]
)
def test_compress(node, connect, extra, expected):
    assert says_in(site_of(connect(extra=extra))) == b"in"
    assert negotiated(node, "recv_compression") in ((None, "none") if expected == "none" else (expected,))


# --- host and jump host --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_login_is_not_sent_to_another_host_than_the_connection_s(node, connect, form):
    site = site_of(connect(form, host="10.0.0.1"))
    with pytest.raises(
        ConfigError, match=r"'ssh_prod' is for host '10\.0\.0\.1', not for '127\.0\.0\.1'.*Leave its host empty"
    ):
        says_in(site)
    assert node.connections == []


@pytest.mark.parametrize("form", FORMS)
def test_without_a_host_it_is_for_every_node_and_an_address_may_name_another_port(node, connect, form):
    assert says_in(site_of(connect(form, host=None))) == b"in"
    assert says_in(site_of(connect(form, host=None, port=None)), f"127.0.0.1:{node.port}") == b"in"
    assert site_of().node_target("10.0.0.1")[0].port == 22


@pytest.mark.parametrize("form", FORMS)
def test_a_jump_host_by_its_own_connection(node, connect, monkeypatch, form):
    with running(Node(password="of the hop")) as hop:
        columns = {"conn_type": "ssh", "login": "ubuntu", "password": "of the hop", "port": hop.port}
        give_connection(monkeypatch, "ssh_hop", form, host="127.0.0.1", **columns, extra={"host_key": HOST_KEY})
        site = site_of(connect(form), jump={"connection": "ssh_hop"})
        assert says_in(site) == b"in"
        assert (hop.passwords, node.passwords) == (["of the hop"], [])
        give_connection(monkeypatch, "ssh_hop", form, **columns, extra={"host_key": HOST_KEY})
        assert says_in(site_of(jump={"connection": "ssh_hop", "host": "127.0.0.1"})) == b"in"
        with pytest.raises(ConfigError, match=r"'ssh_hop' has no host\. Set it, or ssh\.jump\.host"):
            says_in(site_of(jump={"connection": "ssh_hop"}))
        give_connection(monkeypatch, "ssh_hop", form, host="10.0.0.1", **columns, extra={"host_key": HOST_KEY})
        with pytest.raises(ConfigError, match=r"'ssh_hop' is for host '10\.0\.0\.1', not for '127\.0\.0\.1'"):
            says_in(site_of(jump={"connection": "ssh_hop", "host": "127.0.0.1"}))


def test_a_jump_host_s_key_is_checked_before_anything_is_sent(node, connect, monkeypatch):
    with running(Node()) as hop:
        columns = {"conn_type": "ssh", "host": "127.0.0.1", "login": "ubuntu", "port": hop.port}
        extra = {"private_key": KEY.decode(), "host_key": line(OTHER_HOST_KEY)}
        give_connection(monkeypatch, "ssh_hop", **columns, extra=extra)
        with pytest.raises(ServerUntrusted):
            says_in(site_of(connect(), jump={"connection": "ssh_hop"}))
        assert (hop.logins, node.connections) == ([], [])


def test_nothing_of_the_worker_s_own_ssh_is_used(node, connect, tmp_path):
    """Airflow's hook would run the ProxyCommand."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text(f"Host *\n  ProxyCommand touch {tmp_path}/canary\n  User root\n")
    assert says_in(site_of(connect())) == b"in"
    assert not (tmp_path / "canary").exists()


# --- refused -------------------------------------------------------------------------------------------------------

OWN_KEY = KEY.decode()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param({"extra": {"no_host_key_check": True}}, r"sets no_host_key_check, .*Host keys are always checked", id="no-check"),
        pytest.param({"extra": {"ignore_hostkey_verification": "true"}}, "sets ignore_hostkey_verification", id="ignore"),
        pytest.param({"extra": {"allow_host_key_change": "True"}}, "sets allow_host_key_change", id="change"),
        pytest.param({"extra": {"look_for_keys": "true"}}, r"sets look_for_keys, .*give private_key", id="look"),
        pytest.param({"extra": {"cmd_timeout": 10}}, r"sets cmd_timeout, .*limits\.command_s", id="cmd-timeout"),
        pytest.param({"extra": {"known_hosts": "none"}}, r"sets known_hosts, .*host_key", id="known-hosts"),
        pytest.param({"extra": {"passphrase": PASSPHRASE}}, r"sets passphrase, .*private_key_passphrase", id="passphrase"),
        pytest.param({"extra": {"host_proxy_cmd": "nc"}}, r"sets host_proxy_cmd, .*ssh\.jump", id="proxy"),
        pytest.param({"extra": {"privat_key": "x"}}, "unknown field 'privat_key'; did you mean 'private_key'", id="mistyped"),
        pytest.param({"extra": {"private_key": None}}, "holds no key and no password", id="nothing"),
        pytest.param({"extra": {"key_file": "/x"}}, "gives private_key and key_file. Remove one", id="two-keys"),
        pytest.param({"extra": {"private_key": None, "key_file": "/nowhere"}}, "its key_file: key file /nowhere cannot be read", id="no-file"),
        pytest.param({"extra": {"private_key": None, "key_file": "-----BEGIN PRIVATE KEY----- canary"}}, "key_file of its extra is not usable: expected the absolute path", id="key-as-file"),
        pytest.param({"extra": {"private_key": "canary-garbage"}}, "its private_key holds no private key", id="no-key"),
        pytest.param(
            {"extra": {"private_key": USER_KEYS["rsa"].private_bytes(PEM, OPENSSH, LOCKED).decode()}},
            r"its private_key is protected by a passphrase; give that too \(private_key_passphrase", id="locked",
        ),
        pytest.param(
            {"extra": {"private_key": USER_KEYS["rsa"].private_bytes(PEM, PKCS8, LOCKED).decode(), "private_key_passphrase": "canary"}},
            "its private_key cannot be opened with the passphrase given", id="wrong-passphrase",
        ),
        pytest.param(
            {"password": PASSWORD, "extra": {"private_key": None, "private_key_passphrase": PASSPHRASE}},
            "gives private_key_passphrase, and no key", id="passphrase-alone",
        ),
        pytest.param({"extra": {"host_key": "ssh-dss AAAA"}}, "host_key is not usable", id="dss"),
        pytest.param({"extra": {"host_key": "ssh-ed25519 AAAA"}}, "host_key is not usable", id="cut-key"),
        pytest.param({"extra": {"host_key": "-----BEGIN OPENSSH PRIVATE KEY----- canary"}}, "host_key is not usable: line 1 is not a host key", id="private-key-as-host-key"),
        pytest.param({"extra": {"host_key": f"{HOST_KEY}\n@revoked canary"}}, "line 2 is not a host key.*without @cert-authority or @revoked", id="revoked"),
        pytest.param({"extra": {"conn_timeout": "soon"}}, "conn_timeout is not usable: expected a number", id="timeout-word"),
        pytest.param({"extra": {"conn_timeout": 0}}, "conn_timeout is 0", id="timeout-zero"),
        pytest.param({"extra": {"conn_timeout": -1}}, "conn_timeout is not usable", id="timeout-negative"),
        pytest.param({"extra": {"keepalive_interval": 1.5}}, "keepalive_interval is not usable: expected a whole number", id="keepalive"),
        pytest.param({"extra": {"ciphers": {"a": 1}}}, "ciphers is not usable: expected a list of names", id="ciphers"),
        pytest.param({"extra": {"disabled_algorithms": ["x"]}}, "disabled_algorithms is not usable: expected an object", id="disabled"),
        pytest.param({"extra": {"disabled_algorithms": {"mac": ["x"]}}}, "disabled_algorithms has the unknown kind 'mac'", id="disabled-kind"),
        pytest.param({"extra": {"disabled_algorithms": {"macs": "x"}}}, "expected a list of names as macs", id="disabled-names"),
        pytest.param({"extra": {"compress": "maybe"}}, "compress of its extra is neither true nor false", id="compress"),
        pytest.param({"login": None}, "login is missing. Set it", id="no-login"),
        pytest.param({"schema": "x"}, "schema has no meaning in a connection of type 'ssh'", id="schema"),
        pytest.param({"conn_type": "sftp"}, "is of type 'sftp'; expected 'ssh'", id="type"),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_honoured_is_refused_by_name(node, connect, caplog, fields, said):
    for form, name in (("json", "open_node"), ("uri", "access_files")):
        site = site_of(connect(form, **fields))
        call = site.access_files if name == "access_files" else partial(says_in, site)
        with pytest.raises(EtcdkeepError, match=said) as caught:
            call()
        assert "Airflow connection 'ssh_prod'" in str(caught.value)
        assert "canary" not in str(caught.value) + caplog.text
    assert node.connections == []


@pytest.mark.parametrize(
    "extra",
    [
        {"no_host_key_check": False, "allow_host_key_change": "false", "look_for_keys": "false"},
        {"cmd_timeout": None, "known_hosts": "", "ciphers": [], "disabled_algorithms": {}},
    ],
)
def test_what_changes_nothing_is_not_refused(connect, extra):
    assert says_in(site_of(connect(extra=extra))) == b"in"


def test_every_field_that_the_installed_provider_reads_is_honoured_or_refused():
    """A provider that reads one more shows here."""
    known = {*ssh_connection.HONOURED, *ssh_connection.REFUSED}
    assert fields_read(inspect.getmodule(SSHHook)) - known == set()
    assert {"private_key", "no_host_key_check", "cmd_timeout"} <= fields_read(inspect.getmodule(SSHHook))


def fields_read(module):
    """Return the names that a provider's module looks up in a connection's extra."""
    found = set()
    for each in ast.walk(ast.parse(inspect.getsource(module))):
        match each:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="extra_options"), attr="get"), args=[ast.Constant(name), *_]
            ):
                found.add(name)
            case ast.Subscript(value=ast.Name(id="extra_options"), slice=ast.Constant(name)):
                found.add(name)
            case ast.Compare(left=ast.Constant(name), comparators=[ast.Name(id="extra_options")]):
                found.add(name)
    return found


def test_a_refused_password_is_told_without_it(node, connect):
    with pytest.raises(AccessDenied, match="refused the password") as caught:
        says_in(site_of(connect(password="canary-wrong", extra={"private_key": None})))
    assert "Airflow connection 'ssh_prod'" in str(caught.value)
    assert "canary" not in str(caught.value)
    node.password = ""
    with pytest.raises(AccessDenied, match="refused the password; it takes publickey"):
        says_in(site_of(connect(password="canary-wrong", extra={"private_key": None})))


def test_keys_and_passwords_are_masked_and_not_logged(connect, monkeypatch, caplog):
    masked = []
    monkeypatch.setattr(
        hooks, "mask_secret", lambda secret: masked.extend([secret] if isinstance(secret, str) else secret)
    )
    caplog.set_level(logging.DEBUG)
    says_in(site_of(connect(password=PASSWORD)))
    assert PASSWORD in masked
    assert OWN_KEY.splitlines()[1] in masked
    assert PASSWORD not in caplog.text
    assert OWN_KEY.splitlines()[1] not in caplog.text


# --- the set, the runbook, the command line, files -----------------------------------------------------------------


def test_what_a_set_keeps_and_a_runbook_says_is_the_connection_s(node, connect, monkeypatch):
    give_connection(
        monkeypatch, "ssh_hop", conn_type="ssh", host="hop", login="jump", port=2222, password=PASSWORD,
        extra={"host_key": HOST_KEY, "private_key": OWN_KEY},
    )  # fmt: skip
    cluster = make_cluster(
        ssh={"connection": connect(), "jump": {"connection": "ssh_hop"}}, kubeconfig={"in_cluster": True}
    )
    site = Site(cluster, hooks.ConnectionCredentials())
    assert site.access_files() == {
        "ssh_key": KEY,
        "jump_ssh_key": KEY,
        "jump_ssh_password": PASSWORD.encode(),
        "known_hosts": f"* {HOST_KEY}\n[hop]:2222 {HOST_KEY}\n".encode(),
    }
    assert (site.ssh.user, site.ssh.port) == ("ubuntu", node.port)
    assert (site.ssh.jump.host, site.ssh.jump.user, site.ssh.jump.port) == ("hop", "jump", 2222)


def test_the_command_line_opens_the_same_from_files(node, tmp_path, connect):
    files = {
        "key": USER_KEYS["rsa"].private_bytes(PEM, OPENSSH, LOCKED),
        "phrase": f"{PASSPHRASE}\n".encode(),
        "word": f"{PASSWORD}\n".encode(),
    }
    paths = {name: str(tmp_path / name) for name in files}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    common = {"port": node.port, "host_keys": [HOST_KEY]}
    by_key = {**common, "key": {"path": paths["key"]}, "key_passphrase_file": paths["phrase"]}
    assert says_in(Site(make_cluster(ssh=by_key), FileCredentials())) == b"in"
    assert node.passwords == []
    by_password = {**common, "password_file": paths["word"]}
    site = Site(make_cluster(ssh=by_password, kubeconfig={"in_cluster": True}), FileCredentials())
    assert says_in(site) == b"in"
    assert site.access_files().keys() == {"ssh_password", "known_hosts"}
    through = {**by_key, "jump": {**by_password, "host": "127.0.0.1"}}
    node.passwords.clear()
    assert says_in(Site(make_cluster(ssh=through), FileCredentials())) == b"in"
    assert node.passwords == [PASSWORD]
    connect()
    with pytest.raises(
        SecretUnavailable, match="'ssh_prod' cannot be read outside Airflow; on the command line, set user, port"
    ):
        says_in(Site(make_cluster(ssh={"connection": "ssh_prod"}), FileCredentials()))


def test_a_cluster_without_nodes_reads_no_login():
    cluster = make_cluster(profile="gke-user-kubeception", ssh={"connection": "nobody"})
    assert Site(cluster, hooks.ConnectionCredentials()).ssh.user == "ubuntu"


@contextmanager
def both_wanted():
    """Serve logins that need key and password, on loopback."""

    class Server(paramiko.ServerInterface):
        def get_allowed_auths(self, username):
            return "publickey,password" if not self.by_key else "password"

        by_key = False

        def check_auth_publickey(self, username, key):
            self.by_key = True
            return paramiko.AUTH_PARTIALLY_SUCCESSFUL

        def check_auth_password(self, username, password):
            return paramiko.AUTH_SUCCESSFUL if self.by_key and password == PASSWORD else paramiko.AUTH_FAILED

    with socket.create_server(("127.0.0.1", 0)) as listener:
        transports = []

        def serve():
            while True:
                try:
                    wire, _ = listener.accept()
                except OSError:
                    return
                transport = paramiko.Transport(wire)
                transport.add_server_key(
                    paramiko.Ed25519Key.from_private_key(StringIO(HOST_KEYS[ED25519].export_private_key().decode()))
                )
                transports.append(transport)
                transport.start_server(server=Server())

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        for transport in transports:
            transport.close()
