"""Reads of the Kubernetes API, and the kubeconfig that leads there."""

from __future__ import annotations

import json
import os
import tempfile
from base64 import b64encode
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from etcdkeep.adapters.kube.client import KubeApiClient, open_kubeconfig
from etcdkeep.adapters.kube.config import Permits
from etcdkeep.errors import AccessDenied, ConfigError, NotFound, ServerUntrusted, Unreachable
from etcdkeep.ports import PodRef, StreamLimits
from tests.exec_server import Certificates, ExecServer, Peer, http, running


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def server(certificates):
    with running(ExecServer(certificates, answer=lambda peer: http(200, b"{}"))) as started:
        yield started


def api(server: ExecServer, **user: str) -> KubeApiClient:
    return KubeApiClient(open_kubeconfig(server.certificates.kubeconfig(server.url, **user)))


def answers(document) -> bytes:
    return http(200, json.dumps(document).encode())


def test_get_and_version(server):
    server.answer = lambda peer: answers({"gitVersion": "v1.30.1", "path": peer.path})
    assert api(server).version() == "v1.30.1"
    assert api(server).get("/api/v1/namespaces/kube-system")["path"] == "/api/v1/namespaces/kube-system"
    assert all(peer.client_certificate for peer in server.peers)


def test_a_list_is_read_page_by_page(server):
    def answer(peer: Peer) -> bytes:
        query = parse_qs(urlsplit(peer.path).query)
        assert query["labelSelector"] == ["component=etcd,tier=control-plane"]
        page = int(query.get("continue", ["0"])[0])
        items = [{"metadata": {"name": f"etcd-{page}-{index}"}} for index in range(2)]
        return answers(
            {
                "apiVersion": "v1",
                "kind": "PodList",
                "metadata": {"continue": str(page + 1) if page < 2 else ""},
                "items": items,
            }
        )

    server.answer = answer
    items = api(server).list("/api/v1/pods", label_selector="component=etcd,tier=control-plane")
    assert [item["metadata"]["name"] for item in items] == [
        f"etcd-{page}-{index}" for page in range(3) for index in range(2)
    ]
    assert {(item["apiVersion"], item["kind"]) for item in items} == {("v1", "Pod")}


def test_an_empty_list(server):
    server.answer = lambda peer: answers({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": None})
    assert api(server).list("/api/v1/pods") == []


@pytest.mark.parametrize(
    ("code", "body", "error", "text"),
    [
        pytest.param(401, {"message": "Unauthorized"}, AccessDenied, "not accepted", id="unauthorized"),
        pytest.param(
            403,
            {"message": "pods is forbidden"},
            AccessDenied,
            "pods is forbidden. Allow .* the verb list",
            id="forbidden",
        ),
        pytest.param(404, {"message": "nope"}, NotFound, "GET /api/v1/pods on https://.*nope", id="not-found"),
        pytest.param(
            410, {"message": "The provided continue parameter is too old"}, Unreachable, "too old", id="list-expired"
        ),
        pytest.param(429, {"message": "slow down"}, Unreachable, "slow down", id="too-many"),
        pytest.param(500, {"message": "etcdserver: leader changed"}, Unreachable, "leader changed", id="server-error"),
        pytest.param(503, None, Unreachable, "HTTP 503: <html>", id="load-balancer"),
    ],
)
def test_a_refusal(server, code, body, error, text):
    server.answer = lambda peer: http(code, json.dumps(body).encode() if body else b"<html>down</html>")
    with pytest.raises(error, match=text):
        api(server).list("/api/v1/pods")
    assert len(server.peers) == 1


def test_an_answer_that_is_no_json(server):
    server.answer = lambda peer: http(200, b"<html>login</html>", "text/html")
    with pytest.raises(Unreachable, match=r"not JSON.*login"):
        api(server).version()


def test_an_expired_client_certificate_is_named(tmp_path):
    with running(ExecServer(Certificates(tmp_path, client_ends=timedelta(hours=-1)))) as server:
        server.answer = lambda peer: http(401, b'{"message": "Unauthorized"}')
        with pytest.raises(AccessDenied, match="client certificate expired at"):
            api(server).version()


def test_an_expired_server_certificate_is_named(tmp_path):
    with (
        running(ExecServer(Certificates(tmp_path, server_ends=timedelta(hours=-1)))) as server,
        pytest.raises(ServerUntrusted, match="certificate has expired"),
    ):
        api(server).version()


def test_a_certificate_for_another_name_is_refused_unless_the_kubeconfig_names_it(tmp_path):
    with running(
        ExecServer(Certificates(tmp_path, names=("kubernetes",)), answer=lambda peer: answers({"gitVersion": "v1"}))
    ) as server:
        with pytest.raises(ServerUntrusted, match="IP address mismatch"):
            api(server).version()
        config = server.certificates.kubeconfig(server.url)
        config["clusters"][0]["cluster"]["tls-server-name"] = "kubernetes"
        assert KubeApiClient(open_kubeconfig(config)).version() == "v1"


def test_verification_is_off_only_where_kubeconfig_and_configuration_both_say_so(server, tmp_path):
    server.answer = lambda peer: answers({"gitVersion": "v1"})
    config = Certificates(tmp_path).kubeconfig(server.url, token="x")
    with pytest.raises(ServerUntrusted):
        KubeApiClient(open_kubeconfig(config)).version()
    del config["clusters"][0]["cluster"]["certificate-authority-data"]
    config["clusters"][0]["cluster"]["insecure-skip-tls-verify"] = True
    with pytest.raises(
        ConfigError, match=r"asks for insecure-skip-tls-verify.*allow_insecure: \[insecure-skip-tls-verify\]"
    ):
        open_kubeconfig(config)
    assert KubeApiClient(open_kubeconfig(config, permits=Permits(["insecure-skip-tls-verify"]))).version() == "v1"


def test_no_server(certificates):
    with pytest.raises(Unreachable, match=r"GET /version on https://127\.0\.0\.1:1: no answer: .*refused"):
        KubeApiClient(open_kubeconfig(certificates.kubeconfig("https://127.0.0.1:1"))).version()


def test_a_token_from_an_exec_plugin_is_sent(server, tmp_path):
    plugin = tmp_path / "plugin"
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "from-plugin"},
    }
    plugin.write_text(f"#!/bin/sh\necho '{json.dumps(credential)}'\n")
    plugin.chmod(0o700)
    config = server.certificates.kubeconfig(server.url)
    config["users"][0]["user"] = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": str(plugin),
            "args": [],
            "interactiveMode": "Never",
        }
    }
    KubeApiClient(open_kubeconfig(config, permits=Permits(exec_plugins=[str(plugin)]))).get("/api")
    assert server.peers[0].headers["authorization"] == "Bearer from-plugin"


def test_exec_ignores_a_proxy_that_the_reads_would_not_take(server, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server.answer = lambda peer: http(404, b"{}")
    with pytest.raises(NotFound):
        api(server).exec(PodRef("a", "b", "c")).run(("true",), StreamLimits(5))


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """A temporary directory of this test's own, to see what is written there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_kubeconfigs_key_is_never_written_to_disk(server, scratch):
    server.answer = lambda peer: answers({"gitVersion": "v1"})
    text = yaml.safe_dump(server.certificates.kubeconfig(server.url)).encode()
    assert KubeApiClient(open_kubeconfig(text)).version() == "v1"
    assert server.peers[0].client_certificate
    assert os.listdir(scratch) == []


def test_a_context_is_chosen(server):
    config = server.certificates.kubeconfig(server.url)
    config["contexts"].append({"name": "other", "context": {"cluster": "far", "user": "admin"}})
    config["clusters"].append({"name": "far", "cluster": {"server": "https://far.example.net"}})
    assert open_kubeconfig(config, context="other").host == "https://far.example.net"
    assert open_kubeconfig(config).host == server.url


def broken(**changes: object) -> bytes:
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://a"}}],
        "users": [{"name": "u", "user": {"token": "s3cret"}}],
    }
    return yaml.safe_dump(config | changes).encode()


@pytest.mark.parametrize(
    ("source", "text"),
    [
        pytest.param(b"", "not a YAML mapping", id="empty"),
        pytest.param(b"s3cret: [", "not YAML .line 1", id="not-yaml"),
        pytest.param(broken(**{"current-context": "d"}), "contexts has no entry 'd', only 'c'", id="no-context"),
        pytest.param(broken(clusters=[]), "clusters has no entry 'c', only nothing", id="no-cluster"),
        pytest.param(
            broken(users=[{"name": "u", "user": {"client-certificate-data": "!", "client-key-data": "s3cret"}}]),
            "cannot be used",
            id="no-base64",
        ),
        pytest.param(
            broken(
                users=[
                    {
                        "name": "u",
                        "user": {
                            field: b64encode(b"s3cret").decode()
                            for field in ("client-certificate-data", "client-key-data")
                        },
                    }
                ]
            ),
            "cannot be used",
            id="no-pem",
        ),
        pytest.param(
            broken(users=[{"name": "u", "user": {"client-certificate": "/nope", "client-key": "/nope"}}]),
            "/nope",
            id="file-missing",
        ),
        pytest.param(broken(contexts={"a": 1}), "wrong type", id="wrong-type"),
    ],
)
def test_an_unusable_kubeconfig_is_explained_without_its_secrets(source, text):
    with pytest.raises(ConfigError, match=text) as caught:
        open_kubeconfig(source)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_encrypted_client_key_is_refused_instead_of_asked_for(certificates):
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key((certificates.directory / "client.key").read_bytes(), password=None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    config = certificates.kubeconfig("https://127.0.0.1:1")
    config["users"][0]["user"]["client-key-data"] = b64encode(encrypted).decode()
    with pytest.raises(ConfigError, match="client key is encrypted"):
        open_kubeconfig(config)
