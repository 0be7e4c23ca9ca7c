"""Airflow connections of type `google_cloud_platform`: each field honoured at a bucket server, or refused by its name."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import _regional_access_boundary_utils, iam

from etcdkeep.adapters.stores import gcs
from etcdkeep.config.loading import parse_config
from etcdkeep.errors import AccessDenied, EtcdkeepError, StoreUnavailable
from etcdkeep.site.credentials import FileCredentials
from etcdkeep.site.site import Site
from etcdkeep_airflow import hooks
from tests.builders import make_cluster, make_entry, make_file
from tests.connections import FORMS, give_connection
from tests.gcs_stub import BUCKET, Fault, gcs_stub

PEM = (
    rsa.generate_private_key(public_exponent=65537, key_size=2048)
    .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    .decode()
)
WRITER = "writer@project.iam.gserviceaccount.com"
CLOUD = "https://www.googleapis.com/auth/cloud-platform"


@pytest.fixture
def stub(monkeypatch, tmp_path):
    config = tmp_path / "clusters.yaml"
    config.write_text(make_file(make_entry()))
    monkeypatch.setenv("ETCDKEEP_CONFIG", str(config))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with gcs_stub() as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.url)
        monkeypatch.setattr(
            iam, "_IAM_ENDPOINT", f"{running.url}/v1/projects/-/serviceAccounts/{{}}:generateAccessToken"
        )
        monkeypatch.setattr(
            _regional_access_boundary_utils, "_get_domain", lambda: "127.0.0.1:1"
        )  # asked beside all else
        yield running


@pytest.fixture
def key(stub):
    """A service account's key, whose token endpoint is the stub."""
    return {"type": "service_account", "client_email": WRITER, "private_key": PEM, "token_uri": f"{stub.url}/token"}


@pytest.fixture
def connect(monkeypatch):
    def add(form="json", extra=None, **columns):
        columns = {"conn_type": "google_cloud_platform", **columns}
        return give_connection(monkeypatch, "google", form, **columns, extra=extra or {})

    return add


def site_of(connection="google", **overrides):
    cluster = make_cluster(repository=f"gs://{BUCKET}/etcd", repository_connection=connection, **overrides)
    return Site(cluster, hooks.ConnectionCredentials())


def write_and_read(site):
    """Use the repository and the spool, which may lie in another bucket."""
    store = site.repository.store
    with store.create("a") as sink:
        sink.write(b"data")
    with store.open("a") as source:
        assert source.read() == b"data"
    assert list(site.spool("20261123T023000Z-1f0c9a3e").store.list()) == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prefix", ["", "extra__google_cloud_platform__"])
@pytest.mark.parametrize("place", ["key_path", "keyfile_dict", "keyfile_text"])
def test_a_key_is_used_for_every_request(stub, connect, key, tmp_path, form, prefix, place):
    (tmp_path / "key.json").write_text(json.dumps(key))
    value = {"key_path": str(tmp_path / "key.json"), "keyfile_dict": key, "keyfile_text": json.dumps(key)}[place]
    name = place.replace("_text", "_dict")
    write_and_read(site_of(connect(form, {prefix + name: value, f"{prefix}num_retries": 5})))
    storage = [
        by for by, request in zip(stub.authorizations, stub.requests, strict=True) if not request.endswith("/token")
    ]
    assert set(storage) == {f"Bearer token-of-{WRITER}"}
    assert {claims["scope"] for claims in stub.tokens} == {CLOUD}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "scope", ["https://a.example/scope,https://b.example/scope", ["https://a.example/scope", "https://b.example/scope"]]
)
def test_scopes(stub, connect, key, form, scope):
    write_and_read(site_of(connect(form, {"keyfile_dict": key, "scope": scope})))
    assert {claims["scope"] for claims in stub.tokens} == {"https://a.example/scope https://b.example/scope"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "chain", ["a@x.example, b@x.example,c@x.example", ["a@x.example", "b@x.example", "c@x.example"]]
)
def test_the_last_account_of_a_chain_is_acted_as(stub, connect, key, form, chain):
    write_and_read(
        site_of(connect(form, {"keyfile_dict": key, "impersonation_chain": chain, "scope": "https://a.example/s"}))
    )
    acting = [token for token in stub.tokens if "account" in token]
    assert {token["account"] for token in acting} == {"c@x.example"}
    assert {token["by"] for token in acting} == {f"Bearer token-of-{WRITER}"}
    assert [name.rpartition("/")[2] for name in acting[0]["delegates"]] == ["a@x.example", "b@x.example"]
    assert acting[0]["scope"] == ["https://a.example/s"]
    assert stub.tokens[0]["scope"] == "https://www.googleapis.com/auth/iam", (
        "with no other right than to act as another"
    )
    assert stub.authorizations[-1] == "Bearer token-of-c@x.example"


@pytest.mark.parametrize("form", FORMS)
def test_without_a_key_the_default_credentials_are_used_and_a_chain_starts_there(
    stub, connect, key, tmp_path, monkeypatch, form
):
    (tmp_path / "default.json").write_text(json.dumps(key))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "default.json"))
    write_and_read(site_of(connect(form, {"impersonation_chain": "only@x.example"})))
    acting = next(token for token in stub.tokens if "account" in token)
    assert (acting["account"], acting["by"], acting.get("delegates")) == (
        "only@x.example",
        f"Bearer token-of-{WRITER}",
        [],
    )
    stub.authorizations.clear()
    assert list(site_of(connect(form, {"project": "backups"})).repository.store.list("none")) == []
    assert set(stub.authorizations) == {""}, "the emulator asks nobody"


def test_without_a_key_and_without_default_credentials(stub, connect, monkeypatch, tmp_path):
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    with pytest.raises(
        AccessDenied, match=r"'google' has no key, and there are no default Google credentials here\. Give it key_path"
    ):
        _ = site_of(connect()).repository


@pytest.mark.parametrize("form", FORMS)
def test_project(connect, key, form, stub):
    assert (
        site_of(connect(form, {"keyfile_dict": key, "project": "backups"})).repository.store._client.project
        == "backups"
    )
    assert site_of(connect(form, {"keyfile_dict": key})).repository.store._client.project is None


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("times", "tries"), [(0, 1), (2, 3)])
def test_num_retries_is_how_often_a_request_is_sent_again(stub, connect, key, monkeypatch, form, times, tries):
    monkeypatch.setattr(gcs, "RETRY", gcs.RETRY.with_delay(initial=0.01, maximum=0.01))
    store = site_of(connect(form, {"keyfile_dict": key, "num_retries": times})).repository.store
    stub.faults.append(Fault("status", path="/storage/v1/", times=100))
    with pytest.raises(StoreUnavailable, match="503"):
        store.stat("a")
    assert stub.asked("/storage/v1/") == tries
    stub.faults[0].times = times
    assert store.stat("a") is None, "each request has its own count"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("extra", "said"),
    [
        pytest.param({"credential_config_file": "/x"}, "sets credential_config_file, .*GOOGLE_APPLICATION_CREDENTIALS", id="config-file"),
        pytest.param({"key_secret_name": "x"}, "sets key_secret_name, .*keyfile_dict", id="secret-name"),
        pytest.param({"key_secret_project_id": "x"}, "sets key_secret_project_id", id="secret-project"),
        pytest.param({"is_anonymous": True}, "sets is_anonymous, .*name an account", id="anonymous"),
        pytest.param({"idp_issuer_url": "https://x"}, "sets idp_issuer_url", id="issuer"),
        pytest.param({"client_id": "x"}, "sets client_id", id="client"),
        pytest.param({"client_secret": "canary"}, "sets client_secret", id="client-secret"),
        pytest.param({"idp_extra_parameters": "{}x"}, "sets idp_extra_parameters", id="idp-extra"),
        pytest.param({"quota_project_id": "x"}, "sets quota_project_id", id="quota"),
        pytest.param({"keypath": "/canary"}, "unknown field 'keypath'; did you mean 'key_path'", id="mistyped"),
        pytest.param({"key_path": "/nowhere"}, "its key_path: key file /nowhere cannot be read", id="no-file"),
        pytest.param({"key_path": '{"private_key": "canary"}'}, "key_path of its extra is not usable: expected the absolute path", id="key-as-path"),
        pytest.param({"key_path": "/etc/hostname"}, "key_path is not a key of a service account.*Make one", id="no-json"),
        pytest.param({"keyfile_dict": {"type": "authorized_user", "refresh_token": "canary"}}, "keyfile_dict is not a key of a service", id="user"),
        pytest.param({"keyfile_dict": "{canary"}, "keyfile_dict begins like JSON, and is none", id="broken"),
        pytest.param({"keyfile_dict": "canary"}, "keyfile_dict is not a key of a service account", id="text"),
        pytest.param(
            {"keyfile_dict": {"type": "service_account", "client_email": "a", "token_uri": "b", "private_key": "canary"}},
            "keyfile_dict holds no usable key of a service account", id="no-pem",
        ),
        pytest.param({"keyfile_dict": {"type": "service_account"}, "key_path": "/x"}, "key_path is given, and keyfile_dict too", id="two"),
        pytest.param({"impersonation_chain": "nobody"}, "impersonation_chain is not usable: expected e-mail", id="chain"),
        pytest.param({"impersonation_chain": {"a": 1}}, "impersonation_chain is not usable", id="chain-type"),
        pytest.param({"num_retries": -1}, "num_retries is not usable: expected a whole number", id="retries"),
        pytest.param({"num_retries": "many"}, "num_retries is not usable", id="retries-word"),
        pytest.param({"project": ["x"]}, "project of its extra is of the wrong type", id="project"),
        pytest.param({"scope": {"a": 1}}, "scope is not usable", id="scope"),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_honoured_is_refused_by_name(stub, connect, form, extra, said):
    with pytest.raises(EtcdkeepError, match=said) as caught:
        _ = site_of(connect(form, extra)).repository
    assert "Airflow connection 'google'" in str(caught.value)
    assert "canary" not in str(caught.value)
    assert stub.requests == []


@pytest.mark.parametrize(
    ("column", "value"), [("host", "x"), ("login", "x"), ("password", "canary"), ("schema", "x"), ("port", 1)]
)
def test_other_columns_and_types_are_refused(stub, connect, column, value):
    with pytest.raises(EtcdkeepError, match=f"'google': {column} has no meaning in a connection of type 'google_cloud"):
        _ = site_of(connect(**{column: value})).repository
    with pytest.raises(EtcdkeepError, match="is of type 'gcpssh'; expected 'google_cloud_platform'"):
        _ = site_of(connect(conn_type="gcpssh")).repository


def test_refusals_of_the_server_name_account_and_connection(stub, connect, key):
    store = site_of(connect(extra={"keyfile_dict": key, "num_retries": 0})).repository.store
    stub.faults.append(Fault("status", path="/storage/v1/", status=403))
    with pytest.raises(
        AccessDenied, match=rf"{WRITER} \(Airflow connection 'google'\) needs roles/storage\.objectUser"
    ):
        store.stat("a")
    stub.faults.append(Fault("status", path="/token", status=401))
    with pytest.raises(
        AccessDenied, match=rf"credentials of {WRITER} \(Airflow connection 'google'\) were not accepted"
    ):
        site_of().repository.store.stat("a")


def test_the_key_is_masked(stub, connect, key, monkeypatch):
    masked = []
    monkeypatch.setattr(hooks, "mask_secret", masked.extend)
    _ = site_of(connect(extra={"keyfile_dict": key})).repository
    assert PEM.splitlines()[1] in masked


def test_the_command_line_uses_the_account_of_whoever_sits_there(stub):
    cluster = make_cluster(repository=f"gs://{BUCKET}/etcd", repository_connection="google")
    assert list(Site(cluster, FileCredentials()).repository.store.list()) == []


def test_only_buckets_have_an_account():
    entry = make_entry(repository="file:///srv", repository_connection="google")
    (problem,) = parse_config(make_file(entry), "clusters.yaml").problems
    assert problem == (
        "clusters[0] (harbor).repository_connection: only for buckets (gs://, s3://); remove it (null where it comes from the defaults)"
    )
    assert make_cluster(spool="gs://spool/x", repository_connection="google").repository_connection == "google"
