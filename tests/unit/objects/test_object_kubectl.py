"""``objects`` where people expect what kubectl does."""

from __future__ import annotations

import json

import pytest
import yaml

from etcdkeep.objects.age import age, duration
from etcdkeep.objects.jsonpath import find, parse_path, parse_template, render
from tests.object_snapshots import config_map, custom, recorded_snapshot
from tests.snapshots import Put, make_records, make_snapshot

POD = {
    "metadata": {"name": "web", "labels": {"app.kubernetes.io/name": "shop"}},
    "spec": {
        "containers": [
            {"name": "a", "image": "x:1", "ports": [{"containerPort": 80}]},
            {"name": "b", "image": "y:2", "ready": True},
        ]
    },
}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A snapshot of what a real control plane stored."""
    path = tmp_path_factory.mktemp("real") / "real.db"
    path.write_bytes(recorded_snapshot())
    return path


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Two namespaces with ConfigMaps, and a custom kind."""
    puts = [
        Put(b"/registry/configmaps/default/c", config_map("c", "default", labels={"app": "web", "tier": "2"})),
        Put(b"/registry/configmaps/shop/b", config_map("b")),
        Put(b"/registry/configmaps/shop/a", config_map("a", labels={"app": "db"})),
        Put(b"/registry/configmaps/shop/bad", b"\0"),
        Put(b"/registry/a.example/things/x", custom("a.example/v1", "Thing", "x", size=10)),
        Put(b"/registry/a.example/things/y", custom("a.example/v1", "Thing", "y", size=9)),
    ]
    path = tmp_path_factory.mktemp("shop") / "shop.db"
    path.write_bytes(make_snapshot(make_records(puts)))
    return path


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{.metadata.name}", "web"),
        ("{$.metadata.name}", "web"),
        ("name={.metadata.name}, {.nothing}.", "name=web, ."),
        (r"{.metadata.labels.app\.kubernetes\.io/name}", "shop"),
        ("{.metadata.labels['app.kubernetes.io/name']}", "shop"),
        ("{.spec.containers[*].name}", "a b"),
        ("{.spec.containers[0].image}{.spec.containers[-1].image}", "x:1y:2"),
        ("{.spec.containers[0:1].name}", "a"),
        ("{.spec.containers[::2].name}", "a"),
        ("{.spec.containers[0,1].name}", "a b"),
        ("{.spec.containers[9].name}", ""),
        ('{range .spec.containers[*]}{.name}{"\\t"}{.image}{"\\n"}{end}', "a\tx:1\nb\ty:2\n"),
        ('{.spec.containers[?(@.name=="b")].image}', "y:2"),
        ("{.spec.containers[?(@.name!='b')].image}", "x:1"),
        ("{.spec.containers[?(@.ready)].name}", "b"),
        ("{.spec.containers[?(@.ready==true)].name}", "b"),
        ("{.spec.containers[*].ports[?(@.containerPort>=80)].containerPort}", "80"),
        ("{..containerPort}", "80"),
        ("{.spec.containers[*]['name','image']}", "a b x:1 y:2"),
        ("{.spec.containers[*]['name', 'ports[0].containerPort']}", "a b 80"),
        (r"{.metadata.labels['app\.kubernetes\.io/name']}", "shop"),
        ("{.spec.containers[0].ports}", '[{"containerPort":80}]'),
        ("{.metadata.*}", 'web {"app.kubernetes.io/name":"shop"}'),
    ],
)
def test_jsonpath(template, text):
    assert render(parse_template(template), POD) == text


@pytest.mark.parametrize(
    "template", ["{.a", "a}", "{end}", "{range .a}", "{.a[}", "{.a[?(@.b==x)]}", "{.a b}", "{.a[]}"]
)
def test_what_is_no_jsonpath(template):
    with pytest.raises(ValueError, match=r"\S"):
        parse_template(template)


@pytest.mark.parametrize("path", [".metadata.name", "metadata.name", "{.metadata.name}", "$.metadata.name"])
def test_ways_to_write_a_path(path):
    assert find(parse_path(path), POD) == ["web"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (119, "119s"), (120, "2m"), (130, "2m10s"), (600, "10m"), (10799, "179m"), (10800, "3h"), (11000, "3h3m"),
        (28800, "8h"), (172799, "47h"), (172800, "2d"), (180000, "2d2h"), (8 * 86400, "8d"), (729 * 86400, "729d"),
        (730 * 86400, "2y"), (800 * 86400, "2y70d"), (9 * 365 * 86400, "9y"),
    ],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_ages():
    from datetime import UTC, datetime

    now = datetime(2026, 11, 26, 12, tzinfo=UTC)
    assert age("2026-11-26T11:00:00Z", now) == "60m"
    assert age(None, now) == age("soon", now) == "<unknown>"


def test_names_and_kinds_as_kubectl_takes_them(shop, run):
    one = run("get", shop, "cm", "a", "-n", "shop", "-o", "json").json
    assert run("get", shop, "cm/a", "-n", "shop", "-o", "json").json == one
    assert run("get", shop, "configmaps.v1./a", "-n", "shop", "-o", "json").json == one
    for words in (("cm", "a", "b"), ("cm/a", "configmap/b")):
        answer = run("get", shop, *words, "-n", "shop", "-o", "json")
        assert (answer.code, answer.json["kind"]) == (0, "List")
        assert [item["metadata"]["name"] for item in answer.json["items"]] == ["a", "b"]
    assert run("get", shop, "cm/a", "thing/x", "-n", "shop", "-o", "name").out == "configmap/a\nthing.a.example/x\n"
    assert len(yaml.safe_load(run("get", shop, "cm", "a", "b", "-n", "shop").out)["items"]) == 2
    assert run("history", shop, "cm/a", "-n", "shop").code == 0


@pytest.mark.parametrize(
    "words", [("cm/a", "b"), ("cm/",), ("/a",), ("cm/a/b",), ("cm", "a", "-A"), ("cm", "a", "-l", "app=web")]
)
def test_words_that_do_not_go_together(shop, run, words):
    assert run("get", shop, *words).code == 2


def test_several_names_of_which_some_are_missing(shop, run):
    answer = run("get", shop, "cm", "a", "missing", "-n", "shop", "-o", "name")
    assert (answer.code, answer.out) == (1, "configmap/a\n")
    assert "missing" in answer.err


def test_a_kind_is_a_table(shop, run):
    assert run("get", shop, "cm").out.splitlines()[0].split() == ["NAMESPACE", "NAME", "AGE"]
    assert run("get", shop, "cm").rows == [["default", "c", "<unknown>"]]
    whole = run("get", shop, "cm", "-A")
    assert (whole.code, [row[1] for row in whole.rows]) == (3, ["c", "a", "b", "bad"])
    assert "/registry/configmaps/shop/bad" in whole.err
    assert [row[0] for row in run("get", shop, "things").rows] == ["x", "y"]
    assert [row[1] for row in run("get", shop, "cm,things", "-n", "default").rows] == [
        "configmap/c",
        "thing.a.example/x",
        "thing.a.example/y",
    ] or [row[1] for row in run("get", shop, "cm,things").rows][-1] == "configmap/c"
    assert run("get", shop, "cm", "-o", "json").json["items"][0]["metadata"]["name"] == "c"
    wide = run("get", shop, "cm", "-o", "wide").out
    assert "/registry/configmaps/default/c" in wide
    assert "API VERSION" in wide


def test_ages_are_shown(real, run):
    ages = [row[1] for row in run("get", real, "nodes").rows]
    assert ages
    assert all(each[:1].isdigit() for each in ages)


def test_labels_are_shown(shop, run):
    assert run("get", shop, "cm", "--show-labels").rows == [["default", "c", "<unknown>", "app=web,tier=2"]]
    answer = run("list", shop, "-n", "shop", "--show-labels")
    assert answer.code == 3
    assert {row[2]: row[5] for row in answer.rows if row[2] != "bad"} == {"a": "app=db", "b": "<none>"}


def test_order_by_a_field(shop, run):
    names = run("list", shop, "-k", "thing", "--sort-by", ".spec.size", "-o", "name").out.split()
    assert names == ["thing.a.example/y", "thing.a.example/x"]
    assert [row[0] for row in run("get", shop, "thing", "--sort-by", "{.spec.size}").rows] == ["y", "x"]
    everything = run("list", shop, "--sort-by", "metadata.name")
    assert (everything.code, [row[2] for row in everything.rows]) == (3, ["a", "b", "c", "x", "y", "bad"])
    assert run("list", shop, "--sort-by", ".a[").code == 2
    mistyped = run("get", shop, "thing", "--sort-by", ".spec.szie")
    assert mistyped.code == 1
    assert "no object of this list has such a field" in mistyped.err


def test_names_with_numbers_sort_as_people_count(tmp_path, run):
    names = ("web-10", "web-9", "web", "db-1")
    path = tmp_path / "numbers.db"
    puts = [Put(b"/registry/configmaps/shop/%s" % name.encode(), config_map(name)) for name in names]
    path.write_bytes(make_snapshot(make_records(puts)))
    sorted_names = run("get", path, "cm", "-n", "shop", "--sort-by", ".metadata.name", "-o", "name").out.split()
    assert sorted_names == [f"configmap/{name}" for name in ("db-1", "web", "web-9", "web-10")]


def test_namespaces(shop, run):
    both = run("list", shop, "-n", "default,shop", "-o", "name")
    assert set(both.out.split()) == {"configmap/a", "configmap/b", "configmap/c", "configmap/bad"}
    assert run("list", shop, "-A", "-o", "name").out == run("list", shop, "-o", "name").out


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("metadata.name=a", ["a"]),
        ("metadata.name==a,metadata.namespace=shop", ["a"]),
        ("metadata.namespace!=shop,metadata.namespace!=", ["c"]),
        ("metadata.name=nothing", []),
    ],
)
def test_field_selectors(shop, run, selector, names):
    assert [
        line.partition("/")[2] for line in run("list", shop, "--field-selector", selector, "-o", "name").out.split()
    ] == names
    if names:
        assert run("recover", shop, "--field-selector", selector, "--to", "-").out.count("kind: ConfigMap") == len(
            names
        )


def test_field_selectors_of_other_fields_are_refused_by_name(shop, run):
    answer = run("list", shop, "--field-selector", "status.phase=Running")
    assert answer.code == 2
    assert "status.phase=Running" in answer.err


def test_jsonpath_of_lists_and_objects(shop, run):
    assert run("list", shop, "-k", "thing", "-o", "jsonpath={.items[*].spec.size}").out == "10 9"
    assert run("get", shop, "thing", "x", "-o", "jsonpath={.spec.size}").out == "10"
    assert run("get", shop, "thing", "-o", 'jsonpath={range .items[*]}{.metadata.name}{"\\n"}{end}').out == "x\ny\n"
    assert run("get", shop, "thing", "x", "-o", "jsonpath={.spec").code == 2
    assert run("get", shop, "thing", "x", "-o", "xml").code == 2


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("list", "-n", "shpo"), "No resources found in shpo namespace. There is namespace shop."),
        (("list", "-n", "nowhere", "-k", "cm"), "No resources found in nowhere namespace."),
        (("list", "-l", "app=none", "-k", "thing"), "No resources found"),
        (("get", "cm", "-n", "nowhere"), "No resources found in nowhere namespace."),
        (("get", "secrets", "-A"), "No resources found"),
        (("get", "secrets"), "No resources found in default namespace."),
    ],
)
def test_nothing_found_is_said(shop, run, command, words):
    answer = run(command[0], shop, *command[1:])
    assert (answer.code, answer.out, answer.err.strip()) == (0, "", words)
    listed = run(command[0], shop, *command[1:], "-o", "json")
    assert (listed.code, json.loads(listed.out)["items"]) == (0, [])


@pytest.mark.parametrize(
    "kind", ["deployments.v1.apps", "Deployment.v1.apps", "deploy.v1beta2.apps", "deployments.apps"]
)
def test_versions_in_kinds(real, run, kind):
    assert run("list", real, "-k", kind, "-o", "name").out.startswith("deployment.apps/")


def test_diff_ends_with_1_when_things_differ(shop, real, run):
    assert run("diff", real, real).code == 0
    for output in ((), ("-o", "name"), ("-o", "json"), ("-o", "diff")):
        assert run("diff", real, shop, "-n", "default", "-k", "cm", *output).code == 1


def test_a_path_that_does_not_exist_is_called_that(tmp_path, run):
    answer = run("list", tmp_path / "nothing.db")
    assert answer.code == 2
    assert "No such file" in answer.err
