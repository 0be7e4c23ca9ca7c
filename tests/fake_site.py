"""A whole site: fakes for the clients, real stores in a folder, and the steps of a run."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import serialization

from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.adapters.stores.opening import open_store, transfer
from etcdkeep.backup.cleanup import clean_up
from etcdkeep.backup.copy_out import CopiedSnapshot, copy_out
from etcdkeep.backup.discover import Discovery, discover
from etcdkeep.backup.node_files import NodeFiles, fetch_node_files
from etcdkeep.backup.publish import compose_manifest, publish
from etcdkeep.backup.snapshot import SavedSnapshot, save_snapshot
from etcdkeep.backup.spool import Spool
from etcdkeep.errors import Unreachable
from etcdkeep.naming import split_address
from etcdkeep.sealing.age_keys import parse_identities
from etcdkeep.sealing.signature import load_signing_key, public_key_text
from etcdkeep.sets.manifest import BackupRun, Manifest
from etcdkeep.sets.repository import Repository
from tests.builders import BACKUP_ID, age_pair, signing_pair
from tests.fakes import FakeKube, FakeMember, FakeNode, Faults
from tests.pki import key_pem, make_key, make_pki

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from etcdkeep.config.models import Cluster
    from etcdkeep.sets.backup_set import BackupSet

APISERVER = """\
apiVersion: v1
kind: Pod
spec:
  containers:
  - name: kube-apiserver
    command: [kube-apiserver, --etcd-servers=https://127.0.0.1:2379]
"""
SSH_KEY = key_pem(make_key("ssh", "ed25519"), serialization.PrivateFormat.OpenSSH)
KUBECONFIG = b"""\
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://10.0.0.1:6443"}}]
users: [{name: u, user: {token: canary-kubeconfig}}]
"""
ETCD = """\
apiVersion: v1
kind: Pod
spec:
  containers:
  - name: etcd
    command: [etcd, --data-dir=/var/lib/etcd, --name=cp-0]
    volumeMounts: [{mountPath: /var/lib/etcd, name: data}]
  volumes: [{name: data, hostPath: {path: /var/lib/etcd}}]
"""


class FakeSite:
    """
    A cluster with fakes for clients and real stores in a folder: what operators get from ``open_site``.

    :param folder: Holds ``repository/``, ``spool/`` and the node's ``kubernetes/``.
    """

    def __init__(self, folder: Path, cluster: Cluster, *members: FakeMember) -> None:
        self.folder = folder
        self.cluster = cluster
        self.members = members
        self.kube = FakeKube(*members, namespace=cluster.namespace, container=cluster.control_plane.container)
        self.node_faults = Faults()
        self.down: set[str] = set()
        self.has_identity = True
        self.used = ""
        self.api_error: Exception | None = None

    @property
    def api(self) -> FakeKube:
        if self.api_error:
            raise self.api_error
        return self.kube

    @property
    def own_api(self) -> FakeKube:
        return self.api

    @property
    def repository(self) -> Repository:
        if self.used in self.copies:
            return self.copies[self.used]()
        return Repository(DirectoryStore(self.folder / "repository"), self.cluster.signing.trust, self.signer)

    @property
    def copies(self) -> dict[str, Callable[[], Repository]]:
        def opener(url: str) -> Callable[[], Repository]:
            return lambda: Repository(open_store(url), self.cluster.signing.trust, self.signer)

        return {each.repository: opener(each.repository) for each in self.cluster.copies}

    @property
    def repositories(self) -> dict[str, Callable[[], Repository]]:
        return {self.cluster.repository: lambda: self.repository, **self.copies}

    def store_at(self, url: str, connection: str | None) -> Any:
        return open_store(url)

    def use(self, url: str) -> None:
        self.used = url

    def spool(self, identifier: str) -> Spool:
        return Spool(self.spool_store, self.cluster.name, identifier, self.cluster.age_recipients)

    @property
    def spool_store(self) -> DirectoryStore:
        return DirectoryStore(self.folder / "spool")

    @contextmanager
    def open_node(self, address: str) -> Iterator[FakeNode]:
        host, _ = split_address(address, 22)
        if host in self.down:
            raise Unreachable(f"node ubuntu@{host} could not be reached: timed out.")
        yield FakeNode(f"node ubuntu@{host}", self.members, self.node_faults)

    def signer(self, purpose: str = "backup") -> Any:
        return load_signing_key(signing_pair()[0], self.cluster.signing.public_keys)

    def identities(self) -> Any:
        return parse_identities(age_pair()[0]) if self.has_identity else None

    def access_files(self) -> dict[str, bytes]:
        return {"ssh_key": SSH_KEY, "known_hosts": b"* ssh-ed25519 AAAA\n", "kubeconfig": KUBECONFIG}

    def leftovers(self) -> list[str]:
        """Return what lies in pods and spool, and unpublished in the repository."""
        in_pods = [path for member in self.members for path in member.files]
        in_spool = [str(path) for path in (self.folder / "spool").rglob("*") if path.is_file()]
        sets = (self.folder / "repository" / self.cluster.name).glob("2*")
        return [*in_pods, *in_spool, *(str(path) for path in sets if not (path / "manifest.json").exists())]

    # The steps of a run, as the operators make them.

    def discover(self) -> Discovery:
        return discover(self.api, self.cluster)

    def save(self, discovery: Discovery, *, attempt: int = 1) -> SavedSnapshot:
        return save_snapshot(self.api, self.cluster, discovery.candidates, BACKUP_ID, task="snapshot", attempt=attempt)

    def copy_out(self, discovery: Discovery, saved: SavedSnapshot, *, attempt: int = 1) -> CopiedSnapshot:
        spool = self.spool(BACKUP_ID)
        return copy_out(self.api, self.open_node, self.cluster, spool, discovery, saved, attempt=attempt)

    def fetch(self, discovery: Discovery) -> NodeFiles:
        if not self.cluster.control_plane.has_nodes:
            return NodeFiles()
        return fetch_node_files(self.open_node, self.cluster, self.spool(BACKUP_ID), discovery, self.access_files())

    def compose(self) -> Manifest:
        """Run everything up to the manifest."""
        discovery = self.discover()
        copied = self.copy_out(discovery, self.save(discovery))
        files = self.fetch(discovery)
        run = BackupRun(dag_id=f"backup__{self.cluster.name}", run_id="manual")
        key = public_key_text(self.signer().public_key())
        return compose_manifest(self.cluster, BACKUP_ID, run, discovery, copied, files, key)

    def publish(self, manifest: Manifest) -> Manifest:
        return publish(self.repository, self.spool(BACKUP_ID), transfer, manifest, self.signer())

    def clean_up(self, discovery: Discovery | None) -> int:
        spool, store = self.spool(BACKUP_ID), self.repository.store
        return clean_up(self.cluster, spool, store, discovery, lambda: self.api, self.open_node)

    def backup(self) -> BackupSet:
        """Run everything up to the published set."""
        manifest = self.publish(self.compose())
        return self.repository.get(manifest.cluster, manifest.backup_id)


def write_node(folder: Path, **replaced: bytes | None) -> dict[str, str]:
    """
    Write a control-plane node's files, and return the settings of ``control_plane`` that lead there.

    :param replaced: Archive name → other content, or None to leave the file out.
    """
    files: Mapping[str, bytes] = {
        **make_pki(datetime.now(UTC)),
        "manifests/kube-apiserver.yaml": APISERVER.encode(),
        "manifests/etcd.yaml": ETCD.encode(),
        **replaced,
    }
    for name, data in files.items():
        if data is not None:
            path = folder / "kubernetes" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o600)
    root = folder / "kubernetes"
    return {"pki_dir": f"{root}/pki", "manifests_dir": f"{root}/manifests", "admin_conf": f"{root}/admin.conf"}
