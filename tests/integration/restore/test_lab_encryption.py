"""Encryption at rest whose keys were exchanged after the backup: a restore brings back the keys that its data need."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from etcdkeep.errors import RequestRefused
from lab.waiting import wait_for
from tests.integration.restore.lab_restore import AS_BACKED_UP, SPOILED, LabRestore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lab import Site
    from lab.site import ClusterHandle
    from tests.integration.conftest import StartRun

FILE = "etc/kubernetes/enc/config.yaml"


def configuration(*names: str) -> str:
    keys = [{"name": name, "secret": base64.b64encode(name.ljust(32).encode()).decode()} for name in names]
    document = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration"}
    providers = [{"aescbc": {"keys": keys}}, {"identity": {}}]
    return yaml.safe_dump({**document, "resources": [{"resources": ["secrets"], "providers": providers}]})


@pytest.fixture
def rotate(site: Site) -> Iterator[Callable[..., Path]]:
    """Give harbor's API server these keys; after the test it seals nothing."""
    harbor = site.clusters["harbor"]
    manifest = harbor.node.root / "etc/kubernetes/manifests/kube-apiserver.yaml"
    file = harbor.node.root / FILE
    before = manifest.read_text()

    def change(*names: str) -> Path:
        file.parent.mkdir(exist_ok=True)
        file.write_text(configuration(*names))
        pod = yaml.safe_load(before)
        container = pod["spec"]["containers"][0]
        container["command"].append(f"--encryption-provider-config={harbor.node.view}/{FILE}")
        container["volumeMounts"].append({"name": "enc", "mountPath": f"{harbor.node.view}/etc/kubernetes/enc"})
        pod["spec"]["volumes"].append({"name": "enc", "hostPath": {"path": f"{harbor.node.view}/etc/kubernetes/enc"}})
        pod["metadata"].setdefault("annotations", {})["keys"] = ",".join(names)
        restart(harbor, manifest, yaml.safe_dump(pod, width=10_000))
        return file

    yield change
    harbor.etcdctl("del", "/lab/sealed-with")
    restart(harbor, manifest, before)
    file.unlink(missing_ok=True)


def restart(cluster: ClusterHandle, manifest: Path, text: str) -> None:
    manifest.rename(cluster.node.root / "tmp/kube-apiserver.yaml")
    wait_for(lambda: cluster.kubectl("get", "--raw=/readyz", check=False).returncode, "the API to be gone")
    manifest.write_text(text)
    wait_for(lambda: not cluster.kubectl("get", "--raw=/readyz", check=False).returncode, "the API to be back", 60)


def sentences(prepared: Any, severity: str) -> list[str]:
    return [each.sentence for each in prepared.findings if each.severity == severity and FILE in each.sentence]


def test_keys_that_were_exchanged_come_back_with_the_data_and_go_again(
    start_run: StartRun, rotate: Callable[..., Path]
) -> None:
    file = rotate("key1")
    restore = LabRestore(start_run("harbor", discovered=False))
    then = file.read_text()
    rotate("key2", "key1")
    rotate("key2")
    now = file.read_text()

    alone = restore.prepare(what=("etcd",))
    (sentence,) = sentences(alone, "blocking problem")
    assert "does not have the key(s) aescbc 'key1'" in sentence
    with pytest.raises(RequestRefused):
        alone.plan_to_approve("harbor", override=False)

    prepared = restore.prepare()
    assert sentences(prepared, "blocking problem") == []
    (shown,) = sentences(prepared, "warning")
    assert "keys that come back: aescbc 'key1'" in shown
    assert "keys that are set aside: aescbc 'key2'" in shown
    assert prepared.plan is not None
    with restore.engine(prepared.plan) as engine:
        engine.walk()
        restore.expect(AS_BACKED_UP)
        assert file.read_text() == then
        engine.roll_back()
        restore.expect(SPOILED)
        assert file.read_text() == now
