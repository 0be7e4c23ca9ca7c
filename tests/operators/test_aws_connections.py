"""Airflow connections of type `aws`: each field honoured at an S3 server, or refused by its name."""

from __future__ import annotations

import pytest

from etcdkeep.adapters.stores import s3_client
from etcdkeep.adapters.stores.s3_account import AwsAccount
from etcdkeep.errors import AccessDenied, ConfigError, EtcdkeepError, StoreUnavailable
from etcdkeep.site import try_connections
from etcdkeep.site.credentials import FileCredentials
from etcdkeep.site.site import Site
from etcdkeep_airflow import hooks
from tests.builders import make_cluster
from tests.connections import FORMS, give_connection
from tests.s3_server import Fault, s3_server

KEY = {"login": "AKIAWRITER", "password": "canary/secret"}


@pytest.fixture
def server(monkeypatch, tmp_path):
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    with s3_server() as running:
        running.headers.clear()
        yield running


@pytest.fixture
def connect(monkeypatch):
    def add(form="json", extra=None, **columns):
        return give_connection(monkeypatch, "aws", form, **{"conn_type": "aws", **columns}, extra=extra or {})

    return add


def site_of(server, connection="aws", **overrides):
    cluster = make_cluster(repository=f"s3://{server.bucket}/etcd", repository_connection=connection, **overrides)
    return Site(cluster, hooks.ConnectionCredentials())


def signers(server):
    """Return which keys, and in which region, have signed the requests."""
    return {headers["AUTHORIZATION"].split("Credential=")[1].split("/s3/")[0] for headers in server.headers}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("in_extra", [False, True])
def test_a_key_with_region_and_endpoint_is_used_for_every_request(server, connect, form, in_extra):
    extra = {
        "endpoint_url": server.url,
        "region_name": "eu-test-1",
        "config_kwargs": {"s3": {"addressing_style": "path"}},
    }
    columns = {} if in_extra else KEY
    if in_extra:
        extra |= {
            "aws_access_key_id": KEY["login"],
            "aws_secret_access_key": KEY["password"],
            "aws_session_token": "tok",
        }
    site = site_of(server, connect(form, extra, **columns))
    with site.repository.store.create("a") as sink:
        sink.write(b"data")
    assert list(site.spool("20261123T023000Z-1f0c9a3e").store.list()) == []
    assert {each.split("/")[0] for each in signers(server)} == {"AKIAWRITER"}
    assert {each.split("/")[2] for each in signers(server)} == {"eu-test-1"}
    tokens = {headers.get("X_AMZ_SECURITY_TOKEN") for headers in server.headers}
    assert tokens == ({"tok"} if in_extra else {None})


def test_without_a_key_the_worker_s_own_chain_is_used(server, connect, tmp_path):
    profiles = "[default]\naws_access_key_id=DEFAULT\naws_secret_access_key=x\n[backups]\naws_access_key_id=BACKUPS\naws_secret_access_key=x\n"
    (tmp_path / "credentials").write_text(profiles)
    (tmp_path / "config").write_text(f"[default]\nendpoint_url={server.url}\n")
    assert list(site_of(server, connect()).repository.store.list()) == []
    assert {each.split("/")[0] for each in signers(server)} == {"DEFAULT"}
    server.headers.clear()
    named = connect(extra={"profile_name": "backups", "endpoint_url": server.url})
    assert list(site_of(server, named).repository.store.list()) == []
    assert {each.split("/")[0] for each in signers(server)} == {"BACKUPS"}


def test_without_any_credentials(server, connect):
    with pytest.raises(
        AccessDenied, match=r"Airflow connection 'aws': no AWS credentials here\. Give the worker a role"
    ):
        _ = site_of(server, connect(extra={"endpoint_url": server.url})).repository


def test_a_role_is_acted_as_with_its_settings(server, connect, monkeypatch):
    """moto answers AssumeRole too; the key that signs then is the role's."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.url)
    role = {
        "role_arn": "arn:aws:iam::123456789012:role/backups",
        "assume_role_kwargs": {"ExternalId": "ours", "RoleSessionName": "etcdkeep"},
        "endpoint_url": server.url,
        "region_name": "eu-test-1",
    }
    site = site_of(server, connect(extra=role, **KEY))
    with site.repository.store.create("a") as sink:
        sink.write(b"data")
    assert site.repository.store.stat("a") is not None
    last = server.headers[-1]["AUTHORIZATION"]
    assert "Credential=ASIA" in last
    assert "X_AMZ_SECURITY_TOKEN" in server.headers[-1]
    assert "role/backups (Airflow connection 'aws')" in site.repository.store._account


@pytest.mark.parametrize("name", ["max_attempts", "total_max_attempts"])
def test_retries_are_how_often_a_request_is_sent(server, connect, name):
    extra = {"endpoint_url": server.url, "config_kwargs": {"retries": {name: 2}}}
    store = site_of(server, connect(extra=extra, **KEY)).repository.store
    server.faults.append(Fault("status", status=503, times=100))
    with pytest.raises(StoreUnavailable):
        store.stat("a")
    assert len(server.requests) == 2


def test_a_bundle_of_authorities(connect, monkeypatch):
    connection = connect(extra={"verify": "/etc/ssl/own.pem"}, **KEY)
    account = hooks.ConnectionCredentials().aws_account(connection)
    assert account.ca_bundle == "/etc/ssl/own.pem"
    assert hooks.ConnectionCredentials().aws_account(connect(extra={"verify": True}, **KEY)).ca_bundle is None


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("extra", "said"),
    [
        pytest.param({"verify": False}, "verify is false, which is not supported. Give the path", id="verify"),
        pytest.param({"service_config": {"s3": {}}}, "sets service_config, .*endpoint_url", id="service-config"),
        pytest.param({"session_kwargs": {"a": 1}}, "sets session_kwargs", id="session"),
        pytest.param({"external_id": "x"}, "sets external_id, .*assume_role_kwargs", id="external-id"),
        pytest.param({"aws_account_id": "1"}, "sets aws_account_id, .*role_arn", id="account-id"),
        pytest.param({"s3_config_file": "/x"}, "sets s3_config_file, .*AWS_CONFIG_FILE", id="config-file"),
        pytest.param({"host": "x"}, "sets host, .*endpoint_url", id="host"),
        pytest.param({"region": "x"}, "unknown field 'region'; did you mean 'region_name'", id="mistyped"),
        pytest.param({"endpoint_url": "minio:9000"}, "endpoint_url is not usable: expected a URL", id="endpoint"),
        pytest.param({"endpoint_url": "http://minio.example.net:9000"}, "endpoint_url begins with http://, .*Give a URL that begins with https", id="http"),
        pytest.param({"endpoint_url": "http://x@127.0.0.1:9000"}, "endpoint_url begins with http://", id="http-user"),
        pytest.param({"role_arn": "a", "assume_role_method": "assume_role_with_saml"}, "assume_role_method is not supported", id="saml"),
        pytest.param({"assume_role_kwargs": {"ExternalId": "x"}}, "assume_role_kwargs is given without role_arn", id="no-role"),
        pytest.param({"role_arn": "a", "assume_role_kwargs": {"Policy": "x"}}, "assume_role_kwargs has a setting", id="role-settings"),
        pytest.param({"config_kwargs": {"proxies": {}}}, "config_kwargs is not usable: supported are", id="client"),
        pytest.param({"config_kwargs": {"s3": {"payload": 1}}}, "config_kwargs is not usable", id="client-s3"),
        pytest.param({"config_kwargs": {"retries": {"max_attempts": 0}}}, "config_kwargs is not usable: expected a whole", id="attempts"),
        pytest.param({"config_kwargs": "canary"}, "config_kwargs is not an object", id="client-text"),
        pytest.param({"aws_access_key_id": "x"}, "aws_access_key_id is given, and login too", id="two-keys"),
        pytest.param({"profile_name": "x"}, "profile_name is given, and a key too", id="profile-and-key"),
        pytest.param({"region_name": 7}, "region_name of its extra is of the wrong type", id="region-type"),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_honoured_is_refused_by_name(server, connect, form, extra, said):
    with pytest.raises(EtcdkeepError, match=said) as caught:
        _ = site_of(server, connect(form, extra, **KEY)).repository
    assert "Airflow connection 'aws'" in str(caught.value)
    assert "canary" not in str(caught.value)
    assert server.requests == []


@pytest.mark.parametrize("url", ["https://minio.example.net:9000", "http://127.0.0.2:9000", "http://[::1]:9000", "http://localhost:9000"])  # fmt: skip
def test_an_endpoint_with_tls_or_on_this_machine_is_taken(connect, url):
    assert hooks.ConnectionCredentials().aws_account(connect(extra={"endpoint_url": url}, **KEY)).endpoint_url == url


@pytest.mark.parametrize("where", ["profile", "environment"])
def test_an_endpoint_of_the_worker_without_tls_is_refused(server, connect, tmp_path, monkeypatch, where):
    if where == "profile":
        (tmp_path / "config").write_text("[default]\nendpoint_url=http://minio.example.net:9000\n")
    else:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://minio.example.net:9000")
    with pytest.raises(ConfigError, match=r"'aws': the endpoint http://minio.*is not encrypted.*AWS_ENDPOINT_URL_S3"):
        _ = site_of(server, connect(**KEY)).repository


def test_a_role_is_not_asked_for_without_tls(server, connect, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://sts.example.net")
    extra = {"role_arn": "arn:aws:iam::123456789012:role/backups", "endpoint_url": server.url}
    store = site_of(server, connect(extra=extra, **KEY)).repository.store
    with pytest.raises(ConfigError, match=r"sts\.example\.net is not encrypted.*AWS_ENDPOINT_URL_STS"):
        store.stat("a")


@pytest.mark.parametrize("columns", [{"login": "a"}, {"password": "canary"}])
def test_half_a_key_is_refused(server, connect, columns):
    with pytest.raises(EtcdkeepError, match="login and password belong together") as caught:
        _ = site_of(server, connect(**columns)).repository
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(("column", "value"), [("host", "x"), ("schema", "x"), ("port", 1)])
def test_other_columns_and_types_are_refused(server, connect, column, value):
    with pytest.raises(EtcdkeepError, match=f"'aws': {column} has no meaning in a connection of type 'aws'"):
        _ = site_of(server, connect(**{column: value})).repository
    with pytest.raises(EtcdkeepError, match="is of type 'emr'; expected 'aws'"):
        _ = site_of(server, connect(conn_type="emr")).repository


def test_refusals_of_the_server_name_account_and_connection_and_no_secret(server, connect):
    store = site_of(server, connect(extra={"endpoint_url": server.url}, **KEY)).repository.store
    server.faults.append(Fault("status", status=403, code="SignatureDoesNotMatch", times=100))
    with pytest.raises(
        AccessDenied, match=r"of key AKIAWRITER \(Airflow connection 'aws'\) were not accepted"
    ) as caught:
        store.stat("a")
    assert "canary" not in str(caught.value)
    assert "canary" not in repr(AwsAccount("x", "a", "canary", "canary"))


def test_the_secret_is_masked(connect, monkeypatch):
    masked = []
    monkeypatch.setattr(hooks, "mask_secret", masked.append)
    hooks.ConnectionCredentials().aws_account(connect(extra={"aws_session_token": "tok"}, **KEY))
    assert masked == ["canary/secret", "tok"]


def test_the_command_line_uses_the_account_of_whoever_sits_there(server, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "LAPTOP")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
    cluster = make_cluster(repository=f"s3://{server.bucket}/etcd", repository_connection="aws")
    assert list(Site(cluster, FileCredentials()).repository.store.list()) == []
    assert {each.split("/")[0] for each in signers(server)} == {"LAPTOP"}


def test_first_and_copy_have_each_their_own_account(server, connect, monkeypatch):
    give_connection(
        monkeypatch, "first", conn_type="aws", login="FIRST", password="x", extra={"endpoint_url": server.url}
    )
    give_connection(
        monkeypatch, "second", conn_type="aws", login="SECOND", password="x", extra={"endpoint_url": server.url}
    )
    site = site_of(server, "first", copies=[{"repository": f"s3://{server.bucket}/copy", "connection": "second"}])
    for opener in site.repositories.values():
        assert list(opener().store.list()) == []
    assert {each.split("/")[0] for each in signers(server)} == {"FIRST", "SECOND"}


@pytest.mark.parametrize("ignores", [False, True])
def test_a_server_that_ignores_conditions_is_found_out(server, connect, ignores):
    """By `config check --connections`, for the repository and for each copy."""
    server.ignores_conditions = ignores
    connection = connect(extra={"endpoint_url": server.url}, **KEY)
    copies = [{"repository": f"s3://{server.bucket}/copy", "connection": connection}]
    tried = {each.what: each for each in try_connections._stores(site_of(server, connection, copies=copies))}
    assert {what: (each.by, each.ok) for what, each in tried.items()} == dict.fromkeys(
        ("repository", "copy"), ("connection aws", not ignores)
    )
    assert ("has conditional writes" if ignores else "list, write, read, delete") in tried["copy"].said
    assert server.names() == []


def test_limits_of_an_account():
    config = s3_client._config(AwsAccount("x", addressing="path", attempts=2), s3_client.ATTEMPTS)
    assert config.retries["total_max_attempts"] == 2
    assert config.s3 == {"addressing_style": "path"}
