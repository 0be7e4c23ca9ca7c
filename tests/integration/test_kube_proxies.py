"""The way through a proxy: the same for reads and for exec, with its password sent and never shown."""

from __future__ import annotations

import json
import socket
import time
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep.adapters.kube.client import KubeApiClient, open_kubeconfig
from etcdkeep.adapters.kube.exec import ExecTiming
from etcdkeep.errors import AccessDenied, ConfigError, EtcdkeepError, NotFound, Unreachable
from etcdkeep.ports import PodRef, StreamLimits
from tests.exec_server import Certificates, ExecServer, http, running
from tests.proxies import ProxyServer, running_proxy

if TYPE_CHECKING:
    from etcdkeep.adapters.kube.connection import KubeConnection

LOGIN = ("backup", "p@ss:w%rd/canary-71aa")
ENCODED = "backup:p%40ss%3Aw%25rd%2Fcanary-71aa"
CANARIES = ("canary-71aa", "p%40ss", "YmFja3VwOn")
POD = PodRef("a", "b", "c")


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


def through(server: ExecServer, url: str, **cluster: Any) -> KubeConnection:
    config = server.certificates.kubeconfig(server.url)
    config["clusters"][0]["cluster"] |= {"proxy-url": url, **cluster}
    return open_kubeconfig(config)


def fails_both_ways(connection: KubeConnection) -> list[EtcdkeepError]:
    """Return what a read and an exec end with; neither shows the password, not even in a traceback."""
    client = KubeApiClient(connection, exec_timing=ExecTiming(connect_s=2))
    found = []
    for call in (client.version, lambda: client.exec(POD).run(("true",), StreamLimits(5))):
        with pytest.raises(EtcdkeepError) as caught:
            call()
        text = "".join(traceback.format_exception(caught.value))
        assert not any(canary in text for canary in CANARIES), text
        found.append(caught.value)
    return found


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
@pytest.mark.parametrize("login", [None, LOGIN], ids=["open", "password"])
def test_reads_and_exec_go_through_the_proxy(server, scheme, login):
    with running_proxy(ProxyServer(login)) as proxy:
        client = KubeApiClient(through(server, f"{scheme}://{f'{ENCODED}@' if login else ''}127.0.0.1:{proxy.port}"))
        assert client.version() == "v1"
        with pytest.raises(NotFound):
            client.exec(POD).run(("true",), StreamLimits(5))
        assert proxy.asked == [server.url.removeprefix("https://")] * 2
    assert all(peer.client_certificate for peer in server.peers)


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_the_proxy_resolves_the_server_s_name(server, scheme):
    with running_proxy(ProxyServer()) as proxy:
        config = server.certificates.kubeconfig(server.url.replace("127.0.0.1", "api.invalid"))
        config["clusters"][0]["cluster"] |= {
            "proxy-url": f"{scheme}://127.0.0.1:{proxy.port}",
            "tls-server-name": "127.0.0.1",
        }
        assert KubeApiClient(open_kubeconfig(config)).version() == "v1"
        assert proxy.asked[0].startswith("api.invalid:")


@pytest.mark.parametrize(
    ("scheme", "proxy", "login", "error", "text"),
    [
        pytest.param("http", ProxyServer(LOGIN), "", AccessDenied, "HTTP 407: it does not accept the user and password", id="no-password"),
        pytest.param("http", ProxyServer(("x", "y")), f"{ENCODED}@", AccessDenied, "HTTP 407", id="wrong-password"),
        pytest.param("socks5", ProxyServer(LOGIN), "", AccessDenied, "wants a user and password; add them to proxy-url", id="socks-no-password"),
        pytest.param("socks5", ProxyServer(("x", "y")), f"{ENCODED}@", AccessDenied, "does not accept the user and password", id="socks-wrong"),
        pytest.param("http", ProxyServer(code=403), f"{ENCODED}@", AccessDenied, "refuses a tunnel to 127.0.0.1:.* HTTP 403; allow it", id="forbidden"),
        pytest.param("http", ProxyServer(code=503), f"{ENCODED}@", Unreachable, "refuses a tunnel .*HTTP 503", id="unavailable"),
        pytest.param("socks5", ProxyServer(reply=2), f"{ENCODED}@", AccessDenied, "its rules do not allow it", id="socks-rules"),
        pytest.param("socks5", ProxyServer(reply=5), f"{ENCODED}@", Unreachable, "connection refused", id="socks-refused"),
    ],
)  # fmt: skip
def test_a_proxy_that_refuses_is_named(server, scheme, proxy, login, error, text):
    with running_proxy(proxy):
        for found in fails_both_ways(through(server, f"{scheme}://{login}127.0.0.1:{proxy.port}")):
            assert isinstance(found, error)
            assert found.__class__ is error
            with pytest.raises(error, match=rf"on {server.url}: proxy {scheme}://127\.0\.0\.1:{proxy.port} .*{text}"):
                raise found
    assert server.peers == []


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_proxy_that_is_not_there_is_named(server, scheme):
    for found in fails_both_ways(through(server, f"{scheme}://{ENCODED}@127.0.0.1:1")):
        assert f"proxy {scheme}://127.0.0.1:1 cannot be reached" in str(found)


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_proxy_that_never_answers_has_a_deadline(server, scheme, monkeypatch):
    monkeypatch.setattr("etcdkeep.adapters.kube.connection.CONNECT_S", 0.3)
    with running_proxy(ProxyServer(silent=True)) as proxy:
        connection = through(server, f"{scheme}://{ENCODED}@127.0.0.1:{proxy.port}")
        with pytest.raises(
            Unreachable, match=rf"proxy {scheme}://127\.0\.0\.1:{proxy.port} did not connect .*timed out"
        ):
            KubeApiClient(connection).version()


def test_a_server_that_fails_behind_a_proxy_names_the_proxy(server):
    with running_proxy(ProxyServer()) as proxy:
        server.answer = lambda peer: http(500, b"{}")
        with pytest.raises(
            Unreachable, match=rf"on {server.url} through proxy http://127\.0\.0\.1:{proxy.port}: HTTP 500"
        ):
            KubeApiClient(through(server, f"http://u:canary@127.0.0.1:{proxy.port}")).version()


def test_something_that_is_no_proxy_is_said(server, monkeypatch):
    monkeypatch.setattr("etcdkeep.adapters.kube.connection.CONNECT_S", 0.3)
    url = server.url.removeprefix("https://")
    for found in fails_both_ways(through(server, f"socks5://{ENCODED}@{url}")):
        assert "did not connect" in str(found) or "does not speak SOCKS" in str(found)


def test_the_environment_s_proxy_counts_where_the_kubeconfig_names_none(server, monkeypatch):
    with running_proxy(ProxyServer(LOGIN)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{ENCODED}@127.0.0.1:{proxy.port}")
        monkeypatch.setattr("etcdkeep.adapters.kube.dial._is_loopback", lambda host: False)
        client = KubeApiClient(open_kubeconfig(server.certificates.kubeconfig(server.url)))
        assert client.version() == "v1"
        with pytest.raises(NotFound):
            client.exec(POD).run(("true",), StreamLimits(5))
        assert len(proxy.asked) == 2
        monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
        assert KubeApiClient(open_kubeconfig(server.certificates.kubeconfig(server.url))).version() == "v1"
        assert len(proxy.asked) == 2
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("HTTPS_PROXY", "ftp://u:canary@p")
        with pytest.raises(ConfigError, match="environment variable HTTPS_PROXY has the scheme 'ftp'") as caught:
            open_kubeconfig(server.certificates.kubeconfig(server.url))
        assert "canary" not in str(caught.value)


def test_a_loopback_server_needs_no_proxy_of_the_environment(server, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert KubeApiClient(open_kubeconfig(server.certificates.kubeconfig(server.url))).version() == "v1"


def test_a_name_that_is_never_resolved_has_a_deadline(certificates, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: time.sleep(1) or [])
    monkeypatch.setattr("etcdkeep.adapters.kube.connection.CONNECT_S", 0.2)
    with pytest.raises(Unreachable, match=r"api\.invalid"):
        KubeApiClient(open_kubeconfig(certificates.kubeconfig("https://api.invalid:6443"))).version()
