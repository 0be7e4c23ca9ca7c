"""SSH host keys as they are written in the configuration."""

from __future__ import annotations

import subprocess
from base64 import b64encode

import pytest

from etcdkeep.config.host_keys import keys_for, parse_host_key
from etcdkeep.errors import ConfigError

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
        pytest.param(f"|1|abc= {KEY}", id="hashed-host-cut-off"),
        pytest.param(f"|2|abc=|def= {KEY}", id="hashed-in-another-way"),
        pytest.param(f"node-1,, {KEY}", id="empty-name"),
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


@pytest.mark.parametrize(
    ("marker", "said"),
    [("@cert-authority", "host certificates are not supported.*trust"), ("@revoked", "leave the line out")],
)
def test_markers_are_named(marker, said):
    with pytest.raises(ConfigError, match=f"{marker} is not accepted here: {said}"):
        parse_host_key(f"{marker} node-1 {KEY}")


PATTERNS = [
    pytest.param("node-1", "node-1", 22, True, id="name"),
    pytest.param("Node-1.Example.NET", "node-1.example.net", 22, True, id="capitals-in-the-line"),
    pytest.param("node-1", "NODE-1", 22, True, id="capitals-in-the-host"),
    pytest.param("node-*", "node-17", 22, True, id="star"),
    pytest.param("10.0.0.?", "10.0.0.7", 22, True, id="question-mark"),
    pytest.param("10.0.0.?", "10.0.0.77", 22, False, id="question-mark-is-one"),
    pytest.param("*", "anything", 2222, True, id="any"),
    pytest.param("node-*,!node-3", "node-3", 22, False, id="negated"),
    pytest.param("!node-3,node-*", "node-3", 22, False, id="negated-first"),
    pytest.param("node-*,!node-3", "node-4", 22, True, id="another-is-negated"),
    pytest.param("!node-3", "node-4", 22, False, id="negated-only"),
    pytest.param("*,!NODE-3", "node-3", 22, False, id="negated-with-capitals"),
    pytest.param("[node-1]:2222", "node-1", 2222, True, id="port"),
    pytest.param("[node-1]:2222", "node-1", 22, False, id="another-port"),
    pytest.param("[node-*]:2222", "node-9", 2222, True, id="port-and-star"),
    pytest.param("[*]:2222", "node-9", 2200, False, id="star-of-another-port"),
    pytest.param("node-1", "node-1", 2222, True, id="without-port-for-any-port"),
    pytest.param("a,b,10.0.0.1", "10.0.0.1", 22, True, id="comma-list"),
    pytest.param("node.1", "nodex1", 22, False, id="dot-is-a-dot"),
    pytest.param("node[12]", "node1", 22, False, id="no-character-classes"),
    pytest.param("fd00::1", "fd00::1", 22, True, id="ipv6"),
    pytest.param("[FD00::1]:2222", "fd00::1", 2222, True, id="ipv6-and-port"),
]


@pytest.mark.parametrize("hashed", [False, True], ids=["plain", "hashed"])
@pytest.mark.parametrize(("patterns", "host", "port", "expected"), PATTERNS)
def test_patterns_are_taken_as_openssh_takes_them(tmp_path, patterns, host, port, expected, hashed):
    """ssh-keygen -F is OpenSSH's own opinion; it is asked for the name with and without the port, as ssh does."""
    names = [host.lower()] if port == 22 else [f"[{host.lower()}]:{port}", host.lower()]
    (tmp_path / "known_hosts").write_text(f"{patterns} {KEY}\n")
    if hashed:  # names with patterns stay as they are, lists become one line a name
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", tmp_path / "known_hosts"], check=True, capture_output=True)
    lines = [line for line in (tmp_path / "known_hosts").read_text().splitlines() if line]
    asked = [["ssh-keygen", "-F", name, "-f", tmp_path / "known_hosts"] for name in names]
    theirs = any(subprocess.run(question, check=False, capture_output=True).returncode == 0 for question in asked)
    assert bool(keys_for(lines, host, port)) == theirs
    assert theirs == expected
