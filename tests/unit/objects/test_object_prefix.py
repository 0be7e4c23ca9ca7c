"""Clusters whose API server has another ``--etcd-prefix`` than ``/registry``."""

from __future__ import annotations

import pytest

from etcdkeep.objects.keys import clean_prefix, prefix_of
from etcdkeep.objects.prefix import archived_prefix
from tests.kubernetes_values import control_plane
from tests.object_snapshots import config_map, custom
from tests.snapshots import Put, make_records, make_snapshot, record_value, revision_key

MANIFEST = """\
apiVersion: v1
kind: Pod
spec:
  containers:
  - command: [kube-apiserver, "--etcd-servers=https://127.0.0.1:2379"{flag}]
"""


def moved(prefix):
    """The recorded values of a real control plane under another prefix."""
    puts = [
        (each.mod_revision, Put(prefix.encode() + each.key.removeprefix(b"/registry"), each.stored))
        for each in control_plane()
        if each.key.startswith(b"/registry/")
    ]
    return make_snapshot(sorted((revision_key(main), record_value(put, main)) for main, put in puts))


@pytest.fixture
def snapshot(tmp_path):
    """Write a snapshot of these puts."""

    def make(*puts):
        path = tmp_path / "etcd.db"
        path.write_bytes(make_snapshot(make_records(puts)))
        return path

    return make


@pytest.mark.parametrize("prefix", ["/k8s/prod", "/kubernetes.io", "/a/b/c/d", ""])
def test_every_key_of_a_control_plane_tells_its_prefix(prefix):
    told = {
        prefix_of(prefix.encode() + each.key.removeprefix(b"/registry"))
        for each in control_plane()
        if each.key.startswith(b"/registry/") and each.json is not None
    }
    assert told == {prefix, None}  # None: of custom kinds


@pytest.mark.parametrize("prefix", ["/k8s/prod", ""])
def test_the_prefix_is_found(tmp_path, run, prefix):
    path = tmp_path / "moved.db"
    path.write_bytes(moved(prefix))
    wanted = sorted((each for each in control_plane() if each.json is not None), key=lambda each: each.key)
    answer = run("list", path, "-o", "json")
    assert (answer.code, answer.err) == (0, "")
    assert answer.json["items"] == [each.json for each in wanted]
    assert len(run("list", path).rows) == len(wanted)
    assert run("list", path, "--prefix", prefix + "/").rows == run("list", path).rows
    assert run("get", path, "ns", "kube-system", "-o", "name").out == "namespace/kube-system\n"
    assert run("get", path, "onpremadmincluster", "gke-admin", "-o", "name").code == 0
    assert run("history", path, "ns", "kube-system").code == 0
    assert run("stats", path, "-o", "json").json["total"]["objects"] >= len(wanted)
    assert "Namespace" in run("recover", path, "-n", "shop", "--to", "-").out
    wrong = run("list", path, "--prefix", "/registry")
    assert (wrong.code, wrong.out) == (1, "")
    assert prefix in wrong.err
    assert "--prefix" in wrong.err


def test_several_prefixes_are_told_apart(snapshot, run):
    path = snapshot(
        Put(b"/k8s/dev/configmaps/shop/a", config_map("a")),
        Put(b"/k8s/prod/configmaps/shop/b", config_map("b")),
        Put(b"/k8s/prod/a.example/things/c", custom("a.example/v1", "Thing", "c")),
    )
    for command in (
        ("list", path),
        ("get", path, "cm", "a"),
        ("stats", path),
        ("recover", path, "-n", "shop", "--to", "-"),
    ):
        answer = run(*command)
        assert (answer.code, answer.out) == (2, "")
        assert "/k8s/dev (1 objects)" in answer.err
        assert "/k8s/prod (1 objects)" in answer.err
    assert run("list", path, "--prefix", "k8s/prod", "-o", "name").out == "thing.a.example/c\nconfigmap/b\n"
    assert "/k8s/dev (1)" in run("list", path, "--prefix", "k8s/prod").err


def test_a_prefix_beside_the_usual_one_is_said(snapshot, run):
    path = snapshot(
        Put(b"/other/secrets/shop/a", b"k8s:enc:kms:v2:x:1"),
        Put(b"/registry/configmaps/shop/b", config_map("b")),
    )
    answer = run("list", path, "-o", "name")
    assert (answer.code, answer.out) == (0, "configmap/b\n")
    assert "/other (1)" in answer.err
    assert run("list", path, "--prefix", "/other", "-o", "name").out == "secret/a\n"


def test_an_etcd_without_objects_is_no_empty_list(snapshot, run):
    path = snapshot(Put(b"/app/settings", b"x"), Put(b"/app/\x1b[1m", b"y"))
    for output in ((), ("-o", "json"), ("-o", "name"), ("-n", "shop")):
        answer = run("list", path, *output)
        assert (answer.code, answer.out) == (1, "")
        assert "2 keys" in answer.err
        assert "/app/settings" in answer.err
        assert "\x1b" not in answer.err
    assert run("list", path, "--other").code == 0


@pytest.mark.parametrize(
    ("flag", "prefix"),
    [('', None), (', "--etcd-prefix=/k8s/prod/"', "/k8s/prod"), (', "--etcd-prefix", "k8s"', "/k8s"), (', "--etcd-prefix=/"', "")],
)  # fmt: skip
def test_the_archived_manifest_tells_the_prefix(flag, prefix):
    path = "control-plane.tar.zst.age/etc/kubernetes/manifests/kube-apiserver.yaml"
    assert archived_prefix({path: MANIFEST.format(flag=flag).encode(), "x/kube-apiserver.yaml": b"{"}) == prefix


@pytest.mark.parametrize("written", ["k8s/prod", "/k8s/prod", "/k8s/prod/", "//k8s//prod"])
def test_ways_to_write_a_prefix(written):
    assert clean_prefix(written) == "/k8s/prod"
