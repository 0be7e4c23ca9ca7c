"""Tokens, exec plugins and impersonation: what is sent, what is refused, and that no failure shows a secret."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
import traceback
from base64 import b64decode, b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from etcdkeep.adapters.kube import connection as kube_connection
from etcdkeep.adapters.kube.client import KubeApiClient, open_kubeconfig
from etcdkeep.adapters.kube.config import Permits, open_in_cluster
from etcdkeep.errors import (
    AccessDenied,
    ConfigError,
    EtcdkeepError,
    NotFound,
    SecretUnavailable,
    TransientError,
    Unreachable,
)
from etcdkeep.ports import PodRef, StreamLimits
from lab.waiting import wait_for
from tests.exec_server import Certificates, ExecServer, Peer, http, running

if TYPE_CHECKING:
    from etcdkeep.adapters.kube.connection import KubeConnection

POD = PodRef("a", "b", "c")
NOTHING = Permits()
CANARY = "canary-5d1e88f0c2"
V1 = "client.authentication.k8s.io/v1"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def server(certificates):
    found = http(200, json.dumps({"gitVersion": "v1"}).encode())
    with running(
        ExecServer(certificates, answer=lambda peer: http(404, b"{}") if "/exec" in peer.path else found)
    ) as started:
        yield started


def as_user(
    server: ExecServer, permits: Permits = NOTHING, mask: Any = lambda secret: None, **user: Any
) -> KubeConnection:
    return open_kubeconfig(server.certificates.kubeconfig(server.url, **user), permits=permits, mask=mask)


def both(connection: KubeConnection) -> None:
    """Ask once by REST and once by exec."""
    client = KubeApiClient(connection)
    assert client.version() == "v1"
    with pytest.raises(NotFound):
        client.exec(POD).run(("true",), StreamLimits(5))


def failure(call: Any, error: type[EtcdkeepError]) -> str:
    """Return the message of a failure; nothing secret stands in its whole traceback."""
    with pytest.raises(error) as caught:
        call()
    text = "".join(traceback.format_exception(caught.value))
    assert CANARY not in text
    assert b64encode(CANARY.encode()).decode()[:-2] not in text
    return str(caught.value)


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_a_token_file_is_stripped_and_read_anew(server, tmp_path):
    token = tmp_path / "token"
    token.write_text("first\n")
    connection = as_user(server, tokenFile=str(token))
    both(connection)
    token.write_text("\n second \r\n")
    both(connection)
    assert [peer.headers["authorization"] for peer in server.peers] == ["Bearer first"] * 2 + ["Bearer second"] * 2


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (f"{CANARY}\n{CANARY}\n".encode(), "holds a space, a line break"),
        (f"{CANARY}\0".encode(), "it is not a token"),
        (f"{CANARY}\xff".encode("latin-1"), "not ASCII"),
        (b" \n", "it is empty"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_token_file_that_holds_no_token_is_named_and_not_shown(server, tmp_path, content, text):
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    client = KubeApiClient(as_user(server, tokenFile=str(file)))
    for call in (client.version, lambda: client.exec(POD).run(("true",), StreamLimits(5))):
        said = failure(call, SecretUnavailable)
        assert f"tokenFile {file} " in said
        assert text in said
    assert server.peers == []


def test_a_token_counts_where_its_file_cannot_be_read(server, tmp_path):
    both(as_user(server, tokenFile=str(tmp_path / "gone"), token="beside"))
    assert server.peers[0].headers["authorization"] == "Bearer beside"


def test_a_user_and_password_are_sent(server):
    both(as_user(server, username="u", password="pä:ss"))
    expected = f"Basic {b64encode('u:pä:ss'.encode()).decode()}"
    assert [peer.headers["authorization"] for peer in server.peers] == [expected] * 2


def test_a_pod_s_own_account_is_read_anew(server, tmp_path, certificates):
    (tmp_path / "ca.crt").write_bytes((certificates.directory / "ca.crt").read_bytes())
    (tmp_path / "token").write_text("first")
    host, _, port = server.url.removeprefix("https://").partition(":")
    connection = open_in_cluster({"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}, tmp_path)
    both(connection)
    (tmp_path / "token").write_text("second\n")
    both(connection)
    assert server.peers[-1].headers["authorization"] == "Bearer second"
    with pytest.raises(
        SecretUnavailable,
        match="works only in a pod of the cluster, and this process does not run in one: KUBERNETES_SERVICE_HOST",
    ):
        open_in_cluster({}, tmp_path)


# --- impersonation ---------------------------------------------------------------------------------------------------


def test_impersonation_is_sent_with_reads_and_exec(server):
    seen: list[bytes] = []
    plain = server.answer
    server.answer = lambda peer: seen.append(json.dumps(peer.headers).encode()) or plain(peer)
    both(
        as_user(
            server,
            token="t",
            **{"as": "nobody", "as-uid": "7", "as-groups": ["one"], "as-user-extra": {"scope": ["x"]}},
        )
    )
    for peer in server.peers:
        assert peer.headers["impersonate-user"] == "nobody"
        assert peer.headers["impersonate-uid"] == "7"
        assert peer.headers["impersonate-group"] == "one"
        assert peer.headers["impersonate-extra-scope"] == "x"


def test_several_groups_are_several_headers(server):
    connection = as_user(server, token="t", **{"as": "jürgen", "as-groups": ["one", "two"]})
    assert [value for name, value in connection.headers() if name == "Impersonate-Group"] == ["one", "two"]
    both(connection)
    assert {peer.headers["impersonate-user"] for peer in server.peers} == {"jürgen"}
    assert {peer.headers["impersonate-group"] for peer in server.peers} == {"two"}, (
        "this server keeps the last of a name"
    )


# --- files -----------------------------------------------------------------------------------------------------------


def test_relative_paths_work_from_any_working_directory(server, tmp_path, certificates, monkeypatch):
    keys = tmp_path / "site/keys"
    keys.mkdir(parents=True)
    for name in ("ca.crt", "client.crt", "client.key"):
        (keys / name).write_bytes((certificates.directory / name).read_bytes())
    config = certificates.kubeconfig(
        server.url, **{"client-certificate": "keys/client.crt", "client-key": "keys/client.key"}
    )
    config["clusters"][0]["cluster"] = {"server": server.url, "certificate-authority": "keys/ca.crt"}
    (tmp_path / "site/kubeconfig").write_text(yaml.safe_dump(config))
    for folder, path in ((tmp_path, Path("site/kubeconfig")), (Path("/"), tmp_path / "site/kubeconfig")):
        monkeypatch.chdir(folder)
        both(open_kubeconfig(path))
    assert all(peer.client_certificate for peer in server.peers)


@pytest.mark.parametrize("comment", ["# Autorité de certification — n° 1\n", "\n \n", "Subject: CN=müller\r\n"])
def test_comments_in_pem_files_do_no_harm(server, certificates, comment):
    config = certificates.kubeconfig(server.url)
    for section, names in (
        (config["clusters"][0]["cluster"], ["certificate-authority"]),
        (config["users"][0]["user"], ["client-certificate", "client-key"]),
    ):
        for name in names:
            data = comment.encode() + b64decode(section[f"{name}-data"]) + b"\n# f\xfcr (Latin-1)\n"
            section[f"{name}-data"] = b64encode(data).decode()
    both(open_kubeconfig(config))


def test_an_authority_without_a_certificate_is_named(server):
    config = server.certificates.kubeconfig(server.url)
    config["clusters"][0]["cluster"]["certificate-authority-data"] = b64encode(b"nothing").decode()
    with pytest.raises(ConfigError, match="holds no PEM certificate"):
        open_kubeconfig(config)


def test_a_server_without_tls_needs_the_configuration_s_word():
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": CANARY}}],
    }
    said = failure(lambda: open_kubeconfig(config), ConfigError)
    assert "it asks for http: its server is http://127.0.0.1:1" in said
    assert "allow_insecure: [http]" in said
    with pytest.raises(Unreachable):
        KubeApiClient(open_kubeconfig(config, permits=Permits(["http"]))).version()


# --- exec plugins ----------------------------------------------------------------------------------------------------


class Plugin:
    """A credential plugin: a shell script that counts its runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "plugin"
        self.fields: dict[str, Any] = {"apiVersion": V1, "command": str(self.path), "interactiveMode": "Never"}

    def does(self, script: str) -> Plugin:
        self.path.write_text(f"#!/bin/sh\necho run >> {self.folder}/runs\n{script}\n")
        self.path.chmod(0o700)
        return self

    def prints(self, status: Any, **changes: Any) -> Plugin:
        document = {"apiVersion": V1, "kind": "ExecCredential", "status": status, **changes}
        (self.folder / "answer").write_text(json.dumps(document))
        return self.does(f"cat {self.folder}/answer")

    def connect(
        self, server: ExecServer, *, timeout_s: float = 20, allowed: bool = True, mask: Any = lambda secret: None
    ) -> KubeConnection:
        permits = Permits(exec_plugins=[str(self.path)] if allowed else [], exec_timeout_s=timeout_s)
        return as_user(server, permits, mask, exec=self.fields)

    @property
    def runs(self) -> int:
        file = self.folder / "runs"
        return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.fixture
def plugin(tmp_path):
    return Plugin(tmp_path)


def test_a_plugin_s_token_is_used_until_it_ends(server, plugin):
    connection = plugin.prints({"token": "one"}).connect(server)
    both(connection)
    both(connection)
    assert {peer.headers["authorization"] for peer in server.peers} == {"Bearer one"}
    assert plugin.runs == 1


def test_a_plugin_is_asked_again_when_its_token_ends(server, plugin):
    connection = plugin.prints({"token": "one", "expirationTimestamp": "2020-01-01T00:00:00Z"}).connect(server)
    KubeApiClient(connection).version()
    plugin.prints({"token": "two", "expirationTimestamp": "2999-01-01T00:00:00.5Z"})
    both(connection)
    both(connection)
    assert server.peers[-1].headers["authorization"] == "Bearer two"


def test_a_plugin_is_asked_again_when_its_token_is_not_accepted(server, plugin):
    connection = plugin.prints({"token": "one"}).connect(server)
    plain = server.answer

    def answer(peer: Peer) -> bytes:
        if peer.headers["authorization"] == "Bearer one":
            plugin.prints({"token": "two"})
            return http(401, b"{}")
        return plain(peer)

    server.answer = answer
    both(connection)
    server.answer = lambda peer: http(401, b"{}")
    for call in (connection_version(connection), connection_exec(connection)):
        assert "exec plugin" in failure(call, AccessDenied)


def connection_version(connection: KubeConnection) -> Any:
    return KubeApiClient(connection).version


def connection_exec(connection: KubeConnection) -> Any:
    return lambda: KubeApiClient(connection).exec(POD).run(("true",), StreamLimits(5))


def test_a_certificate_of_a_plugin_is_used_and_its_key_is_on_no_disk(
    server, plugin, certificates, tmp_path, monkeypatch
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    pair = {
        f"client{kind}Data": (certificates.directory / f"client.{suffix}").read_text()
        for kind, suffix in (("Certificate", "crt"), ("Key", "key"))
    }
    both(plugin.prints(pair).connect(server))
    assert all(peer.client_certificate for peer in server.peers)
    assert os.listdir(scratch) == []


def test_a_key_reaches_openssl_without_a_file_where_there_is_no_memfd(server, certificates, monkeypatch, tmp_path):
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    both(open_kubeconfig(certificates.kubeconfig(server.url)))
    assert all(peer.client_certificate for peer in server.peers)
    assert os.listdir(tmp_path) == []


BAD = [
    pytest.param("exit 0", "printed nothing", id="silent"),
    pytest.param(f"echo '{CANARY}'", "printed no ExecCredential: 18 bytes that are not JSON", id="no-json"),
    pytest.param(f"echo '{{\"token\": \"{CANARY}\"}}'", "is not an ExecCredential", id="other-json"),
    pytest.param(f"echo '{CANARY}'; echo 'my words about {CANARY}' >&2; exit 3", "ended with exit code 3.\nLast output: my words about ***", id="fails"),
    pytest.param("echo 'Please log in at https://login.example.net' >&2; exit 1", "Last output: Please log in at https://login.example.net", id="asks"),
    pytest.param("read -r answer < /dev/tty || { echo no terminal >&2; exit 9; }", "no terminal", id="terminal"),
    pytest.param("read -r answer || { echo no input >&2; exit 9; }", "Last output: no input", id="input"),
    pytest.param("yes aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "printed more than 1048576 bytes", id="endless"),
]  # fmt: skip


@pytest.mark.parametrize(("script", "text"), BAD)
def test_a_plugin_that_gives_nothing_says_so_and_nothing_is_asked(server, plugin, script, text):
    plugin.fields["installHint"] = "See https://intranet.example.net/plugin"
    connection = plugin.does(script).connect(server)
    for call in (connection_version(connection), connection_exec(connection)):
        said = failure(call, TransientError)
        assert text in said
        assert f"exec plugin '{plugin.path}'" in said
        assert "See https://intranet.example.net/plugin" in said
    assert server.peers == []


@pytest.mark.parametrize(
    ("status", "changes", "text"),
    [
        ({}, {}, "gave neither a token nor a certificate"),
        ({"token": ""}, {}, "gave neither a token nor a certificate"),
        (None, {}, "has no status"),
        ({"token": {"a": CANARY}}, {}, "gave a token that is not text"),
        ({"token": f"{CANARY}\n{CANARY}"}, {}, "the token that it gave holds a space, a line break"),
        ({"clientCertificateData": CANARY}, {}, "gave a certificate without its key"),
        ({"clientKeyData": CANARY}, {}, "gave a certificate without its certificate"),
        ({"token": CANARY}, {"apiVersion": "client.authentication.k8s.io/v1beta1"}, f"another apiVersion than {V1}"),
        ({"token": CANARY, "expirationTimestamp": "tomorrow"}, {}, "expirationTimestamp that is not a time"),
    ],
)
def test_an_answer_without_credentials_is_refused(server, plugin, status, changes, text):
    assert text in failure(KubeApiClient(plugin.prints(status, **changes).connect(server)).version, TransientError)
    assert server.peers == []


def test_a_certificate_that_is_none_is_refused(server, plugin):
    connection = plugin.prints({"clientCertificateData": CANARY, "clientKeyData": CANARY}).connect(server)
    assert "are not PEM" in failure(KubeApiClient(connection).version, ConfigError)


WAIT = f"987.{os.getpid()}"
"""Seconds that tell this run's plugins from another's."""


@pytest.mark.parametrize(
    "script",
    [
        f"echo '{CANARY}'; echo waiting for a login >&2; exec sleep {WAIT}",
        f"echo waiting for a login >&2; sleep {WAIT} & exit 0",
    ],
    ids=["itself", "a-child"],
)
def test_a_plugin_that_waits_is_stopped(server, plugin, script):
    client = KubeApiClient(plugin.does(script).connect(server, timeout_s=0.5))
    began = time.monotonic()
    said = failure(client.version, TransientError)
    assert time.monotonic() - began < 60
    assert "did not end within 0.5 s and was stopped. Does it wait for a login?" in said
    assert "Last output: waiting for a login" in said
    is_over = ["pgrep", "-f", f"sleep {WAIT}"]
    wait_for(lambda: subprocess.run(is_over, capture_output=True).returncode == 1, "the plugin to be gone")


def test_a_plugin_that_is_missing_tells_its_install_hint(server, plugin):
    plugin.fields |= {"command": "no-such-plugin-here", "installHint": "apt install it"}
    said = failure(lambda: plugin.connect(server), ConfigError)
    assert "exec plugin 'no-such-plugin-here' of the kubeconfig is not on this machine" in said
    assert "apt install it" in said


def test_a_plugin_runs_only_when_the_configuration_names_it(server, plugin, monkeypatch):
    plugin.prints({"token": "one"})
    said = failure(lambda: plugin.connect(server, allowed=False), ConfigError)
    assert "is not allowed here. exec_plugins holds: nothing. If you trust the plugin" in said
    assert f"exec_plugins: [{plugin.path}]" in said
    assert plugin.runs == 0
    monkeypatch.setenv("PATH", f"{plugin.folder}:{os.environ['PATH']}")
    both(as_user(server, Permits(exec_plugins=["plugin"]), exec=plugin.fields))
    both(as_user(server, Permits(exec_plugins=[str(plugin.path)]), exec={**plugin.fields, "command": "plugin"}))
    other = plugin.folder / "other"
    other.mkdir()
    (other / "plugin").write_bytes(plugin.path.read_bytes())
    (other / "plugin").chmod(0o700)
    with pytest.raises(ConfigError, match="is not allowed here"):
        as_user(server, Permits(exec_plugins=["plugin"]), exec={**plugin.fields, "command": str(other / "plugin")})


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PATH", "PYTHONPATH", "BASH_ENV", "CLOUDSDK_PYTHON", "NODE_OPTIONS"])
def test_a_kubeconfig_cannot_make_an_allowed_plugin_run_other_code(server, plugin, name):
    plugin.fields["env"] = [{"name": name, "value": CANARY}]
    said = failure(lambda: plugin.prints({"token": "t"}).connect(server), ConfigError)
    assert f"sets {name}, which can make it run other code" in said


def test_a_plugin_gets_its_input_and_none_of_our_keys(server, plugin, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_ETCDKEEP_AGE", CANARY)
    monkeypatch.setenv("ETCDKEEP_AGE_IDENTITY", CANARY)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    plugin.fields |= {
        "provideClusterInfo": True,
        "args": ["--who", "me"],
        "env": [{"name": "PROFILE", "value": "prod"}],
    }
    plugin.prints({"token": "t"})
    plugin.does(f'env > {plugin.folder}/env; echo "$@" > {plugin.folder}/args; cat {plugin.folder}/answer')
    both(plugin.connect(server))
    environment = dict(line.partition("=")[::2] for line in (plugin.folder / "env").read_text().splitlines())
    assert (environment["PROFILE"], environment["AWS_REGION"]) == ("prod", "eu-central-1")
    assert CANARY not in environment.values()
    info = json.loads(environment["KUBERNETES_EXEC_INFO"])
    assert (info["kind"], info["apiVersion"], info["spec"]["interactive"]) == ("ExecCredential", V1, False)
    assert info["spec"]["cluster"]["server"] == server.url
    assert info["spec"]["cluster"]["certificate-authority-data"]
    assert (plugin.folder / "args").read_text() == "--who me\n"


def test_a_relative_plugin_begins_at_the_kubeconfigs_folder(server, plugin, monkeypatch):
    plugin.prints({"token": "one"})
    config = server.certificates.kubeconfig(server.url, exec={**plugin.fields, "command": "./plugin"})
    (plugin.folder / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.chdir("/")
    both(open_kubeconfig(plugin.folder / "kubeconfig", permits=Permits(exec_plugins=[str(plugin.path)])))


def test_secret_arguments_and_variables_are_not_repeated_from_a_plugin_s_words(server, plugin):
    plugin.fields |= {
        "args": ["--client-secret", CANARY, f"--token={CANARY}2"],
        "env": [{"name": "MY_PASSWORD", "value": f"{CANARY}3"}],
    }
    client = KubeApiClient(plugin.does('echo "bad: $* $MY_PASSWORD" >&2; exit 1').connect(server))
    assert "Last output: bad: --client-secret *** --token=*** ***" in failure(client.version, TransientError)


def test_what_a_plugin_gives_is_masked(server, plugin):
    masked: list[bytes] = []
    both(plugin.prints({"token": CANARY}).connect(server, mask=masked.append))
    assert f"Bearer {CANARY}".encode() in masked


# --- every way of failing --------------------------------------------------------------------------------------------


ECHOES = [
    pytest.param(lambda peer, code=code: http(code, json.dumps(dict(peer.headers)).encode()), id=f"echo-{code}")
    for code in (400, 401, 403, 404, 409, 422, 500, 302)
]
ECHOES += [
    pytest.param(lambda peer: http(200, repr(peer.headers).encode(), "text/html"), id="no-json"),
    pytest.param(lambda peer: b"", id="hangs-up"),
    pytest.param(
        lambda peer: b"HTTP/1.1 200 " + peer.headers["authorization"].encode() + b"\r\nContent-Length: 9\r\n\r\n{",
        id="cut",
    ),
    pytest.param(lambda peer: peer.headers["authorization"].encode() + b"\r\n\r\n", id="no-http"),
]


@pytest.mark.parametrize("answer", ECHOES)
@pytest.mark.parametrize("kind", ["token", "token-file", "password", "plugin"])
def test_a_server_that_repeats_what_it_was_sent_makes_no_error_show_it(server, plugin, answer, kind, tmp_path, caplog):
    caplog.set_level("DEBUG")
    (tmp_path / "token").write_text(f"{CANARY}\n")
    users: dict[str, dict[str, Any]] = {
        "token": {"token": CANARY},
        "token-file": {"tokenFile": str(tmp_path / "token")},
        "password": {"username": "backup", "password": CANARY},
        "plugin": {"exec": plugin.prints({"token": CANARY}).fields},
    }
    client = KubeApiClient(as_user(server, Permits(exec_plugins=[str(plugin.path)]), **users[kind]))
    server.answer = answer
    calls = [
        client.version,
        lambda: client.create("/api/v1/namespaces", {}),
        lambda: client.apply("/api/v1/namespaces/x", {}),
        lambda: client.exec(POD).run(("true",), StreamLimits(3)),
    ]
    basic = b64encode(f"backup:{CANARY}".encode()).decode()
    for call in calls:
        try:
            call()
        except EtcdkeepError as err:
            text = "".join(traceback.format_exception(err))
            assert CANARY not in text
            assert basic not in text
    assert CANARY not in caplog.text
    assert basic not in caplog.text


def test_the_search_finds_a_secret_that_is_shown():
    with pytest.raises(AssertionError):
        failure(lambda: (_ for _ in ()).throw(TransientError(CANARY)), TransientError)


# --- deadlines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [True, False], ids=["head", "body"])
def test_an_answer_that_comes_drop_by_drop_has_a_deadline(server, monkeypatch, head):
    monkeypatch.setattr(kube_connection, "CALL_S", 0.6)

    def drip(peer: Peer) -> bytes:
        begin = b"HTTP/1.1 200 OK\r\n" if head else b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
        peer.wire.sendall(begin)
        for _ in range(100):
            peer.wire.sendall(b"X-A: b\r\n" if head else b" ")
            time.sleep(0.1)
        return b""

    server.answer = drip
    began = time.monotonic()
    with pytest.raises(Unreachable, match="no answer"):
        KubeApiClient(as_user(server, token="t")).version()
    assert time.monotonic() - began < 9


def test_a_handshake_that_comes_drop_by_drop_has_a_deadline(server):
    def drip(peer: Peer) -> bytes:
        peer.wire.sendall(b"HTTP/1.1 101 Switching\r\n")
        for _ in range(100):
            peer.wire.sendall(b"X-A: b\r\n")
            time.sleep(0.1)
        return b""

    server.answer = drip
    began = time.monotonic()
    with pytest.raises(Unreachable):
        KubeApiClient(as_user(server, token="t")).exec(POD).run(("true",), StreamLimits(deadline_s=0.7))
    assert time.monotonic() - began < 9
