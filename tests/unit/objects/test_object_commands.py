"""``objects`` on plain snapshot files: the right incarnation, selections, outputs, exit codes."""

from __future__ import annotations

import pytest
import yaml
from nacl.secret import SecretBox

from etcdkeep.objects.keys import parse_key
from tests.kubernetes_values import control_plane
from tests.object_snapshots import config_map, custom, recorded_snapshot, secret
from tests.snapshots import Bump, Delete, Put, etcd_buckets, make_records, make_snapshot

KEY = b"/registry/configmaps/shop/settings"
SECRET_KEY = b"k" * 32
ENCRYPTION = """\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - secretbox: {keys: [{name: key1, secret: a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=}]}
  - identity: {}
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A snapshot of what a real control plane stored."""
    path = tmp_path_factory.mktemp("real") / "real.db"
    path.write_bytes(recorded_snapshot())
    return path


@pytest.fixture
def snapshot(tmp_path):
    """Write a snapshot of these transactions, revision 2 on; `compacted` as for :func:`etcd_buckets`."""

    def make(*changes, name="etcd.db", compacted=0):
        path = tmp_path / name
        path.write_bytes(make_snapshot(buckets=etcd_buckets(make_records(changes), compacted=compacted)))
        return path

    return make


def lives(*more):
    """Made at revision 2, changed at 3, deleted at 4, made anew at 5, changed at 6."""
    return (
        Put(KEY, config_map("settings", uid="first")),
        Put(KEY, config_map("settings", uid="first", labels={"app": "web"}), create=2, version=2),
        Delete(KEY),
        Put(KEY, config_map("settings", uid="second")),
        Put(KEY, config_map("settings", uid="second", labels={"app": "db"}), create=5, version=2),
        *more,
    )


def test_json_list_is_what_the_api_server_gave(real, run):
    answer = run("list", real, "-o", "json")
    assert (answer.code, answer.err) == (0, "")
    assert (answer.json["apiVersion"], answer.json["kind"]) == ("v1", "List")
    wanted = [each.json for each in sorted(control_plane(), key=lambda each: each.key) if each.json is not None]
    assert answer.json["items"] == wanted


def test_yaml_list_has_the_same_values(real, run):
    listed = yaml.load(run("list", real, "-n", "shop", "-o", "yaml").out, yaml.CSafeLoader)
    assert listed["items"] == run("list", real, "-n", "shop", "-o", "json").json["items"]


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_empty_list(real, run, output):
    answer = run("list", real, "-n", "nowhere", "-o", output)
    assert (answer.code, yaml.safe_load(answer.out)["items"]) == (0, [])


def test_every_object_of_a_real_control_plane_can_be_got(real, run):
    for each in control_plane():
        if each.json is not None and parse_key(each.key).name.endswith(("0", "s")):
            place = parse_key(each.key)
            kind = f"{place.resource}.{place.group}" if place.group else place.resource
            assert run("get", real, kind, place.name, "-n", place.namespace, "-o", "json").json == each.json


@pytest.mark.parametrize(
    ("kinds", "found"),
    [
        pytest.param(["pod"], {"Pod"}, id="singular"),
        pytest.param(["Pods"], {"Pod"}, id="any case"),
        pytest.param(["po,svc"], {"Pod", "Service"}, id="short names"),
        pytest.param(["po", "-k", "cm"], {"Pod", "ConfigMap"}, id="several"),
        pytest.param(["deployments.apps"], {"Deployment"}, id="with group"),
        pytest.param(["Deployment.apps"], {"Deployment"}, id="kind with group"),
        pytest.param(["no"], {"Node"}, id="stored under another name"),
        pytest.param(["crd"], {"CustomResourceDefinition"}, id="crd"),
        pytest.param(["onpremadminclusters"], {"OnPremAdminCluster"}, id="custom"),
        pytest.param(["clusters.cluster.k8s.io"], {"Cluster"}, id="custom with group"),
        pytest.param(["ev"], {"Event"}, id="events"),
        pytest.param(["events.events.k8s.io"], {"Event"}, id="the other group of events"),
        pytest.param(["podtemplates"], set(), id="none of a known kind"),
    ],
)
def test_kinds(real, run, kinds, found):
    answer = run("list", real, "-k", *kinds, "-o", "json")
    assert answer.code == 0
    assert {item["kind"] for item in answer.json["items"]} == found


def test_unknown_kind_names_near_ones(real, run):
    answer = run("list", real, "-k", "deploymnets")
    assert answer.code == 1
    assert "no kind 'deploymnets'" in answer.err
    assert "deployments" in answer.err


def test_ambiguous_kind_names_the_candidates(snapshot, run):
    path = snapshot(
        Put(b"/registry/a.example/clusters/x", custom("a.example/v1", "Cluster", "x")),
        Put(b"/registry/b.example/clusters/y", custom("b.example/v1", "Cluster", "y")),
        Put(b"/registry/c.example/services/z", custom("c.example/v1", "Service", "z")),
        Put(b"/registry/services/specs/shop/web", b"k8s\0\n\r\n\x02v1\x12\x07Service\x12\0"),
    )
    for command in (("list", path, "-k", "cluster"), ("get", path, "cluster", "x")):
        answer = run(*command)
        assert answer.code == 1
        assert "clusters.a.example, clusters.b.example" in answer.err
    assert run("list", path, "-k", "clusters.b.example", "-o", "name").out == "cluster.b.example/y\n"
    assert run("get", path, "cluster.a.example", "x", "-o", "name").out == "cluster.a.example/x\n"
    assert run("list", path, "-k", "service", "-o", "name").out == "service/web\n"


def test_keys_without_an_object_show_when_asked_for(real, run):
    others = [each.key.decode() for each in control_plane() if each.json is None]
    assert others
    without, with_others = (run("list", real, *more, "-o", "name").out.splitlines() for more in ((), ("--other",)))
    assert with_others == [*without, *sorted(others)]
    assert "which service addresses or node ports are taken" in run("list", real, "--other", "-o", "wide").out


def test_odd_keys_and_values_are_listed_by_key(snapshot, run):
    unreadable = {
        b"/registry/configmaps/shop/a": b"",
        b"/registry/configmaps/shop/b": b"k8s\0",
        b"/registry/configmaps/shop/c": b"k8s\0\n\xff\xff",
        b"/registry/configmaps/shop/d": b"{",
        b"/registry/configmaps/shop/e": b'{"kind":1}',
        b"/registry/configmaps/shop/f": b"\xd9\xd9\xf7\xff",
        b"/registry/configmaps/\x1b[31m/\xff": b"x",
    }
    no_object = {
        b"/other": b"x",
        b"\xff\xfe": b"k8s\0\n\x02\n\0",
        b"/" + b"k" * 40_000: b"x",
    }
    odd = unreadable | no_object
    path = snapshot(*(Put(key, value) for key, value in odd.items()))
    answer = run("list", path)
    assert answer.code == 3
    assert [row[1] for row in answer.rows] == ["ConfigMap"] * len(unreadable)
    assert all(f"/registry/configmaps/shop/{name}'" in answer.err for name in "abcdef")
    assert "\x1b" not in answer.out + answer.err
    listed = run("list", path, "--other", "-o", "name").out
    assert len(listed.splitlines()) == len(odd)
    assert "\x1b" not in listed


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("app=web", ["a", "ab"]),
        ("app==web,!tier", ["a"]),
        ("app!=web", ["b", "c"]),
        ("app in (web, db)", ["a", "ab", "b"]),
        ("app notin (web,db)", ["c"]),
        ("tier", ["ab"]),
        ("!app", ["c"]),
        ("tier>3", ["ab"]),
        ("tier<3", []),
        ("app=web,tier in (5)", ["ab"]),
        ("", ["a", "ab", "b", "c"]),
    ],
)
def test_labels(snapshot, run, selector, names):
    labels = {"a": {"app": "web"}, "ab": {"app": "web", "tier": "5"}, "b": {"app": "db"}, "c": {}}
    puts = [Put(b"/registry/configmaps/shop/" + n.encode(), config_map(n, labels=each)) for n, each in labels.items()]
    listed = run("list", snapshot(*puts), "-l", selector)
    assert (listed.code, [row[2] for row in listed.rows]) == (0, names)


def test_labels_of_json_and_of_namespaces(real, run):
    named = run("list", real, "-k", "ns", "-l", "kubernetes.io/metadata.name=shop", "-o", "name")
    assert named.out == "namespace/shop\n"
    services = run("list", real, "-k", "apiservices", "-l", "kube-aggregator.kubernetes.io/automanaged", "-o", "name")
    assert services.out


@pytest.mark.parametrize("selector", ["app=(", "a b", "in (a)", "app in a", "tier>x", "a=b c=d", "app in (a b)", "-a"])
def test_what_is_no_selector_is_wrong_usage(real, run, selector):
    answer = run("list", real, "-l", selector)
    assert answer.code == 2
    assert "label" in answer.err or "number" in answer.err


def test_name_and_namespace(real, run):
    named = run("list", real, "-n", "shop", "-k", "po", "--name", "web-*", "-o", "name").out
    assert named
    assert all(name.startswith("pod/web-") for name in named.splitlines())


def test_state_at_each_revision(snapshot, run):
    path = snapshot(*lives())
    uids = {
        revision: [
            item["metadata"]["uid"] for item in run("list", path, "-o", "json", "--revision", revision).json["items"]
        ]
        for revision in range(2, 7)
    }
    assert uids == {2: ["first"], 3: ["first"], 4: [], 5: ["second"], 6: ["second"]}
    shown = [run("get", path, "cm", "settings", "-n", "shop", "-o", "json", "--revision", r).json for r in (2, 3, 5, 6)]
    assert [each["metadata"]["resourceVersion"] for each in shown] == ["2", "3", "5", "6"]
    assert [each["metadata"].get("labels") for each in shown] == [None, {"app": "web"}, None, {"app": "db"}]
    assert run("get", path, "cm", "settings", "-n", "shop", "-o", "json").json == shown[-1]


def test_object_that_did_not_exist_then_says_when_it_did(snapshot, run):
    answer = run("get", snapshot(*lives()), "cm", "settings", "-n", "shop", "--revision", "4")
    assert answer.code == 1
    assert "at revision 4" in answer.err
    assert "2 to 3, from 5 on" in answer.err


def test_deleted_object_says_when_it_was(snapshot, run):
    answer = run("get", snapshot(*lives(Delete(KEY))), "cm", "settings", "-n", "shop")
    assert answer.code == 1
    assert "2 to 3, 5 to 6" in answer.err


@pytest.mark.parametrize("command", [("list",), ("get", "cm", "settings", "-n", "shop")], ids=["list", "get"])
@pytest.mark.parametrize("revision", [4, 99])
def test_revision_out_of_reach_names_the_oldest(snapshot, run, command, revision):
    path = snapshot(*lives()[4:], Put(KEY, b"x"), compacted=5)
    path = snapshot(Put(b"/a", b""), Put(b"/b", b""), Put(b"/c", b""), *lives()[3:], compacted=5)
    answer = run(command[0], path, *command[1:], "--revision", revision)
    assert answer.code == 1
    assert f"no state at revision {revision}: it reaches from revision 5 to 6" in answer.err


def test_revision_bump_is_tolerated(snapshot, run):
    path = snapshot(*lives(), Bump(1_000_000), Put(b"/registry/configmaps/shop/b", config_map("b")))
    assert run("list", path, "-o", "name").out.splitlines() == ["configmap/b", "configmap/settings"]
    assert run("list", path, "-o", "name", "--revision", 500_000).out == "configmap/settings\n"
    assert len(run("history", path, "cm", "settings", "-n", "shop").rows) == 5


def test_history_tells_incarnations_apart(snapshot, run):
    path = snapshot(*lives(Delete(KEY)))
    rows = run("history", path, "cm", "settings", "-n", "shop").rows
    assert [row[:3] for row in rows] == [
        ["2", "created", "first"],
        ["3", "changed", "first"],
        ["4", "deleted", "-"],
        ["5", "created", "second"],
        ["6", "changed", "second"],
        ["7", "deleted", "-"],
    ]
    assert rows[1][4] == "metadata.labels"
    whole = run("history", path, "cm", "settings", "-n", "shop", "-o", "json").json
    assert [each["object"] and each["object"]["metadata"]["uid"] for each in whole] == ["first", "first", None, "second", "second", None]  # fmt: skip


def test_history_behind_a_compaction_says_so(snapshot, run):
    path = snapshot(Put(b"/a", b""), Put(KEY, config_map("settings"), create=2, version=2), compacted=3)
    answer = run("history", path, "cm", "settings", "-n", "shop")
    assert [row[:2] for row in answer.rows[:1]] == [["3", "was"]]
    assert "compacted at revision 3" in answer.out


def test_not_found_names_what_is_near(real, run):
    answer = run("get", real, "po", "standalon", "-n", "shop")
    assert answer.code == 1
    assert "near: shop/standalone" in answer.err
    answer = run("get", real, "po", "standalone")
    assert answer.code == 1
    assert "no po default/standalone" in answer.err
    assert "near: shop/standalone" in answer.err


def test_custom_kind_by_its_name_alone(real, run):
    assert run("get", real, "OnPremAdminCluster", "gke-admin", "-o", "name").out == (
        "onpremadmincluster.onprem.cluster.gke.io/gke-admin\n"
    )


def sealed(name, **data):
    clear = secret(name, **data)
    return b"k8s:enc:secretbox:v1:key1:" + SecretBox(SECRET_KEY).encrypt(clear)


def test_encrypted_values(snapshot, run, tmp_path):
    config = tmp_path / "encryption.yaml"
    config.write_text(ENCRYPTION.replace("a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=", _base64(SECRET_KEY)))
    path = snapshot(
        Put(b"/registry/secrets/shop/a", sealed("a", token=b"canary")),
        Put(b"/registry/configmaps/shop/b", config_map("b")),
        Put(b"/registry/x.example/things/c", b"k8s:enc:secretbox:v1:key1:x"),
    )
    assert [row[1] for row in run("list", path).rows] == ["ConfigMap", "Secret", "things.x.example"]
    found = run("get", path, "secret", "a", "-n", "shop", "-o", "json", "--encryption-config", config)
    assert found.json["data"] == {"token": "Y2FuYXJ5"}
    without = run("list", path, "-k", "secret,cm", "-o", "json")
    assert (without.code, [item["kind"] for item in without.json["items"]]) == (3, ["ConfigMap"])
    assert "secretbox" in without.err
    assert run("get", path, "secret", "a", "-n", "shop").code == 3
    assert run("list", path, "-k", "secret", "-l", "!app", "--encryption-config", config).code == 0


def _base64(data):
    import base64

    return base64.b64encode(data).decode()


def test_damaged_value_is_left_out_and_ends_with_3(snapshot, run):
    path = snapshot(
        Put(b"/registry/configmaps/shop/a", config_map("a")[:-3]),
        Put(b"/registry/configmaps/shop/b", config_map("b")),
    )
    answer = run("list", path, "-o", "json")
    assert (answer.code, [item["metadata"]["name"] for item in answer.json["items"]]) == (3, ["b"])
    assert "/registry/configmaps/shop/a" in answer.err
    assert run("get", path, "cm", "a", "-n", "shop").code == 3


@pytest.mark.parametrize("value", [b"\0" * 60, b"", config_map("a")[:20]], ids=["zeros", "empty", "cut"])
def test_a_damaged_value_is_never_called_a_good_name(snapshot, run, value):
    path = snapshot(Put(b"/registry/configmaps/shop/a", value), Put(b"/registry/configmaps/shop/b", config_map("b")))
    for args in (("get", path, "cm", "a", "-n", "shop", "-o", "name"), ("list", path), ("list", path, "-o", "name")):
        answer = run(*args)
        assert answer.code == 3
        assert "configmap/a" in answer.out.split() or "a" in [row[2] for row in answer.rows if len(row) > 2]
        assert "/registry/configmaps/shop/a" in answer.err


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", 2), (b"no snapshot", 2), (recorded_snapshot()[:40_000], 3)],
    ids=["empty", "text", "cut off"],
)
def test_bad_files(run, tmp_path, content, code):
    path = tmp_path / "bad.db"
    path.write_bytes(content)
    assert run("list", path).code == code


def test_missing_file_and_wrong_version(run, tmp_path, real):
    assert run("list", tmp_path / "missing.db").code == 2
    assert run("get", real, "ns", "shop", "--kubernetes", "new").code == 2
    assert run("get", real, "ns", "shop", "--kubernetes", "v1.30.4-gke.100").code == 0


def test_diff_of_two_files(snapshot, run):
    puts = {name: Put(b"/registry/configmaps/shop/" + name.encode(), config_map(name)) for name in "abcd"}
    before = snapshot(*puts.values(), name="before.db")
    after = snapshot(
        *puts.values(),
        Delete(puts["a"].key),
        Put(puts["b"].key, config_map("b", labels={"app": "web"}), create=3, version=2),
        Delete(puts["c"].key),
        Put(puts["c"].key, config_map("c", uid="second")),
        Put(puts["d"].key, config_map("d"), create=5, version=2),
        Put(b"/registry/configmaps/shop/e", config_map("e")),
        name="after.db",
    )
    names = run("diff", before, after, "-o", "name").out.splitlines()
    assert names == [f"{sign} configmap/{name} -n shop" for sign, name in ("-a", "~b", "!c", "+e")]
    rows = run("diff", before, after).rows
    assert rows[1] == ["~", "changed", "shop", "ConfigMap", "b", "3", "7"]
    whole = run("diff", before, after, "-o", "json").json
    assert [(each["change"], each["before"], each["after"]) for each in whole] == [
        ("removed", 2, None),
        ("changed", 3, 7),
        ("recreated", 4, 9),
        ("added", None, 11),
    ]
    text = run("diff", before, after, "-o", "diff").out
    assert "+    app: web" in text
    assert run("diff", before, after, "-l", "app=web", "-o", "name").out == "~ configmap/b -n shop\n"
    assert run("diff", before, after, "-k", "pods", "-o", "name").out == ""
    assert run("diff", before, before).err == "nothing differs\n"


def test_diff_finds_a_custom_kind_that_one_side_lacks(snapshot, run):
    before = snapshot(Put(b"/a", b"x"), name="before.db")
    after = snapshot(Put(b"/registry/a.example/things/x", custom("a.example/v1", "Thing", "x")), name="after.db")
    assert run("diff", before, after, "-k", "thing", "-o", "name").out == "+ thing.a.example/x\n"


@pytest.mark.parametrize("args", [(), ("other", "--live"), ("other", "--cluster", "x")])
def test_diff_needs_exactly_two_states(real, run, args):
    assert run("diff", real, *args).code == 2


def test_diff_with_the_cluster_needs_its_name_for_a_file(real, run):
    answer = run("diff", real, "--live")
    assert answer.code == 2
    assert "--cluster" in answer.err


def test_stats(snapshot, run):
    path = snapshot(
        Put(b"/registry/configmaps/shop/a", config_map("a")),
        Put(b"/registry/configmaps/web/b", config_map("b", "web", uid="u" * 500)),
        Put(b"/registry/minions/n", b'{"apiVersion":"v1","kind":"Node","metadata":{}}'),
        Put(b"compact_rev_key", b"5"),
    )
    found = run("stats", path, "-o", "json").json
    assert {share["name"]: share["objects"] for share in found["kinds"]} == {"configmaps": 2, "nodes": 1, "other": 1}
    assert {share["name"]: share["objects"] for share in found["namespaces"]} == {"shop": 1, "web": 1, "": 2}
    assert found["largest"][0]["name"] == "b"
    assert found["total"]["objects"] == 4
    assert found["total"]["size_bytes"] == sum(share["size_bytes"] for share in found["kinds"])
    assert "LARGEST" in run("stats", path).out
