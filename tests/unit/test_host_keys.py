"""SSH host keys as they are written in the configuration."""

from __future__ import annotations

from base64 import b64encode

import pytest

from etcdkeep.errors import ConfigError
from etcdkeep.host_keys import keys_for, parse_host_key

BLOB = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32))
TEXT = b64encode(BLOB).decode()
KEY = f"ssh-ed25519 {TEXT}"


@pytest.mark.parametrize(
    ("line", "hosts"),
    [
        pytest.param(KEY, (), id="plain"),
        pytest.param(f"  {KEY} root@node-1 two words\n", (), id="comment"),
        pytest.param(f"10.0.0.1 {KEY}", ("10.0.0.1",), id="host"),
        pytest.param(f"node-1,[10.0.0.1]:2222 {KEY} c", ("node-1", "[10.0.0.1]:2222"), id="hosts"),
    ],
)
def test_lines_that_people_paste(line, hosts):
    key = parse_host_key(line)
    assert (key.algorithm, key.blob, key.hosts) == ("ssh-ed25519", BLOB, hosts)


def test_fingerprint_is_the_one_that_ssh_prints():
    # printed by: ssh-keygen -lf, OpenSSH 9.2
    assert parse_host_key(KEY).fingerprint == "SHA256:ZkAslGjFiUHdGf/WUL8rQvkib4PTvQatUV0OUQSncCA"


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("", id="empty"),
        pytest.param("ssh-ed25519", id="no-key"),
        pytest.param(TEXT, id="no-algorithm"),
        pytest.param(f"ssh-dss {TEXT}", id="algorithm-not-supported"),
        pytest.param(f"ssh-rsa {TEXT}", id="another-algorithm-inside"),
        pytest.param(f"ssh-ed25519 {TEXT[:20]}!", id="not-base64"),
        pytest.param(f"ssh-ed25519 {TEXT[:-8]}", id="cut-off"),
        pytest.param("ssh-ed25519 AAAA", id="cut-off-in-the-name"),
        pytest.param(f"|1|abc=|def= {KEY}", id="hashed-host"),
        pytest.param(f"@cert-authority * {KEY}", id="marker"),
    ],
)
def test_lines_that_are_no_host_key(line):
    with pytest.raises(ConfigError, match="host key line"):
        parse_host_key(line)


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        pytest.param("10.0.0.1", 22, [0, 1], id="own-and-general"),
        pytest.param("10.0.0.1", 2222, [0, 1, 2], id="port"),
        pytest.param("10.0.0.2", 22, [0], id="general-only"),
    ],
)
def test_a_line_with_a_host_counts_for_that_host_only(host, port, expected):
    lines = [KEY, f"10.0.0.1 {KEY}", f"[10.0.0.1]:2222 {KEY}"]
    assert list(keys_for(lines, host, port)) == [parse_host_key(lines[index]) for index in expected]


@pytest.mark.parametrize(("port", "name"), [(22, "node-1"), (2222, "[node-1]:2222")])
def test_the_printed_line_is_read_back_for_that_host(port, name):
    line = parse_host_key(KEY).line("node-1", port)
    assert line == f"{name} {KEY}"
    assert [key.blob for key in keys_for([line], "node-1", port)] == [BLOB]
