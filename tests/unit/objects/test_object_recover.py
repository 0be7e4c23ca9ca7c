"""``objects recover``: clean manifests for kubectl, in order, and where Secrets may go."""

from __future__ import annotations

import pytest
import yaml

from tests.live_api import config_map, definition, named, owned_by, snapshot_of

DEPLOYMENT = named("Deployment", "web", "shop", "apps/v1", spec={"template": {"metadata": {}, "spec": {}}})
CLAIM = named("PersistentVolumeClaim", "data", "shop", spec={"volumeName": "pv-1"})
OBJECTS = [
    named("Pod", "web-1-a", "shop", metadata=owned_by(named("ReplicaSet", "web-1", "shop", "apps/v1")), spec={}),
    named("ReplicaSet", "web-1", "shop", "apps/v1", metadata=owned_by(DEPLOYMENT)),
    DEPLOYMENT,
    CLAIM,
    named("Widget", "gear", "shop", "shop.example.com/v1", spec={"size": 3}),
    definition("widgets", "Widget"),
    config_map("settings", color="blue", smile="\U0001f950"),
    named("Secret", "db", "shop", data={"password": "Y2FuYXJ5"}),
    named("Namespace", "shop", metadata={"labels": {"team": "shop"}}),
    config_map("elsewhere", "other"),
]


@pytest.fixture
def snapshot(tmp_path):
    path = tmp_path / "etcd.db"
    path.write_bytes(snapshot_of(OBJECTS))
    return path


def test_one_file_per_object_in_the_order_to_apply_them_in(run, snapshot, tmp_path):
    folder = tmp_path / "shop"
    answer = run("recover", snapshot, "-n", "shop", "--to", folder)
    assert answer.code == 0, answer.err
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        "1-namespace-shop.yaml",
        "2-customresourcedefinition-widgets.shop.example.com.yaml",
        "3-configmap-shop-settings.yaml",
        "4-secret-shop-db.yaml",
        "5-persistentvolumeclaim-shop-data.yaml",
        "6-deployment-shop-web.yaml",
        "7-widget-shop-gear.yaml",
    ]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert yaml.safe_load((folder / names[2]).read_text()) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings", "namespace": "shop"},
        "data": {"color": "blue", "smile": "\U0001f950"},
    }
    assert "dropped: spec.volumeName" in (folder / names[4]).read_text()
    assert "note: PersistentVolumeClaim shop/data: the data of volume pv-1 is not in etcd" in answer.err
    assert "left out: 1 Pod: ReplicaSet web-1 makes it" in answer.err
    assert "7 manifests in" in answer.err


def test_a_pipe_gets_one_stream(run, snapshot):
    answer = run("recover", snapshot, "-n", "shop", "-k", "cm,secret", "--to", "-")
    documents = list(yaml.safe_load_all(answer.out))
    assert [each["kind"] for each in documents] == ["Namespace", "ConfigMap", "Secret"]
    assert documents[2]["data"] == {"password": "Y2FuYXJ5"}


def test_a_terminal_gets_no_secret(run, snapshot, monkeypatch):
    monkeypatch.setattr("etcdkeep.cli.object_recover._is_terminal", lambda: True)
    answer = run("recover", snapshot, "-n", "shop", "--to", "-")
    assert (answer.code, answer.out) == (2, "")
    assert "1 Secret(s)" in answer.err
    answer = run("recover", snapshot, "-n", "shop", "-k", "cm", "--to", "-")
    assert "color: blue" in answer.out


def test_what_is_left_out_may_be_wanted(run, snapshot):
    answer = run("recover", snapshot, "-n", "shop", "-k", "po,rs", "--include-left-out", "--to", "-")
    kinds = [each["kind"] for each in yaml.safe_load_all(answer.out)]
    assert kinds == ["Namespace", "Pod", "ReplicaSet"]
    assert "left out" not in answer.err


def test_a_folder_that_holds_something_is_left_alone(run, snapshot, tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "mine").write_text("x")
    answer = run("recover", snapshot, "-n", "shop", "--to", tmp_path / "shop")
    assert answer.code == 1
    assert [path.name for path in (tmp_path / "shop").iterdir()] == ["mine"]


def test_everything_is_refused(run, snapshot, tmp_path):
    answer = run("recover", snapshot, "--to", tmp_path / "all")
    assert answer.code != 0
    assert "give a namespace, kinds, labels or a name" in answer.err
    assert not (tmp_path / "all").exists()


def test_what_is_not_shaped_like_its_kind_is_left_out(run, tmp_path):
    path = tmp_path / "etcd.db"
    odd = named("Pod", "odd", "shop", spec={"containers": ["x"], "volumes": [{"name": "v"}]})
    path.write_bytes(snapshot_of([odd, config_map("settings")]))
    answer = run("recover", path, "-n", "shop", "--to", "-")
    assert [each["kind"] for each in yaml.safe_load_all(answer.out)] == ["ConfigMap"]
    assert "Pod shop/odd is not shaped like a Pod" in answer.err
