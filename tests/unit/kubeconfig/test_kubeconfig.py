"""A kubeconfig is read as kubectl reads it; what is not supported is refused by name."""

from __future__ import annotations

from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest
import yaml

from etcdkeep.kubeconfig.portable import embed_files
from etcdkeep.kubeconfig.proxy import Proxy, parse_proxy
from etcdkeep.kubeconfig.reading import KubeAccess, KubeconfigProblem, parse_kubeconfig, read_access

CANARY = "canary-9f2c77"
FOLDER = Path("/srv/keys")


def kubeconfig(cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None, **top: Any) -> dict[str, Any]:
    return {
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "prod", "user": "admin", "namespace": "x"}}],
        "clusters": [{"name": "prod", "cluster": {"server": "https://10.0.0.1:6443", **(cluster or {})}}],
        "users": [{"name": "admin", "user": {"token": "t0ken"} if user is None else user}],
        **top,
    }


def access(cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None, **top: Any) -> KubeAccess:
    return read_access(kubeconfig(cluster, user, **top), None, FOLDER)


def problem(cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None, **top: Any) -> str:
    with pytest.raises(KubeconfigProblem) as caught:
        access(cluster, user, **top)
    assert CANARY not in str(caught.value)
    return str(caught.value)


# --- paths -----------------------------------------------------------------------------------------------------------


def test_paths_begin_at_the_kubeconfigs_folder():
    found = access(
        {"certificate-authority": "pki/ca.crt"},
        {"client-certificate": "../client.crt", "client-key": "/etc/client.key"},
    )
    assert [each.path for each in (found.authority, found.certificate, found.key) if each] == [
        Path("/srv/keys/pki/ca.crt"),
        Path("/srv/keys/../client.crt"),
        Path("/etc/client.key"),
    ]
    assert access(user={"tokenFile": "token"}).token_file == Path("/srv/keys/token")


@pytest.mark.parametrize(
    ("cluster", "user"),
    [
        ({"certificate-authority": "ca.crt"}, None),
        ({}, {"tokenFile": "token"}),
        ({}, {"client-certificate": "a", "client-key": "/b"}),
        ({}, {"exec": {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "bin/plugin"}}),
    ],
)
def test_a_relative_path_needs_a_file_to_be_relative_to(cluster, user):
    with pytest.raises(KubeconfigProblem, match=r"is a relative path, and this kubeconfig is not in a file"):
        read_access(kubeconfig(cluster, user), None, None)


def test_embedded_data_counts_before_a_file():
    found = access({"certificate-authority": "ca.crt", "certificate-authority-data": b64encode(b"PEM").decode()})
    assert found.authority is not None
    assert (found.authority.data, found.authority.path) == (b"PEM", None)


def test_base64_may_be_folded():
    data = "\n".join(b64encode(b"P" * 90).decode()[at : at + 64] for at in (0, 64))
    authority = access({"certificate-authority-data": data}).authority
    assert authority is not None
    assert authority.data == b"P" * 90


# --- contexts --------------------------------------------------------------------------------------------------------


def test_a_context_is_chosen_by_name():
    content = kubeconfig()
    content["contexts"].append({"name": "other", "context": {"cluster": "far", "user": "admin"}})
    content["clusters"].append({"name": "far", "cluster": {"server": "https://far.example.net"}})
    assert read_access(content, "other", None).server == "https://far.example.net"
    assert read_access(content, None, None).server == "https://10.0.0.1:6443"
    with pytest.raises(KubeconfigProblem, match="contexts has no entry 'third', only 'c', 'other'"):
        read_access(content, "third", None)


def test_entries_that_are_not_chosen_may_hold_anything():
    content = kubeconfig()
    content["users"].append({"name": "old", "user": {"auth-provider": {"name": "gcp"}, "what": 1}})
    assert read_access(content, None, None).token == "t0ken"


@pytest.mark.parametrize(
    ("top", "text"),
    [
        ({"current-context": ""}, "current-context is not set and no context is chosen; its contexts are: 'c'"),
        ({"current-context": "d"}, "contexts has no entry 'd', only 'c'"),
        ({"users": []}, "users has no entry 'admin', only nothing"),
        ({"users": [{"name": "admin", "user": {"token": "a"}}] * 2}, "users has 2 entries named 'admin'"),
        ({"contexts": [{"name": "c", "context": {"cluster": "prod"}}]}, "users has no entry ''"),
        ({"contexts": {"a": 1}}, "contexts is of the wrong type"),
        ({"contexts": [{"name": "c", "context": {"cluster": "prod", "users": "admin"}}]}, "did you mean 'user'"),
    ],
)
def test_a_broken_context_is_named(top, text):
    assert text in problem(**top)


# --- what is refused by name -----------------------------------------------------------------------------------------

PLUGIN = {"apiVersion": "client.authentication.k8s.io/v1", "command": "plugin", "interactiveMode": "Never"}


@pytest.mark.parametrize(
    ("user", "text"),
    [
        pytest.param({}, "user 'admin' has no credentials", id="anonymous"),
        pytest.param({"token": ""}, "user 'admin' has no credentials", id="empty-token"),
        pytest.param({"client-key": "k"}, "user 'admin' has no client-certificate", id="key-alone"),
        pytest.param({"client-certificate": "k"}, "user 'admin' has no client-key", id="certificate-alone"),
        pytest.param({"token": CANARY, "username": "u", "password": CANARY}, "token and username and password", id="two-ways"),
        pytest.param({"token": CANARY, "exec": PLUGIN}, "has token and exec", id="token-and-exec"),
        pytest.param({"auth-provider": {"name": "gcp", "config": {"id-token": CANARY}}}, "auth-provider of user 'admin' is not supported", id="auth-provider"),
        pytest.param({"tokenfile": "x", "token": CANARY}, "unknown field 'tokenfile'; did you mean 'tokenFile'?", id="mistyped"),
        pytest.param({"token_file": "x", "token": CANARY}, "unknown field 'token_file'; did you mean 'tokenFile'?", id="underscore"),
        pytest.param({"token": CANARY, "something": CANARY}, "user 'admin' has the unknown field 'something'", id="unknown"),
        pytest.param({"token": CANARY, "as-groups": ["a"]}, "as-uid, as-groups or as-user-extra without as", id="groups-without-as"),
        pytest.param({"token": CANARY, "as": "a\r\nX-Evil: b"}, "holds a control character", id="header-injection"),
        pytest.param({"token": CANARY, "as": ["a"]}, "as of user 'admin' is of the wrong type", id="as-list"),
        pytest.param({"token": f"{CANARY} {CANARY}"}, "token of user 'admin' holds a space", id="space-in-token"),
        pytest.param({"token": f"{CANARY}\n{CANARY}"}, "holds a space, a line break", id="line-break-in-token"),
        pytest.param({"token": f"{CANARY}é"}, "a character that is not ASCII", id="token-not-ascii"),
        pytest.param({"token": 12345}, "token of user 'admin' is of the wrong type", id="token-number"),
        pytest.param({"client-certificate-data": f"!{CANARY}", "client-key-data": CANARY}, "client-certificate-data of user 'admin' is not base64", id="not-base64"),
        pytest.param([CANARY], "user 'admin' is of the wrong type", id="list"),
        pytest.param({"exec": {**PLUGIN, "command": ""}}, "has no command", id="no-command"),
        pytest.param({"exec": {**PLUGIN, "apiVersion": "client.authentication.k8s.io/v1alpha1"}}, "apiVersion 'client.authentication.k8s.io/v1alpha1', which is not supported", id="alpha"),
        pytest.param({"exec": {**PLUGIN, "interactiveMode": "Always"}}, "interactiveMode Always: it asks a person", id="always"),
        pytest.param({"exec": {key: PLUGIN[key] for key in ("apiVersion", "command")}}, "needs interactiveMode", id="no-mode"),
        pytest.param({"exec": {**PLUGIN, "installhint": CANARY}}, "did you mean 'installHint'", id="exec-mistyped"),
        pytest.param({"exec": {**PLUGIN, "env": [{"name": "A=B", "value": CANARY}]}}, "without a usable name", id="exec-env"),
        pytest.param({"exec": {**PLUGIN, "args": [1]}}, "expected a list of texts", id="exec-args"),
    ],
)  # fmt: skip
def test_a_user_that_cannot_be_used_is_refused_by_name(user, text):
    assert text in problem(user=user)


@pytest.mark.parametrize(
    ("cluster", "text"),
    [
        pytest.param({"server": ""}, "cluster 'prod' has no server", id="no-server"),
        pytest.param({"server": f"https://u:{CANARY}@a"}, "is not a URL such as", id="user-in-server"),
        pytest.param({"server": f"https://a:{CANARY}"}, "is not a URL such as", id="port"),
        pytest.param({"server": "ftp://a"}, "is not a URL such as", id="scheme"),
        pytest.param({"proxy_url": f"http://u:{CANARY}@p"}, "unknown field 'proxy_url'; did you mean 'proxy-url'?", id="mistyped"),
        pytest.param({"proxy-url": f"ftp://u:{CANARY}@p:1"}, "proxy-url of cluster 'prod' has the scheme 'ftp'", id="proxy-scheme"),
        pytest.param({"proxy-url": f"https://u:{CANARY}@p:1"}, "has the scheme 'https', which is not supported", id="https-proxy"),
        pytest.param({"proxy-url": "proxy:3128"}, "is not a proxy's URL", id="proxy-without-scheme"),
        pytest.param({"proxy-url": f"http://u:{CANARY}/x@p:1"}, "percent-encoded", id="proxy-slash-in-password"),
        pytest.param({"proxy-url": f"http://u:12/{CANARY}@p:1"}, "percent-encoded", id="proxy-slash-after-digits"),
        pytest.param({"proxy-url": f"http://u:{CANARY}#@p:1"}, "percent-encoded", id="proxy-hash-in-password"),
        pytest.param({"insecure-skip-tls-verify": "true"}, "expected true or false", id="flag-as-text"),
        pytest.param({"insecure-skip-tls-verify": True, "certificate-authority": "ca"}, "both insecure-skip-tls-verify and", id="insecure-with-authority"),
    ],
)  # fmt: skip
def test_a_cluster_that_cannot_be_used_is_refused_by_name(cluster, text):
    assert text in problem(cluster)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "it is not a YAML mapping"),
        (b"- a", "it is not a YAML mapping"),
        (b"a: [", "not YAML (line 1)"),
        (b"kind: Pod\nmetadata: {}", "its kind is not Config"),
        (b"\xff\xfe\x00", "not YAML"),
    ],
)
def test_what_is_no_kubeconfig_is_said(text, said):
    with pytest.raises(KubeconfigProblem) as caught:
        parse_kubeconfig(text)
    assert said in str(caught.value)


# --- what is understood ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cluster", "url", "where"),
    [
        ({"server": "https://a/"}, "https://a", ("a", 443, "")),
        ({"server": "https://[fd00::1]:6443"}, "https://[fd00::1]:6443", ("fd00::1", 6443, "")),
        ({"server": "https://a/k8s/clusters/c-1/"}, "https://a/k8s/clusters/c-1", ("a", 443, "/k8s/clusters/c-1")),
        ({"server": "10.0.0.1:6443", "certificate-authority": "x"}, "https://10.0.0.1:6443", ("10.0.0.1", 6443, "")),
        ({"server": "localhost:8080"}, "http://localhost:8080", ("localhost", 8080, "")),
    ],
)
def test_servers(cluster, url, where):
    found = access(cluster)
    assert (found.server, (found.host, found.port, found.path)) == (url, where)


def test_a_token_loses_the_white_space_around_it():
    assert access(user={"token": f"  {CANARY}\r\n"}).token == CANARY


def test_impersonation_gives_the_headers_of_client_go():
    found = access(
        user={
            "token": "t",
            "as": "jürgen",
            "as-uid": "7",
            "as-groups": ["system:masters", "dev"],
            "as-user-extra": {"example.org/scope": ["a", "b"], "x": []},
        }
    )
    assert found.impersonate == (
        ("Impersonate-User", "jürgen"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Group", "system:masters"),
        ("Impersonate-Group", "dev"),
        ("Impersonate-Extra-example.org%2Fscope", "a"),
        ("Impersonate-Extra-example.org%2Fscope", "b"),
    )


@pytest.mark.parametrize(
    ("url", "proxy", "shown"),
    [
        ("http://p", Proxy("http", "p", 80), "http://p:80"),
        ("http://u:p%40ss%3A@p:3128/", Proxy("http", "p", 3128, "u", "p@ss:"), "http://p:3128"),
        ("socks5://u@[fd00::2]", Proxy("socks5", "fd00::2", 1080, "u"), "socks5://[fd00::2]:1080"),
        ("SOCKS5H://p:9050", Proxy("socks5h", "p", 9050), "socks5h://p:9050"),
    ],
)
def test_proxies(url, proxy, shown):
    assert parse_proxy(url) == proxy
    assert str(proxy) == shown


def test_nothing_secret_is_shown_of_what_was_read():
    """Tracebacks and debuggers print values."""
    user = {"username": "u", "password": CANARY, "client-certificate-data": b64encode(CANARY.encode()).decode(), "client-key-data": b64encode(CANARY.encode()).decode()}  # fmt: skip
    assert CANARY not in repr(access({"proxy-url": f"http://u:{CANARY}@p"}, user))
    assert CANARY not in repr(access(user={"token": CANARY}))
    plugin = {**PLUGIN, "args": ["--secret", CANARY], "env": [{"name": "A", "value": CANARY}]}
    assert CANARY not in repr(access(user={"exec": plugin}))


# --- on another machine ----------------------------------------------------------------------------------------------


def embedded(content: dict[str, Any], files: dict[str, bytes], context: str | None = None) -> dict[str, Any]:
    return dict(yaml.safe_load(embed_files(content, context, FOLDER, lambda path, _: files[str(path)])))


def test_every_file_is_embedded():
    found = embedded(
        kubeconfig(
            {"certificate-authority": "ca.crt", "tls-server-name": "kubernetes", "proxy-url": "http://p"},
            {"client-certificate": "c.crt", "client-key": "/etc/c.key", "tokenFile": "token", "as": "somebody"},
        ),
        {
            "/srv/keys/ca.crt": "# é\nCA".encode(),
            "/srv/keys/c.crt": b"C",
            "/etc/c.key": b"K",
            "/srv/keys/token": b"tok\n",
        },
    )
    cluster, user = found["clusters"][0]["cluster"], found["users"][0]["user"]
    assert b64decode(cluster.pop("certificate-authority-data")) == "# é\nCA".encode()
    assert cluster == {"server": "https://10.0.0.1:6443", "tls-server-name": "kubernetes", "proxy-url": "http://p"}
    assert (b64decode(user.pop("client-certificate-data")), b64decode(user.pop("client-key-data"))) == (b"C", b"K")
    assert user == {"token": "tok", "as": "somebody"}
    again = read_access(found, None, None)
    assert (again.token, again.token_file) == ("tok", None)


def test_only_the_chosen_context_is_kept():
    content = kubeconfig()
    content["contexts"].append({"name": "other", "context": {"cluster": "far", "user": "else"}})
    content["clusters"].append({"name": "far", "cluster": {"server": "https://far.example.net"}})
    content["users"].append({"name": "else", "user": {"token": "other-token"}})
    found = embedded(content, {}, "other")
    assert found["current-context"] == "other"
    assert (found["users"], len(found["clusters"])) == ([{"name": "else", "user": {"token": "other-token"}}], 1)


def test_a_plugin_stays_a_plugin_with_its_whole_path():
    plugin = {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "./bin/plugin", "args": ["a"]}
    user = embedded(kubeconfig(user={"exec": plugin}), {})["users"][0]["user"]
    assert user["exec"] == {**plugin, "command": "/srv/keys/bin/plugin"}


def test_what_stood_beside_embedded_data_goes():
    content = kubeconfig(
        {"certificate-authority": "gone.crt", "certificate-authority-data": b64encode(b"PEM").decode()}
    )
    assert set(embedded(content, {})["clusters"][0]["cluster"]) == {"server", "certificate-authority-data"}
