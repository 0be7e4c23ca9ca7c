"""The two kinds of workers of deploy/, and its API server: one cannot open a set, one cannot sign a manifest, one can do neither."""

from __future__ import annotations

import io
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from etcdkeep import naming
from etcdkeep.config.loading import parse_config
from etcdkeep.documents import write
from etcdkeep.errors import EtcdkeepError, SecretUnavailable
from etcdkeep.records import PURPOSES
from etcdkeep.sealing.age_keys import parse_identities
from etcdkeep.sealing.seal import seal, unseal
from etcdkeep.sealing.signature import public_key_text
from etcdkeep.site.credentials import FileCredentials
from etcdkeep.site.site import Site
from etcdkeep_airflow.page.objects_source import IndexCredentials
from tests.builders import make_manifest
from tests.deployed import configuration, make_secrets, secrets_of

if TYPE_CHECKING:
    from pathlib import Path

NAME = "prod-admin"


class Worker:
    """One service: the configuration that all share, and the files that compose mounts for it."""

    def __init__(self, service: str, folder: Path, made: dict[str, object]) -> None:
        self.mounted = folder / service
        self.mounted.mkdir()
        for source, path in secrets_of(service).items():
            if (folder / "secrets" / source).exists():
                shutil.copy(folder / "secrets" / source, self.mounted / path.rpartition("/")[2])
        config = parse_config(configuration(made, folder / "repository", self.mounted), "clusters.yaml")
        self.cluster = config.cluster(NAME)
        self.site = Site(self.cluster, FileCredentials())

    @property
    def purposes(self) -> set[str]:
        """For what it can sign."""
        return {purpose for purpose in PURPOSES if self._signs(purpose)}

    def _signs(self, purpose: str) -> bool:
        try:
            self.site.signer(purpose)  # type: ignore[arg-type]
        except SecretUnavailable:
            return False
        return True


@pytest.fixture
def workers(tmp_path: Path) -> dict[str, Worker]:
    made = make_secrets(tmp_path / "secrets")
    return {name: Worker(name, tmp_path, made) for name in ("worker-backup", "worker-verify", "api-server")}


def test_what_each_can_sign(workers: dict[str, Worker]) -> None:
    assert workers["worker-backup"].purposes == {"backup"}
    assert workers["worker-verify"].purposes == {"verify", "approve", "restore"}
    assert workers["api-server"].purposes == set()


def test_the_backup_worker_cannot_open_a_set(workers: dict[str, Worker]) -> None:
    backup, verify = workers["worker-backup"], workers["worker-verify"]
    sealed = io.BytesIO()
    seal([b"a snapshot"], sealed, backup.site.cluster.age_recipients)
    with pytest.raises(SecretUnavailable, match="age_identity cannot be read"):
        backup.site.identities()
    for file in backup.mounted.iterdir():
        with pytest.raises((EtcdkeepError, ValueError)):
            unseal(io.BytesIO(sealed.getvalue()), io.BytesIO(), parse_identities(file.read_bytes()), size_limit=100)
    plain, identities = io.BytesIO(), verify.site.identities()
    assert identities
    unseal(io.BytesIO(sealed.getvalue()), plain, identities, size_limit=100)
    assert plain.getvalue() == b"a snapshot"


def test_the_verify_worker_cannot_sign_a_manifest(workers: dict[str, Worker]) -> None:
    backup, verify = workers["worker-backup"], workers["worker-verify"]
    with pytest.raises(SecretUnavailable, match="signing_backup cannot be read"):
        verify.site.signer("backup")
    store, believed = verify.site.repository.store, {}
    for number, key in enumerate((*verify.mounted.glob("signing_*"), *backup.mounted.glob("signing_*"))):
        identifier = f"2026112{number}T023000Z-1f0c9a3e"
        signer = load_pem_private_key(key.read_bytes(), None)
        assert isinstance(signer, Ed25519PrivateKey)
        public = public_key_text(signer.public_key())
        data = make_manifest(cluster=NAME, profile="gke-admin", backup_id=identifier, signing_key=public).to_bytes()
        prefix = naming.set_prefix(NAME, identifier)
        write(store, prefix + naming.SIGNATURE, signer.sign(data))
        write(store, prefix + naming.MANIFEST, data)
        believed[key.name] = verify.site.repository.get(NAME, identifier).manifest is not None
    assert believed == {"signing_backup": True, "signing_approve": False, "signing_restore": False, "signing_verify": False}  # fmt: skip


def test_the_api_server_opens_indexes_and_no_backup_and_no_worker_has_its_key(workers: dict[str, Worker]) -> None:
    server = workers["api-server"]
    page = Site(server.cluster, IndexCredentials(server.cluster.index_identity))
    identities = page.index_identities()
    assert identities
    index, backup, plain = io.BytesIO(), io.BytesIO(), io.BytesIO()
    seal([b"names"], index, (*server.cluster.age_recipients, *server.cluster.index_recipients))
    seal([b"a snapshot"], backup, server.cluster.age_recipients)
    unseal(io.BytesIO(index.getvalue()), plain, identities, size_limit=100)
    assert plain.getvalue() == b"names"
    with pytest.raises(EtcdkeepError):
        unseal(io.BytesIO(backup.getvalue()), io.BytesIO(), identities, size_limit=100)
    with pytest.raises(SecretUnavailable, match="age_identity cannot be read"):
        server.site.identities()
    for name in ("worker-backup", "worker-verify"):
        with pytest.raises(SecretUnavailable, match="index_identity cannot be read"):
            workers[name].site.index_identities()


def test_who_had_secrets_before_the_index_key_gets_that_one_alone(tmp_path: Path) -> None:
    made = make_secrets(tmp_path / "secrets")
    kept = {file.name: file.read_bytes() for file in (tmp_path / "secrets").iterdir() if file.name != "index_identity"}
    (tmp_path / "secrets/index_identity").unlink()
    again = make_secrets(tmp_path / "secrets")
    assert set(again) == {"index_recipients", "index_identity"}
    assert again["index_recipients"] != made["index_recipients"]
    assert {name: (tmp_path / "secrets" / name).read_bytes() for name in kept} == kept
    with pytest.raises(subprocess.CalledProcessError):
        make_secrets(tmp_path / "secrets")
