"""Airflow connections of type `kubernetes`: each field honoured as the provider's hook has it, or refused by its name."""

from __future__ import annotations

import ast
import inspect
import json
import socket

import pytest
import yaml
from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook

from etcdkeep.config.access import KubeconfigRef
from etcdkeep.errors import EtcdkeepError, SecretUnavailable
from etcdkeep_airflow import hooks, kubernetes_connection
from tests.builders import make_entry, make_file
from tests.connections import FORMS, give_connection
from tests.operators.test_hooks import KUBECONFIG

CREDENTIALS = hooks.ConnectionCredentials()


@pytest.fixture(autouse=True)
def _configuration(tmp_path, monkeypatch):
    """The worker has a kubeconfig of its own, which reaches another cluster."""
    (tmp_path / "clusters.yaml").write_text(make_file(make_entry()))
    monkeypatch.setenv("ETCDKEEP_CONFIG", str(tmp_path / "clusters.yaml"))
    (tmp_path / ".kube").mkdir()
    other = {**KUBECONFIG, "clusters": [{"name": "first", "cluster": {"server": "https://the-worker-s-own"}}]}
    (tmp_path / ".kube/config").write_text(yaml.safe_dump(other))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def connect(monkeypatch):
    def add(form="json", extra=None, **columns):
        return give_connection(monkeypatch, "k8s", form, **{"conn_type": "kubernetes", **columns, "extra": extra or {}})

    return add


def host_of(connection, **ref):
    return CREDENTIALS.api_client(KubeconfigRef(connection=connection, **ref)).host


def sources(tmp_path):
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(KUBECONFIG))
    return {
        "text": {"kube_config": json.dumps(KUBECONFIG)},
        "object": {"kube_config": KUBECONFIG},
        "path": {"kube_config_path": str(tmp_path / "kubeconfig")},
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("source", ["text", "object", "path"])
@pytest.mark.parametrize(("context", "host"), [(None, "https://first:6443"), ("second", "https://second:6443")])
@pytest.mark.parametrize("prefix", ["", "extra__kubernetes__"])
def test_the_cluster_and_context_are_those_of_the_provider_s_hook(
    connect, tmp_path, form, source, context, host, prefix
):
    extra = {**sources(tmp_path)[source], **({"cluster_context": context} if context else {}), "in_cluster": False}
    connection = connect(form, {prefix + name: value for name, value in extra.items()})
    assert host_of(connection) == host
    assert KubernetesHook(conn_id=connection).get_conn().configuration.host == host
    kept = yaml.safe_load(CREDENTIALS.kubeconfig(KubeconfigRef(connection=connection)))
    assert kept["current-context"] == (context or "first")


def test_the_entry_s_context_goes_before_the_connection_s(connect, tmp_path):
    connection = connect(extra={**sources(tmp_path)["path"], "cluster_context": "second"})
    assert host_of(connection, context="first") == "https://first:6443"


@pytest.mark.parametrize("form", FORMS)
def test_in_cluster_is_the_pod_s_own_account_and_elsewhere_an_error(connect, form, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(SecretUnavailable, match="in_cluster works only in a pod"):
        host_of(connect(form, {"in_cluster": True}))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("extra", "expected"), [({}, 1), ({"disable_tcp_keepalive": "false"}, 1), ({"disable_tcp_keepalive": True}, 0)]
)
def test_tcp_keepalive_is_on_unless_disabled(connect, form, extra, expected):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        text = {**KUBECONFIG, "clusters": [{"name": "first", "cluster": {"server": url}}]}
        ref = KubeconfigRef(connection=connect(form, {"kube_config": text, **extra}), allow_insecure=("http",))
        with CREDENTIALS.api_client(ref).open_socket(5) as wire:
            assert wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == expected


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param({"extra": {"disable_verify_ssl": True}}, "sets disable_verify_ssl, .*insecure-skip-tls-verify", id="no-tls"),
        pytest.param({"extra": {"namespace": "x"}}, r"sets namespace, .*control_plane\.namespace", id="namespace"),
        pytest.param({"extra": {"xcom_sidecar_container_image": "x"}}, "sets xcom_sidecar_container_image, .*of its own", id="image"),
        pytest.param({"extra": {"xcom_sidecar_container_resources": "x"}}, "sets xcom_sidecar_container_resources", id="resources"),
        pytest.param({"extra": {"xcom_sidecar_container_security_context": "x"}}, "sets xcom_sidecar_container_security", id="security"),
        pytest.param({"extra": {"in_cluster": True}}, "found kube_config and in_cluster", id="two-sources"),
        pytest.param({"extra": {"kube_config_path": "/x"}}, "found kube_config and kube_config_path", id="two-kubeconfigs"),
        pytest.param({"extra": {"kube_config": ""}}, "found nothing", id="none"),
        pytest.param({"extra": {"disable_tcp_keepalive": "maybe"}}, "disable_tcp_keepalive of its extra is neither", id="odd"),
        pytest.param({"extra": {"cluster_context": "third"}}, "third", id="no-such-context"),
        pytest.param({"extra": {"kube_config": "canary: {"}}, "kubeconfig kube_config of .* cannot be used", id="no-kubeconfig"),
        pytest.param({"extra": {"kube_config": "", "kube_config_path": "token: canary"}}, "kube_config_path of its extra is not usable: expected the absolute path", id="text-as-path"),
        pytest.param({"extra": {"kube_config": "", "kube_config_path": "/no"}}, "kubeconfig /no of .* cannot be read", id="no-file"),
        pytest.param({"host": "api.example.net"}, "host has no meaning in a connection of type 'kubernetes'", id="host"),
        pytest.param({"password": "canary"}, "password has no meaning", id="password"),
        pytest.param({"login": "x"}, "login has no meaning", id="login"),
        pytest.param({"conn_type": "generic"}, "is of type 'generic'; expected 'kubernetes'", id="type"),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_honoured_is_refused_by_name(connect, form, fields, said):
    extra = {"kube_config": json.dumps(KUBECONFIG), **fields.get("extra", {})}
    connection = connect(form, **{**fields, "extra": extra})
    with pytest.raises(EtcdkeepError, match=said) as caught:
        host_of(connection)
    assert "canary" not in str(caught.value)
    assert "Airflow connection 'k8s'" in str(caught.value)


def test_every_field_that_the_installed_provider_reads_is_honoured_or_refused():
    """A provider that reads one more shows here."""
    known = {*kubernetes_connection.HONOURED, *kubernetes_connection.REFUSED}
    tree = ast.parse(inspect.getsource(inspect.getmodule(KubernetesHook)))
    read = {
        call.args[0].value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "_get_field"
        and isinstance(call.args[0], ast.Constant)
    }  # fmt: skip
    assert {"kube_config", "namespace"} <= read <= known
