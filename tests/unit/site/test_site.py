"""A configured cluster's keys and addresses, each read when it is first asked for."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
from base64 import b64encode
from dataclasses import replace
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import etcdkeep.adapters.kube.config  # noqa: F401 - urllib3 looks for IPv6 when it is imported, which no unit test may
from etcdkeep.config.access import KubeconfigRef, SecretRef, SshKeyRef
from etcdkeep.errors import ConfigError, NotFound, SecretUnavailable, Unreachable
from etcdkeep.sealing.seal import seal
from etcdkeep.sets.backup_set import BackupSet
from etcdkeep.sets.manifest import Plaintext
from etcdkeep.site.credentials import FileCredentials, read_secret_file
from etcdkeep.site.site import Site
from tests.builders import BACKUP_ID, age_pair, make_artifact, make_cluster, make_manifest, signing_pair

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIYkbcZFHlq+gXzovhFW9y86qS3Bim9pXID1mxlOc0tI"


class Credentials:
    """Keys by their reference."""

    def __init__(self, **keys):
        self.keys = keys
        self.masked = []

    def mask(self, key):
        self.masked.append(key)

    def secret(self, ref):
        return self.keys[ref.connection]

    def kubeconfig(self, ref):
        return None if ref.in_cluster else b"kubeconfig"


class Api:
    def __init__(self, data):
        self.data = data

    def get(self, path):
        assert path == "/api/v1/namespaces/kube-system/secrets/sshkeys"
        return {"data": self.data} if self.data is not None else {}


def make_site(api_data=None, credentials=None, **overrides):
    site = Site(make_cluster(**overrides), credentials or Credentials())
    site.__dict__["api"] = Api(api_data)
    return site


def test_the_ssh_key_comes_from_the_cluster_s_secret_and_is_masked_in_the_log():
    site = make_site({"vsphere_tmp": b64encode(b"PEM").decode()})
    assert site.ssh_key == b"PEM"
    assert site.credentials.masked == [b"PEM"]


@pytest.mark.parametrize("data", [None, {}, {"other": ""}], ids=["no-data", "empty", "another-field"])
def test_a_secret_without_the_field_says_which(data):
    with pytest.raises(
        NotFound, match=r"Secret kube-system/sshkeys has no field 'vsphere_tmp'; set ssh\.key of cluster 'harbor'"
    ):
        _ = make_site(data).ssh_key


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("10.0.0.1", "10.0.0.1", 2200), ("10.0.0.1:22", "10.0.0.1", 22), ("fd00::1", "fd00::1", 2200), ("[fd00::1]:22", "fd00::1", 22)],
)  # fmt: skip
def test_a_node_is_reached_where_the_address_says(address, host, port):
    target, jump = make_site(ssh={"port": 2200, "user": "core", "host_keys": [HOST_KEY]}).node_target(address)
    assert (target.host, target.port, target.user) == (host, port, "core")
    assert jump is None


@pytest.mark.parametrize(("own", "expected"), [(None, b"node"), ({"connection": "jump"}, b"jump")])
def test_the_jump_host_has_its_own_key_or_the_node_s(own, expected):
    ssh = {"key": {"connection": "node"}, "jump": {"host": "bastion", "user": "hop", **({"key": own} if own else {})}}
    site = make_site(credentials=Credentials(node=b"node", jump=b"jump"), ssh=ssh)
    _, jump = site.node_target("10.0.0.1")
    assert jump is not None
    assert (jump[0].host, jump[0].user, jump[1]) == ("bastion", "hop", expected)


def test_everything_that_is_needed_to_reach_the_cluster_is_kept():
    ssh = {
        "key": {"connection": "node"},
        "host_keys": [f"10.0.0.1 {HOST_KEY}"],
        "jump": {"host": "bastion", "key": {"connection": "jump"}, "host_keys": [f"bastion {HOST_KEY}"]},
    }
    site = make_site(credentials=Credentials(node=b"node", jump=b"jump"), ssh=ssh)
    assert site.access_files() == {
        "ssh_key": b"node",
        "jump_ssh_key": b"jump",
        "known_hosts": f"10.0.0.1 {HOST_KEY}\nbastion {HOST_KEY}\n".encode(),
        "kubeconfig": b"kubeconfig",
    }


@pytest.mark.parametrize("wrap", [bytes.rstrip, b64encode, lambda key: key.replace(b"\n", b" ")])
def test_keys_are_kept_as_openssh_reads_them_however_they_came(wrap):
    key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    credentials = Credentials(node=wrap(key), jump=wrap(key))
    ssh = {"key": {"connection": "node"}, "jump": {"host": "hop", "key": {"connection": "jump"}}}
    site = make_site(credentials=credentials, ssh=ssh)
    kept = site.access_files()
    assert (kept["ssh_key"], kept["jump_ssh_key"], site.ssh_key) == (key, key, key)
    assert key in credentials.masked


def test_what_is_no_key_is_told_of_without_being_quoted(caplog):
    site = make_site(
        credentials=Credentials(node=b"PuTTY-User-Key-File-3: secret"), ssh={"key": {"connection": "node"}}
    )
    assert site.ssh_key == b"PuTTY-User-Key-File-3: secret"
    assert "ssh.key: what is in Airflow connection 'node' is a PuTTY key; convert it: puttygen" in caplog.text
    assert "secret" not in caplog.text


def test_host_keys_without_a_name_are_kept_as_ssh_reads_them():
    ssh = {"key": {"connection": "node"}, "host_keys": [HOST_KEY], "jump": {"host": "hop", "port": 2222, "host_keys": [HOST_KEY]}}  # fmt: skip
    site = make_site(credentials=Credentials(node=b"node"), ssh=ssh)
    assert site.access_files()["known_hosts"] == f"* {HOST_KEY}\n[hop]:2222 {HOST_KEY}\n".encode()


def test_without_a_kubeconfig_none_is_kept():
    site = make_site(credentials=Credentials(node=b"node"), ssh={"key": {"connection": "node"}}, kubeconfig={"in_cluster": True})  # fmt: skip
    assert set(site.access_files()) == {"ssh_key", "known_hosts"}


def test_signing_needs_a_configured_and_trusted_key():
    pem, public = signing_pair()
    credentials = Credentials(etcdkeep_signing=pem)
    assert make_site(credentials=credentials).signer("backup").sign(b"x")
    with pytest.raises(ConfigError, match=r"cluster 'harbor': no key to sign for purpose 'backup'"):
        make_site(credentials=credentials, signing={"public_keys": [public]}).signer("backup")
    other = {"key": {"connection": "etcdkeep_signing"}, "public_keys": [signing_pair("other")[1]]}
    with pytest.raises(ConfigError, match=r"is not among signing\.public_keys"):
        make_site(credentials=credentials, signing=other).signer("backup")


def test_the_age_identity_is_there_or_not_configured():
    assert make_site().identities() is None
    site = make_site(credentials=Credentials(age=age_pair()[0]), age_identity={"connection": "age"})
    assert len(site.identities() or ()) == 1


def test_repository_and_spool_are_where_the_configuration_says(tmp_path):
    site = make_site(repository=f"file://{tmp_path}/r")
    assert site.repository.store.url == f"file://{tmp_path}/r"
    assert site.spool("id").store.url == f"file://{tmp_path}/r/.spool"


def test_on_the_command_line_keys_are_files(tmp_path):
    file = tmp_path / "key"
    file.write_bytes(b"PEM")
    files = FileCredentials()
    assert files.secret(SecretRef(path=str(file))) == b"PEM"
    with pytest.raises(ConfigError, match="key cannot be used: it is not a YAML mapping"):
        files.kubeconfig(KubeconfigRef(path=str(file)))
    with pytest.raises(SecretUnavailable, match="kubeconfig in Airflow connection 'c' cannot be read outside Airflow"):
        files.api_client(KubeconfigRef(connection="c"))
    assert files.kubeconfig(KubeconfigRef(in_cluster=True)) is None
    with pytest.raises(SecretUnavailable, match="cannot be read outside Airflow"):
        files.secret(SecretRef(connection="c"))
    with pytest.raises(SecretUnavailable, match="works only in a pod"):
        files.api_client(KubeconfigRef(in_cluster=True))
    with pytest.raises(SecretUnavailable, match=r"key file .*/none cannot be read: No such file"):
        read_secret_file(str(tmp_path / "none"))


# --- keys of a cluster whose API is gone ---------------------------------------------------------------------------


class Gone:
    def get(self, path):
        raise Unreachable("connection refused")


def keep_access(folder, files, identity=None):
    """Return a site whose API is down, and a set with these access files."""
    site = make_site(
        repository=f"file://{folder}",
        age_identity={"connection": "age"},
        credentials=Credentials(age=identity or age_pair()[0]),
    )
    site.__dict__["api"] = Gone()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    plain = packed.getvalue()
    with site.repository.store.create(f"harbor/{BACKUP_ID}/access.tar.zst.age") as sink:
        seal([plain], sink, [age_pair()[1]])
    digest = Plaintext(size_bytes=len(plain), sha256=hashlib.sha256(plain).hexdigest())
    access = make_artifact("access.tar.zst.age", kind="access", plaintext=digest)
    return site, BackupSet("harbor", BACKUP_ID, make_manifest(artifacts=(access,)), b"", b"", ())


def test_with_the_api_down_the_ssh_key_comes_from_the_set(tmp_path):
    site, found = keep_access(tmp_path, {"ssh_key": b"PEM of the set"})
    site = site.with_keys_of(found)
    assert site.ssh_key == b"PEM of the set"


def test_a_site_with_a_set_is_another_one_and_shares_what_is_open(tmp_path):
    site, found = keep_access(tmp_path, {"ssh_key": b"PEM of the set"})
    repository = site.repository
    other = site.with_keys_of(found)
    assert other.repository is repository
    assert (other.ssh_key, other.keys_of, site.keys_of) == (b"PEM of the set", found, None)
    with pytest.raises(Unreachable):
        _ = site.ssh_key


def test_without_a_set_an_api_that_is_down_is_an_error(tmp_path):
    site, _ = keep_access(tmp_path, {"ssh_key": b"PEM of the set"})
    with pytest.raises(Unreachable):
        _ = site.ssh_key


def test_a_key_that_is_configured_never_comes_from_the_set(tmp_path):
    site, found = keep_access(tmp_path, {"ssh_key": b"PEM of the set"})
    configured = site.cluster.ssh.model_copy(update={"key": SshKeyRef(connection="ssh")})
    site.cluster = site.cluster.model_copy(update={"ssh": configured})
    site.credentials.keys["ssh"] = b"configured"
    site = site.with_keys_of(found)
    assert site.ssh_key == b"configured"


def test_a_set_without_access_files_says_what_to_set(tmp_path):
    site, found = keep_access(tmp_path, {"ssh_key": b"PEM"})
    site = site.with_keys_of(replace(found, manifest=make_manifest()))
    with pytest.raises(NotFound, match=r"holds no SSH key; set ssh\.key of cluster 'harbor'"):
        _ = site.ssh_key


def test_a_set_that_does_not_open_is_a_missing_key(tmp_path):
    site, found = keep_access(tmp_path, {"ssh_key": b"PEM"}, identity=age_pair("theirs")[0])
    site = site.with_keys_of(found)
    with pytest.raises(SecretUnavailable, match="sealed to age1"):
        _ = site.ssh_key


def test_the_identity_of_whoever_runs_it_opens_the_set_too(tmp_path):
    """ETCDKEEP_AGE_IDENTITY: on a laptop the configured one may not be readable at all."""
    site, found = keep_access(tmp_path, {"ssh_key": b"PEM of the set"}, identity=age_pair("theirs")[0])
    (tmp_path / "age-identity.txt").write_bytes(age_pair()[0])
    site.identity_file = str(tmp_path / "age-identity.txt")
    assert len(site.identities() or ()) == 1
    assert site.with_keys_of(found).ssh_key == b"PEM of the set"


def test_without_any_identity_it_says_where_one_can_be_given(tmp_path):
    site, found = keep_access(tmp_path, {"ssh_key": b"PEM"})
    site.cluster = site.cluster.model_copy(update={"age_identity": None})
    with pytest.raises(SecretUnavailable, match="on the command line, set ETCDKEEP_AGE_IDENTITY to the age identity"):
        _ = site.with_keys_of(found).ssh_key


def test_the_own_api_of_a_cluster_with_nodes_is_the_api():
    site = make_site()
    assert site.own_api is site.api


def test_a_cluster_inside_another_is_never_taken_for_that_other_one(monkeypatch):
    inside = {"profile": "gke-user-kubeception"}
    with pytest.raises(ConfigError, match="has no own_kubeconfig"):
        _ = make_site(**inside).own_api
    credentials = Credentials()
    credentials.api_client = lambda ref: ref.connection
    client = SimpleNamespace(KubeApiClient=lambda client: f"the API at {client}")
    monkeypatch.setitem(
        sys.modules, "etcdkeep.adapters.kube.client", client
    )  # the real one looks for IPv6 when it is imported
    site = make_site(credentials=credentials, **inside, own_kubeconfig={"connection": "of_its_own"})
    assert site.own_api == "the API at of_its_own"
