"""Keys and clients from Airflow's connections."""

from __future__ import annotations

import json
import logging

import pytest
import yaml

from etcdkeep.config.access import KubeconfigRef, SecretRef
from etcdkeep.config.loading import CONFIG_VARIABLE
from etcdkeep.errors import ConfigError, SecretUnavailable
from etcdkeep_airflow import hooks
from tests.builders import make_entry, make_file

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n"
CREDENTIALS = hooks.ConnectionCredentials()


def cluster_entry(name: str, server: str) -> dict[str, object]:
    return {"name": name, "cluster": {"server": server}}


KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "first",
    "clusters": [cluster_entry("first", "https://first:6443"), cluster_entry("second", "https://second:6443")],
    "contexts": [{"name": name, "context": {"cluster": name, "user": "u"}} for name in ("first", "second")],
    "users": [{"name": "u", "user": {"token": "canary-token"}}],
}


@pytest.fixture(autouse=True)
def _configuration(tmp_path, monkeypatch):
    config = tmp_path / "clusters.yaml"
    config.write_text(make_file(make_entry()))
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))


@pytest.fixture
def connect(monkeypatch):
    """Give Airflow a connection of that id."""

    def add(connection_id="c", conn_type="ssh", **fields):
        monkeypatch.setenv(f"AIRFLOW_CONN_{connection_id.upper()}", json.dumps({"conn_type": conn_type, **fields}))
        return connection_id

    return add


def test_a_key_is_the_private_key_then_the_key_file_then_the_password(connect, tmp_path):
    file = tmp_path / "key"
    file.write_text("from a file, long enough to be masked")
    extra = {"private_key": KEY, "key_file": str(file)}
    for fields, expected in (
        ({"extra": extra, "password": "from the password field"}, KEY),
        ({"extra": {"key_file": str(file)}, "password": "from the password field"}, file.read_text()),
        ({"password": "from the password field"}, "from the password field"),
    ):
        assert CREDENTIALS.secret(SecretRef(connection=connect(**fields))) == expected.encode()
    assert CREDENTIALS.secret(SecretRef(path=str(file))) == file.read_bytes()


def test_a_connection_without_a_key_says_what_is_expected(connect):
    with pytest.raises(SecretUnavailable, match="connection 'c' holds no key: expected extra `private_key`"):
        CREDENTIALS.secret(SecretRef(connection=connect(extra={})))


def test_a_key_that_stands_where_its_file_belongs_is_not_quoted(connect):
    with pytest.raises(ConfigError, match="'c': key_file of its extra is not usable: expected the absolute") as caught:
        CREDENTIALS.secret(SecretRef(connection=connect(extra={"key_file": "AGE-SECRET-KEY-1CANARY"})))
    assert "CANARY" not in str(caught.value)


def test_a_connection_that_is_not_there_says_who_refers_to_it():
    with pytest.raises(
        SecretUnavailable, match=r"Airflow has no connection 'nobody', which .*clusters\.yaml refers to"
    ):
        CREDENTIALS.secret(SecretRef(connection="nobody"))


def test_every_line_of_a_key_is_masked(monkeypatch):
    masked = []
    monkeypatch.setattr(hooks, "mask_secret", masked.extend)
    hooks.mask_key(KEY.encode() + b"\xff")
    assert "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0" in masked


@pytest.mark.parametrize("field", ["kube_config", "extra__kubernetes__kube_config"])
@pytest.mark.parametrize("as_text", [True, False])
def test_a_kubeconfig_stands_in_the_connection(connect, field, as_text):
    extra = {field: yaml.safe_dump(KUBECONFIG) if as_text else KUBECONFIG}
    ref = KubeconfigRef(connection=connect(conn_type="kubernetes", extra=extra))
    kept = yaml.safe_load(CREDENTIALS.kubeconfig(ref))
    assert (kept["users"], kept["clusters"]) == (KUBECONFIG["users"], KUBECONFIG["clusters"][:1])
    assert CREDENTIALS.api_client(ref).host == "https://first:6443"


def test_or_in_a_file_and_the_connection_names_the_context(connect, tmp_path):
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(KUBECONFIG))
    extra = {"kube_config_path": str(file), "cluster_context": "second"}
    ref = KubeconfigRef(connection=connect(conn_type="kubernetes", extra=extra))
    assert CREDENTIALS.api_client(ref).host == "https://second:6443"
    assert CREDENTIALS.api_client(KubeconfigRef(path=str(file))).host == "https://first:6443"
    assert CREDENTIALS.api_client(KubeconfigRef(path=str(file), context="second")).host == "https://second:6443"
    assert yaml.safe_load(CREDENTIALS.kubeconfig(ref))["current-context"] == "second"


def test_the_worker_s_own_service_account_has_no_kubeconfig(connect):
    assert CREDENTIALS.kubeconfig(KubeconfigRef(in_cluster=True)) is None
    ref = KubeconfigRef(connection=connect(conn_type="kubernetes", extra={"in_cluster": True}))
    assert CREDENTIALS.kubeconfig(ref) is None


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        pytest.param("", "found nothing", id="none"),
        pytest.param({}, "found nothing", id="empty"),
        pytest.param({"kube_config": "", "kube_config_path": " ", "in_cluster": False}, "found nothing", id="form-not-filled"),
        pytest.param({"in_cluster": "false"}, "found nothing", id="in-cluster-off"),
        pytest.param({"in_cluster": "maybe"}, "in_cluster of its extra is neither true nor false", id="in-cluster-odd"),
        pytest.param({"kubeconfig": "canary"}, "unknown field 'kubeconfig'; did you mean 'kube_config'?", id="mistyped"),
        pytest.param({"kube_config_file": "canary"}, "unknown field 'kube_config_file'; did you mean", id="mistyped-path"),
        pytest.param({"Kube_Config_Path": "canary"}, "did you mean 'kube_config_path'?", id="capitals"),
        pytest.param({"extra__kubernetes__kubeconfig": "canary"}, "unknown field 'extra__kubernetes__kubeconfig'", id="mistyped-prefixed"),
        pytest.param({"namespace": "x", "cluster_context": "y"}, "found cluster_context, namespace", id="others-only"),
        pytest.param({"kube_config": {"a": 1}, "in_cluster": True}, "found kube_config and in_cluster", id="two"),
        pytest.param({"kube_config_path": "/a", "extra__kubernetes__kube_config_path": "/b"}, "gives 'kube_config_path' twice", id="twice"),
        pytest.param({"in_cluster": True, "cluster_context": "x"}, "both in_cluster and cluster_context", id="context-in-cluster"),
        pytest.param({"kube_config_path": ["canary"]}, "kube_config_path of its extra is of the wrong type", id="wrong-type"),
        pytest.param({"kube_config_path": "/a", "disable_verify_ssl": True}, "disable_verify_ssl, which is not supported", id="no-tls"),
        pytest.param("canary: {", "its extra is not a JSON object", id="no-json"),
        pytest.param('["canary"]', "its extra is not a JSON object", id="list"),
    ],
)  # fmt: skip
def test_a_connection_that_does_not_say_which_cluster_is_refused(connect, tmp_path, monkeypatch, extra, said):
    """Airflow's own hook would take the worker's ~/.kube/config: another cluster."""
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube/config").write_text(yaml.safe_dump(KUBECONFIG))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / ".kube/config"))
    ref = KubeconfigRef(connection=connect(conn_type="kubernetes", extra=extra))
    for call in (CREDENTIALS.api_client, CREDENTIALS.kubeconfig):
        with pytest.raises(ConfigError) as caught:
            call(ref)
        assert said in str(caught.value)
        assert "Airflow connection 'c'" in str(caught.value)
        assert "canary" not in str(caught.value)


def test_a_file_named_by_a_connection_is_the_start_of_its_paths(connect, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    (tmp_path / "token").write_text("canary-token\n")
    users = [{"name": "u", "user": {"tokenFile": "token"}}]
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(KUBECONFIG | {"users": users}))
    ref = KubeconfigRef(
        connection=connect(conn_type="kubernetes", extra={"kube_config_path": str(tmp_path / "kubeconfig")})
    )
    assert ("Authorization", "Bearer canary-token") in CREDENTIALS.api_client(ref).headers()
    assert yaml.safe_load(CREDENTIALS.kubeconfig(ref))["users"] == [{"name": "u", "user": {"token": "canary-token"}}]


def test_tokens_of_files_and_plugins_are_masked(connect, tmp_path, monkeypatch):
    masked = []
    monkeypatch.setattr(hooks, "mask_secret", masked.extend)
    (tmp_path / "token").write_text("canary-token-of-a-file\n")
    users = [{"name": "u", "user": {"tokenFile": str(tmp_path / "token")}}]
    text = yaml.safe_dump(KUBECONFIG | {"users": users})
    CREDENTIALS.api_client(
        KubeconfigRef(connection=connect(conn_type="kubernetes", extra={"kube_config": text}))
    ).headers()
    assert "canary-token-of-a-file" in masked


def test_the_cluster_s_entry_says_what_a_kubeconfig_may_do(connect):
    insecure = KUBECONFIG | {"clusters": [{"name": "first", "cluster": {"server": "http://first"}}]}
    connection = connect(conn_type="kubernetes", extra={"kube_config": insecure})
    with pytest.raises(ConfigError, match="it asks for http"):
        CREDENTIALS.api_client(KubeconfigRef(connection=connection))
    assert CREDENTIALS.api_client(KubeconfigRef(connection=connection, allow_insecure=("http",))).host == "http://first"


def test_no_token_is_logged(connect, caplog):
    caplog.set_level(logging.DEBUG)
    CREDENTIALS.api_client(KubeconfigRef(connection=connect(conn_type="kubernetes", extra={"kube_config": KUBECONFIG})))
    assert "canary-token" not in caplog.text


def test_a_site_is_opened_for_a_configured_cluster_only():
    assert hooks.open_site("harbor").cluster.name == "harbor"
    with pytest.raises(ConfigError, match="cluster 'nobody' is not configured"):
        hooks.open_site("nobody")
