"""A cluster to restore through the operators: machines for nodes, a real repository with a sealed and signed set."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from etcdkeep import naming
from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.errors import Unreachable
from etcdkeep.restore.report import RestoreReport
from etcdkeep.sealing.age_keys import parse_identities
from etcdkeep.sealing.seal import seal
from etcdkeep.sealing.signature import load_signing_key
from etcdkeep.sets.results import Verification
from tests.builders import age_pair, make_repository, signing_pair
from tests.unit.restore.builders import (
    PLANNED_AT,
    SNAPSHOT,
    keys_archive,
    make_artifact,
    make_cluster,
    make_facts,
    make_machine,
    make_manifest,
    node_names,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

    from tests.unit.restore.machine import Machine

GOOD = Verification(at=PLANNED_AT, levels=("stored", "sealed", "etcd", "pki", "drill"), complete=True, live_keys=5)


class RestoreSite:
    """What operators get from ``open_site``: the API is down, the nodes answer, one good set is in the repository."""

    def __init__(self, folder: Path, nodes: int = 1) -> None:
        self.cluster = make_cluster(
            age_recipients=[age_pair()[1]],
            signing={"public_keys": [signing_pair()[1]]},
            repository=f"file://{folder}",
            limits={"unreachable_s": 1},
        )
        self.repository = make_repository(DirectoryStore(folder))
        self.manifest = make_manifest(nodes, signing_key=signing_pair()[1])
        self.machines: dict[str, Machine] = {
            f"10.0.0.{index + 1}": make_machine(name) for index, name in enumerate(node_names(nodes))
        }
        self.facts = {name: make_facts(name, index) for index, name in enumerate(node_names(nodes))}
        self.knows_its_set = False
        self.report = RestoreReport((), (), 2_000_000_000, 5)
        self._publish(nodes)

    @property
    def api(self) -> Any:
        raise Unreachable("the API is down")

    @property
    def ssh(self) -> Any:
        return self.cluster.ssh

    def identities(self) -> Any:
        return parse_identities(age_pair()[0])

    def with_keys_of(self, found: Any) -> RestoreSite:
        """Nodes are opened only by a site that was told which set it has, or that the set is gone."""
        made = copy.copy(self)
        made.knows_its_set = True
        return made

    @contextmanager
    def open_node(self, address: str) -> Iterator[Machine]:
        assert self.knows_its_set, "with the API down, the SSH key comes from the set"
        yield self.machines[address]

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let operators find this site, with what a machine cannot be asked."""
        monkeypatch.setattr("etcdkeep_airflow.hooks.open_site", lambda cluster: self)
        monkeypatch.setattr("etcdkeep.restore.engine.RETRY_DELAY_S", 0)
        monkeypatch.setattr(
            "etcdkeep.restore.prepare.gather_node", lambda runner, cluster, node, address, member=None: self.facts[node]
        )
        monkeypatch.setattr("etcdkeep.restore.loss.find_databases", lambda nodes, open_node: [])
        monkeypatch.setattr("etcdkeep.restore.circumstances.certificates_expire", lambda *args: None)
        monkeypatch.setattr("etcdkeep_airflow.operators.restore.inspect", lambda *args, **more: self.report)

    def _publish(self, nodes: int) -> None:
        prefix = naming.set_prefix("prod", self.manifest.backup_id)
        store = self.repository.store
        contents = {"etcd.db.zst.age": SNAPSHOT} | {
            f"control-plane-{name}.tar.zst.age": keys_archive(name) for name in node_names(nodes)
        }
        for name, content in contents.items():
            with store.create(prefix + name) as sink:
                seal([content.encode()], sink, self.cluster.age_recipients)
            assert make_artifact(name, "etcd", content).plaintext in [
                each.plaintext for each in self.manifest.artifacts
            ]
        sizes = {artifact.name: store.stat(prefix + artifact.name) for artifact in self.manifest.artifacts}
        stored = [
            artifact.model_copy(
                update={"stored": artifact.stored.model_copy(update={"size_bytes": sizes[artifact.name].size_bytes})}
            )
            for artifact in self.manifest.artifacts
        ]
        self.manifest = self.manifest.model_copy(update={"artifacts": tuple(stored)})
        data = self.manifest.to_bytes()
        key = load_signing_key(signing_pair()[0], trusted=[signing_pair()[1]])
        for name, document in ((naming.SIGNATURE, key.sign(data)), (naming.MANIFEST, data)):
            with store.create(prefix + name) as sink:
                sink.write(document)
        self.repository.record(self.repository.get("prod", self.manifest.backup_id), GOOD)
