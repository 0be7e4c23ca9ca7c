"""Modern algorithms only, unless a host's entry brings one back: against a real OpenSSH server."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from etcdkeep.adapters.ssh.node import open_node
from etcdkeep.config.ssh_algorithms import WEAK
from etcdkeep.errors import AccessDenied, ConfigError
from etcdkeep.ports import StreamLimits
from tests.builders import make_cluster
from tests.etcd import free_ports
from tests.openssh import make_key, needs_sshd, running_sshd

LIMITS = StreamLimits(deadline_s=30)
CTR = "Ciphers aes256-ctr"


@pytest.fixture
def start(tmp_path):
    from contextlib import ExitStack

    with ExitStack() as stack:

        def begin(*options):
            make_key(tmp_path / "user", "rsa")
            (port,) = free_ports(1)
            return stack.enter_context(
                running_sshd(tmp_path / "server", "127.0.0.1", port, tmp_path / "user", *options, kinds=("ed25519",))
            )

        yield begin


pytestmark = needs_sshd


@pytest.mark.parametrize(
    ("option", "name", "kind"),
    [
        pytest.param(["Ciphers 3des-cbc"], "3des-cbc", "cipher", id="3des"),
        pytest.param(["Ciphers aes256-cbc"], "aes256-cbc", "cipher", id="cbc"),
        pytest.param([CTR, "MACs hmac-sha1"], "hmac-sha1", "MAC", id="sha1"),
        pytest.param([CTR, "MACs hmac-md5"], "hmac-md5", "MAC", id="md5"),
        pytest.param([CTR, "MACs hmac-md5-96"], "hmac-md5-96", "MAC", id="md5-96"),
    ],
)
def test_a_weak_algorithm_is_named_with_the_setting_that_brings_it_back_and_does(start, option, name, kind):
    server = start(*option)
    for setting in ("ssh", "ssh.jump"):
        target = replace(server.target(), setting=setting)
        said = rf"no {kind} that is safe, only {name}\.\n.*: {re.escape(setting)}\.weak_algorithms: \[{name}\]$"
        with pytest.raises(AccessDenied, match=said), open_node(target, server.key):
            pass
    with open_node(replace(server.target(), weak_algorithms=(name,)), server.key) as shell:
        assert shell.run(("echo", "in"), LIMITS).stdout == b"in\n"


def test_one_weak_algorithm_brings_back_no_other(start):
    server = start("Ciphers aes128-cbc")
    with pytest.raises(AccessDenied), open_node(replace(server.target(), weak_algorithms=("3des-cbc",)), server.key):
        pass


def test_a_key_exchange_with_sha1_is_not_to_be_had(start):
    server = start("KexAlgorithms diffie-hellman-group14-sha1")
    said = r"no key exchange that is safe, only diffie-hellman-group14-sha1.*\nUpdate its SSH server: nothing"
    with pytest.raises(AccessDenied, match=said), open_node(server.target(), server.key):
        pass


def test_a_login_signs_with_sha2(start):
    server = start("PubkeyAcceptedAlgorithms ssh-rsa")
    with pytest.raises(AccessDenied), open_node(server.target(), server.key):
        pass


@pytest.mark.parametrize("weak", [[], list(WEAK)], ids=["none", "all"])
def test_a_modern_server_is_met_with_the_best(start, weak):
    server = start("LogLevel DEBUG2")
    with open_node(replace(server.target(), weak_algorithms=tuple(weak)), server.key) as shell:
        shell.run(("true",), LIMITS)
    log = server.log.read_text()
    assert "cipher: aes256-gcm@openssh.com" in log
    peer = re.search(r"(?s)peer client KEXINIT proposal.*?first_kex_follows", log)
    assert peer is not None
    found = {name for name in ("cbc", "3des", "md5", "sha1", "ssh-rsa", "ssh-dss", "arcfour") if name in peer[0]}
    assert found == (set() if not weak else {"cbc", "3des", "md5", "sha1"})


@pytest.mark.parametrize(
    ("name", "said"),
    [("aes256-gcm@openssh.com", "is used anyway"), ("ssh-rsa", "is not supported"), ("none", "is not supported")],
)
@pytest.mark.parametrize("place", ["nodes", "jump"])
def test_other_names_are_refused_in_the_configuration(name, said, place):
    weak = {"weak_algorithms": [name]}
    ssh = weak if place == "nodes" else {"jump": {"host": "hop", **weak}}
    with pytest.raises((ConfigError, ValueError), match=f"{name}.* {said}; expected one of aes256-cbc"):
        make_cluster(ssh=ssh)
