"""Values that cannot be read: named, never gone, and no trouble for the others."""

from __future__ import annotations

import json

import pytest
import yaml

from etcdkeep.objects.decoding import exact_json, schema
from etcdkeep.objects.decoding.shape import check_shape
from tests.kubernetes_values import control_plane, vectors
from tests.object_snapshots import config_map, custom
from tests.snapshots import Put, etcd_buckets, make_records, make_snapshot

HEAD = b'{"apiVersion":"a.example/v1","kind":"Thing","metadata":{"name":"bad","namespace":"shop"},"spec":'
CBOR = b"\xd9\xd9\xf7"
THING, MAP = "things.a.example", "configmaps"
KEYS = {THING: b"/registry/a.example/things/shop/bad", MAP: b"/registry/configmaps/shop/bad"}


def cbor_thing(spec: bytes) -> bytes:
    """A custom resource in CBOR with these bytes for its spec."""
    texts = (b"apiVersion", b"a.example/v1", b"kind", b"Thing", b"metadata")
    named = b"".join(bytes((0x60 | len(text),)) + text for text in texts)
    return CBOR + b"\xa4" + named + b"\xa1\x64name\x63bad" + b"\x64spec" + spec


BAD_HEADS = [
    pytest.param(MAP, b"", id="empty"),
    pytest.param(MAP, bytes(200), id="zeros"),
    pytest.param(MAP, bytes(16) + config_map("bad")[16:], id="zeroed head"),
    pytest.param(MAP, config_map("bad")[:4] + bytes(12) + config_map("bad")[16:], id="zeroed type"),
    pytest.param(MAP, config_map("bad")[:9] + bytes(3) + config_map("bad")[12:], id="zeroed kind"),
    pytest.param(MAP, config_map("bad")[3:], id="cut head"),
    pytest.param(THING, bytes(20) + HEAD[20:] + b"1}", id="zeroed JSON head"),
    pytest.param(THING, HEAD[10:] + b"1}", id="cut JSON head"),
    pytest.param(THING, cbor_thing(b"\xf7"), id="undefined"),
    pytest.param(THING, cbor_thing(b"\xf9\x7e\x00"), id="NaN"),
    pytest.param(THING, cbor_thing(b"\xf9\x7c\x00"), id="Infinity"),
    pytest.param(THING, cbor_thing(b"\xfb\xff\xf0\0\0\0\0\0\0"), id="-Infinity"),
    pytest.param(THING, cbor_thing(b"\xc2\x49\x01" + bytes(8)), id="bignum"),
    pytest.param(THING, cbor_thing(b"\x1b" + b"\xff" * 8), id="over 64 bits"),
    pytest.param(THING, cbor_thing(b"\xa2\x61a\x01\x61a\x02"), id="doubled key"),
    pytest.param(THING, cbor_thing(b"\xa2\x61a\x01\x41a\x02"), id="doubled key, as bytes"),
    pytest.param(THING, cbor_thing(b"\xa1\x01\x02"), id="integer key"),
    pytest.param(THING, cbor_thing(b"\x81" * 20_000 + b"\x01"), id="deep CBOR"),
    pytest.param(THING, cbor_thing(b"\xff"), id="break"),
]
BAD_BODIES = [
    pytest.param(MAP, config_map("bad")[:-3], id="cut tail"),
    pytest.param(THING, HEAD + b"[" * 100_000 + b"]" * 100_000 + b"}", id="deep JSON"),
    pytest.param(THING, HEAD + b"NaN}", id="JSON NaN"),
    pytest.param(THING, HEAD, id="cut JSON"),
    *(
        pytest.param(MAP, json.dumps({"apiVersion": "v1", "kind": "ConfigMap", **content}).encode(), id=name)
        for name, content in {
            "no metadata": {},
            "metadata a list": {"metadata": []},
            "labels a list": {"metadata": {"name": "bad", "labels": []}},
            "labels of numbers": {"metadata": {"name": "bad", "labels": {"app": 1}}},
            "data a text": {"metadata": {"name": "bad"}, "data": "x"},
            "owners of text": {"metadata": {"name": "bad", "ownerReferences": ["x"]}},
        }.items()
    ),
]


@pytest.fixture
def snapshot(tmp_path):
    """Write a snapshot of a bad value among good ones."""

    def make(kind, *bad, name="etcd.db"):
        puts = [
            Put(b"/registry/configmaps/shop/a", config_map("a")),
            *(Put(KEYS[kind], value, create=3, version=number) for number, value in enumerate(bad, start=1)),
            Put(b"/registry/a.example/things/shop/z", custom("a.example/v1", "Thing", "z", "shop", size=1)),
        ]
        path = tmp_path / name
        path.write_bytes(make_snapshot(buckets=etcd_buckets(make_records(puts))))
        return path

    return make


def is_named(answer, kind):
    """Whether a command ended as it should for what is not readable."""
    return answer.code == 3 and KEYS[kind].decode() in answer.err and "answer is incomplete" in answer.err


@pytest.mark.parametrize(("kind", "bad"), BAD_HEADS)
def test_what_its_head_tells_is_named_in_tables(snapshot, run, kind, bad):
    path = snapshot(kind, bad)
    answer = run("list", path)
    assert is_named(answer, kind)
    assert [row[2] for row in answer.rows] == ["bad", "z", "a"] if kind == THING else ["z", "a", "bad"]
    names = run("list", path, "-k", kind, "-o", "name")
    assert is_named(names, kind)
    assert any(line.endswith("/bad") for line in names.out.splitlines())
    stats = run("stats", path, "-o", "json")
    assert is_named(stats, kind)
    assert {share["name"]: share["objects"] for share in stats.json["kinds"]}[kind] == 2
    assert "other" not in {share["name"] for share in stats.json["kinds"]}


@pytest.mark.parametrize(("kind", "bad"), BAD_HEADS + BAD_BODIES)
def test_others_are_whole(snapshot, run, tmp_path, kind, bad):
    path = snapshot(kind, bad)
    for more in ((), ("-n", "shop"), ("-l", "!canary"), ("-k", f"cm,{THING}")):
        answer = run("list", path, "-o", "json", *more)
        assert is_named(answer, kind)
        assert [item["metadata"]["name"] for item in answer.json["items"]] == ["z", "a"]
    listed = run("list", path, "-o", "yaml")
    assert is_named(listed, kind)
    assert len(yaml.safe_load(listed.out)["items"]) == 2
    got = run("get", path, kind, "bad", "-n", "shop")
    assert (got.code, got.out) == (3, "")
    assert KEYS[kind].decode() in got.err
    recovered = run("recover", path, "-n", "shop", "--to", "-")
    assert recovered.code == 3
    assert "bad" in recovered.err
    assert [each["metadata"]["name"] for each in yaml.safe_load_all(recovered.out)] in (["a", "z"], ["z", "a"])


@pytest.mark.parametrize(("kind", "bad"), BAD_HEADS + BAD_BODIES)
def test_history_goes_on_behind_it(snapshot, run, kind, bad):
    good = config_map("bad", uid="u") if kind == MAP else HEAD + b"1}"
    answer = run("history", snapshot(kind, good, bad, good), kind, "bad", "-n", "shop", "-o", "json")
    assert is_named(answer, kind)
    assert [each["event"] for each in answer.json] == ["created", "unreadable", "written"]
    assert [bool(each["object"]) for each in answer.json] == [True, False, True]
    assert answer.json[1]["problem"]


@pytest.mark.parametrize(("kind", "bad"), BAD_HEADS)
def test_diff_never_calls_it_removed(snapshot, run, kind, bad):
    good = config_map("bad") if kind == MAP else HEAD + b"1}"
    before, after = snapshot(kind, good, good, name="before.db"), snapshot(kind, good, bad, name="after.db")
    for sides in ((before, after), (after, before)):
        answer = run("diff", *sides, "-o", "json")
        assert is_named(answer, kind)
        assert [(each["change"], each["name"]) for each in answer.json] == [("changed", "bad")]
        assert is_named(run("diff", *sides, "-o", "diff"), kind)
        assert is_named(run("diff", *sides, "-k", kind), kind)
    same = run("diff", after, after)
    assert (same.out, is_named(same, kind)) == ("", True)


@pytest.mark.parametrize("depth", [1000, 5000])
@pytest.mark.parametrize("nested", [(b"[", b"]"), (b'{"a":', b"}")], ids=["list", "map"])
def test_deep_objects_are_printed(snapshot, run, depth, nested):
    begin, end = nested
    spec = begin * depth + b'"end"' + end * depth
    path = snapshot(THING, HEAD + b"1}", HEAD + spec + b"}")
    wanted = exact_json.loads(spec)
    answer = run("get", path, "thing", "bad", "-n", "shop", "-o", "json")
    assert answer.code == 0
    assert exact_json.dumps(exact_json.loads(answer.out)["spec"]) == exact_json.dumps(wanted)
    if depth == 1000:
        assert run("get", path, "thing", "bad", "-n", "shop").code == 0
        assert run("history", path, "thing", "bad", "-n", "shop").code == 0
        assert run("recover", path, "-k", "thing", "--to", "-").code == 0


def test_a_lone_surrogate_is_shown_as_the_api_server_shows_it(snapshot, run):
    path = snapshot(THING, HEAD + b'"\\ud83d\\ude00 \\ud800 \\\\ud800"}')
    for output, load in (("json", json.loads), ("yaml", yaml.safe_load)):
        answer = run("get", path, "thing", "bad", "-n", "shop", "-o", output)
        assert answer.code == 0
        assert load(answer.out)["spec"] == "\U0001f600 \ufffd \\ud800"
        assert "surrogate" in answer.err
        assert "ud800" not in answer.out.replace("\\\\ud800", "").replace("\\ud800", "", 1)


def test_names_do_not_reach_a_terminal_raw(snapshot, run):
    odd = "/registry/configmaps/\u202egnp.exe\x1b]0;x\x07/a".encode()
    path = snapshot(MAP, config_map("bad"))
    path.write_bytes(make_snapshot(make_records([Put(odd, bytes(9)), Put(odd + b"b", config_map("x")[:-2])])))
    for command in (("list", path), ("list", path, "-o", "json"), ("stats", path), ("list", path, "-l", "!x")):
        answer = run(*command)
        assert answer.code == 3
        assert not {"\u202e", "\x1b", "\x07"} & set(answer.out + answer.err)


def test_every_real_object_has_the_shape_of_its_kind():
    checked = 0
    for each in (*control_plane(), *vectors()):
        message = each.json and schema.kinds().get(f"{each.json['apiVersion']} {each.json['kind']}")
        if message:
            check_shape(each.json, message)
            checked += 1
    assert checked > 200
