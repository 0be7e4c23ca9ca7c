"""``objects`` on what real programs made: etcd's own snapshots, the lab's cluster and backups."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.etcd import running_etcd
from tests.kubernetes_values import control_plane
from tests.object_snapshots import config_map
from tests.objects_command import objects

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lab import Site
    from tests.backup_run import BackupRun

NAMESPACE = "looked-into"
KEY = b"/registry/configmaps/shop/settings"


@pytest.fixture(scope="module")
def made_by_etcd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """A snapshot of recorded values, of an object with two lives, and the revisions of what happened to it."""
    folder = tmp_path_factory.mktemp("etcd")
    revisions = {}
    with running_etcd(folder / "data") as etcd:
        etcd.put_all((each.key, each.stored) for each in control_plane()[:100])
        etcd.put_all((each.key, each.stored) for each in control_plane()[100:])
        etcd.put(KEY, config_map("settings", uid="zero"))
        etcd.delete(KEY)
        revisions["first"] = etcd.put(KEY, config_map("settings", uid="first"))
        revisions["deleted"] = etcd.delete(KEY)
        revisions["second"] = etcd.put(KEY, config_map("settings", uid="second"))
        etcd.compact(revisions["first"])
        return etcd.snapshot(folder / "etcd.db"), revisions


def test_incarnations_in_a_snapshot_of_etcd(made_by_etcd: tuple[Path, dict[str, int]]) -> None:
    path, revisions = made_by_etcd
    place = ("get", path, "cm", "settings", "-n", "shop", "-o", "json")
    for life in ("first", "second"):
        found = json.loads(objects(*place, "--revision", revisions[life]))
        assert found["metadata"]["uid"] == life
        assert found["metadata"]["resourceVersion"] == str(revisions[life])
    assert json.loads(objects(*place))["metadata"]["uid"] == "second"
    assert "did not exist at revision" in objects(*place, "--revision", revisions["deleted"], code=1)
    assert f"reaches from revision {revisions['first']}" in objects(*place, "--revision", 4, code=1)
    rows = [line.split()[:2] for line in objects("history", path, "cm", "settings", "-n", "shop").splitlines()[1:4]]
    assert rows == [
        [str(revisions["first"]), "created"],
        [str(revisions["deleted"]), "deleted"],
        [str(revisions["second"]), "created"],
    ]
    listed = objects("list", path, "--other", "-o", "wide").splitlines()[1:]
    assert len(listed) == len(control_plane()) + 1


def test_backup_against_the_running_cluster(site: Site, start_run: Callable[..., BackupRun]) -> None:
    run = start_run("harbor")
    kubectl = site.clusters["harbor"].kubectl
    kubectl("create", "namespace", NAMESPACE)
    try:
        for name in ("kept", "changed", "removed", "recreated"):
            kubectl("-n", NAMESPACE, "create", "configmap", name, "--from-literal=a=1")
        stored = run.whole().name
        assert objects("diff", stored, "--live", "-n", NAMESPACE, "-o", "name") == ""
        changes = partial(_changes, stored)
        kubectl("-n", NAMESPACE, "delete", "configmap", "removed", "recreated")
        kubectl("-n", NAMESPACE, "create", "configmap", "recreated", "--from-literal=a=1")
        kubectl("-n", NAMESPACE, "create", "configmap", "added")
        kubectl("-n", NAMESPACE, "label", "configmap", "changed", "app=web")
        assert set(changes("name", "-k", "cm").splitlines()) == {
            f"+ configmap/added -n {NAMESPACE}",
            f"- configmap/removed -n {NAMESPACE}",
            f"~ configmap/changed -n {NAMESPACE}",
            f"! configmap/recreated -n {NAMESPACE}",
        }
        assert "+    app: web" in changes("diff")
        live = json.loads(
            kubectl("-n", NAMESPACE, "get", "configmap", "kept", "-o", "json", "--show-managed-fields").stdout
        )
        assert json.loads(objects("get", stored, "cm", "kept", "-n", NAMESPACE, "-o", "json")) == live
        assert "configmap/kept" in objects("list", stored, "-n", NAMESPACE, "-o", "name").splitlines()
    finally:
        kubectl("delete", "namespace", NAMESPACE)


def _changes(stored: str, output: str, *more: str) -> str:
    """Compare with the running cluster, which differs."""
    argv = (sys.executable, "-m", "etcdkeep", "objects", "diff", stored, "--live", "-n", NAMESPACE, "-o", output, *more)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    return done.stdout
