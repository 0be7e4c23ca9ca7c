"""The search over a backup's objects as one types."""

from __future__ import annotations

import json
import random
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdkeep import naming
from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.errors import IdentityMismatch, NotFound, ObjectDamaged
from etcdkeep.objects.catalog import MOST_AT_ONCE, Catalog, Query, open_catalog
from etcdkeep.objects.entries import Entry
from etcdkeep.sealing.age_keys import parse_identities
from tests.builders import age_pair, make_repository
from tests.index_nights import CLUSTER, Written, config, publish_night
from tests.object_snapshots import custom

INDEX_IDENTITY, INDEX_RECIPIENT = age_pair("index")


def entry(name="web", namespace="shop", kind="configmaps", *, group="", size_bytes=10, revision=5, other=""):
    key = "/".join(("/registry", kind, namespace, name))
    return Entry(group, kind, kind[:-1].title(), "v1", namespace, name, key, revision, 1, size_bytes, other)


ENTRIES = [
    entry("web", size_bytes=30, revision=7),
    entry("Web-2", size_bytes=10, revision=9),
    entry("db", "market", size_bytes=20, revision=8),
    entry("web", "shop", "secrets", size_bytes=5, revision=3),
    entry("node-web", "", "nodes", size_bytes=5, revision=4),
    entry("web", "shop", "gateways", group="mesh.io", size_bytes=7, revision=6),
]


def places(found):
    return [f"{each.resource.full_name} {each.namespace}/{each.name}" for each in found.objects]


def search(*entries, **query):
    return places(Catalog(entries or ENTRIES).search(Query(**query)))


def test_everything_comes_in_order_of_kind_namespace_and_name():
    assert search() == [
        "configmaps market/db",
        "configmaps shop/Web-2",
        "configmaps shop/web",
        "gateways.mesh.io shop/web",
        "nodes /node-web",
        "secrets shop/web",
    ]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        pytest.param({"text": "web-"}, ["configmaps shop/Web-2"], id="any-case-of-the-name"),
        pytest.param({"text": "WEB-"}, ["configmaps shop/Web-2"], id="any-case-of-the-query"),
        pytest.param({"text": "zzz"}, [], id="nothing"),
        pytest.param({"text": "b\nd"}, [], id="over-the-edge-of-names"),
        pytest.param({"kinds": ("secrets", "nodes")}, ["nodes /node-web", "secrets shop/web"], id="kinds"),
        pytest.param({"kinds": ("gateways.mesh.io",)}, ["gateways.mesh.io shop/web"], id="kind-of-a-group"),
        pytest.param({"kinds": ("gateways",)}, [], id="kind-of-another-group"),
        pytest.param({"namespaces": ("",)}, ["nodes /node-web"], id="no-namespace"),
        pytest.param({"namespaces": ("market",)}, ["configmaps market/db"], id="namespace"),
        pytest.param(
            {"text": "web", "kinds": ("configmaps", "nodes"), "namespaces": ("shop",)},
            ["configmaps shop/Web-2", "configmaps shop/web"],
            id="all-three",
        ),
    ],
)
def test_conditions_choose(query, wanted):
    assert search(**query) == wanted


@pytest.mark.parametrize(
    ("sort", "wanted"),
    [
        ("name", ["Web-2", "db", "node-web", "web", "web", "web"]),
        ("namespace", ["node-web", "db", "Web-2", "web", "web", "web"]),
        ("size", ["node-web", "web", "web", "Web-2", "db", "web"]),
        ("revision", ["web", "node-web", "web", "web", "db", "Web-2"]),
    ],
)
def test_order(sort, wanted):
    catalog = Catalog(ENTRIES)
    assert [each.name for each in catalog.search(Query(sort=sort)).objects] == wanted
    backward = catalog.search(Query(sort=sort, descending=True))
    assert [each.name for each in backward.objects] == wanted[::-1]
    assert places(backward) == places(catalog.search(Query(sort=sort)))[::-1]


def test_pages_follow_each_other_and_tell_the_whole_number():
    catalog = Catalog(entry(f"web-{number:04}") for number in range(2500))
    pages = [catalog.search(Query("web", offset=offset, limit=999)) for offset in (0, 999, 1998)]
    assert [len(page.objects) for page in pages] == [999, 999, 502]
    assert {page.total for page in pages} == {2500}
    assert [each.name for page in pages for each in page.objects] == [f"web-{number:04}" for number in range(2500)]
    assert catalog.search(Query(offset=2500)).objects == ()
    assert len(catalog.search(Query(limit=10**9)).objects) == MOST_AT_ONCE
    assert catalog.search(Query(limit=-1, offset=-7)).objects == ()


def test_kinds_and_namespaces_are_counted():
    catalog = Catalog(ENTRIES)
    assert [(each.full_name, count) for each, count in catalog.kinds] == [
        ("configmaps", 3),
        ("gateways.mesh.io", 1),
        ("nodes", 1),
        ("secrets", 1),
    ]
    assert catalog.namespaces == (("", 1), ("market", 1), ("shop", 4))


def test_what_holds_no_object_is_left_out_and_what_cannot_be_read_says_why():
    lease = Entry(
        "", "", "", "", "", "/registry/ranges/ips", "/registry/ranges/ips", 1, 1, 9, "which addresses are taken"
    )
    catalog = Catalog([lease, entry("broken", other="it is empty"), entry("whole")])
    assert [(each.name, each.unreadable) for each in catalog.search(Query()).objects] == [
        ("broken", "it is empty"),
        ("whole", ""),
    ]


def test_an_empty_backup_has_an_empty_answer():
    found = Catalog([]).search(Query("web"))
    assert (found.total, found.objects, len(Catalog([]))) == (0, (), 0)


def test_hostile_names_stay_text_of_their_own_object():
    names = ["a\nb", "<script>", "\x1b[31m", "\u202eweb", "İ", "web"]
    catalog = Catalog(entry(name) for name in names)
    assert [each.name for each in catalog.search(Query(sort="name")).objects] == sorted(
        name.replace("\n", "\ufffd") for name in names
    )
    assert search(*(entry(name) for name in names), text="<SCR") == ["configmaps shop/<script>"]
    assert json.loads(json.dumps(catalog.search(Query()).as_json()))["total"] == len(names)


def test_json_has_what_a_row_shows_and_no_content():
    document = Catalog(ENTRIES).search(Query("db")).as_json()
    assert document == {
        "total": 1,
        "offset": 0,
        "objects": [
            {
                "group": "",
                "resource": "configmaps",
                "kind": "Configmap",
                "namespace": "market",
                "name": "db",
                "size_bytes": 20,
                "revision": 8,
                "unreadable": "",
            }
        ],
    }


words = st.text(st.sampled_from("abAB-\n"), min_size=1, max_size=4)


@given(
    rows=st.lists(
        st.tuples(words, st.sampled_from(["", "x", "y"]), st.sampled_from(["pods", "secrets"]), st.integers(0, 3))
    ),
    text=st.text(st.sampled_from("abAB-"), max_size=2),
    kinds=st.sets(st.sampled_from(["pods", "secrets", "none"])),
    spaces=st.sets(st.sampled_from(["", "x", "z"])),
    sort=st.sampled_from(["kind", "namespace", "name", "size", "revision"]),
    descending=st.booleans(),
)
def test_a_search_finds_what_a_plain_walk_finds(rows, text, kinds, spaces, sort, descending):
    entries = [entry(name, space, kind, size_bytes=size, revision=size) for name, space, kind, size in rows]
    found = Catalog(entries).search(Query(text, tuple(kinds), tuple(spaces), sort, descending))
    shown = [(kind, space, name.replace("\n", "\ufffd"), size) for name, space, kind, size in rows]
    wanted = sorted(
        row
        for row in shown
        if text.lower() in row[2].lower() and (not kinds or row[0] in kinds) and (not spaces or row[1] in spaces)
    )
    column = {"kind": 0, "namespace": 1, "name": 2, "size": 3, "revision": 3}[sort]
    wanted.sort(key=lambda row: row[:3] if sort == "kind" else row[column])
    got = [(each.resource.plural, each.namespace, each.name, each.size_bytes) for each in found.objects]
    assert found.total == len(wanted)
    assert sorted(got) == sorted(wanted)
    assert [row[column] for row in got] == sorted((row[column] for row in wanted), reverse=descending)


def test_memory_grows_with_the_names_and_little_else():
    chance = random.Random(1)
    catalog = Catalog(entry(f"object-{chance.randrange(10**9):09}", f"space-{number % 50}") for number in range(20_000))
    assert catalog.size_bytes < 20_000 * 80


def test_a_search_among_many_namespaces_takes_little_time_and_memory():
    catalog = Catalog(entry(f"Object-{number:09}", f"space-{number:06}") for number in range(20_000))
    spaces = tuple(name for name, _ in catalog.namespaces)
    began = time.monotonic()
    assert catalog.search(Query(namespaces=spaces)).total == 20_000
    assert time.monotonic() - began < 5, "not each namespace with each"
    tracemalloc.start()
    found = catalog.search(Query(text="object-00001", limit=1))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.total == 10_000
    assert peak_bytes < 20_000 * 40, "as many may search at once"


@pytest.fixture
def store(tmp_path):
    return DirectoryStore(tmp_path / "repository")


def open_night(store, identity=INDEX_IDENTITY):
    (found,) = make_repository(store).sets(CLUSTER)
    return open_catalog(store, found, parse_identities(identity))


def test_the_key_for_indexes_opens_the_catalog_of_a_backup(store, tmp_path):
    machine = Written("cluster.k8s.io/machines/m0", custom("cluster.k8s.io/v1", "Machine", "m0"), 3, 3)
    ranges = Written("ranges/serviceips", b"k8s\0any", 4, 4)
    publish_night(store, tmp_path, 1, [config("web", 5), machine, ranges], index_recipients=(INDEX_RECIPIENT,))
    found = open_night(store).search(Query())
    assert places(found) == ["configmaps shop/web", "machines.cluster.k8s.io /m0"]
    assert [(each.size_bytes, each.revision) for each in found.objects] == [
        (len(config("web", 5).value), 5),
        (len(machine.value), 3),
    ]


def test_no_catalog_without_an_index_its_key_or_its_bytes(store, tmp_path):
    publish_night(store, tmp_path, 1, [config("web", 5)], index_recipients=(INDEX_RECIPIENT,))
    with pytest.raises(IdentityMismatch):
        open_night(store, age_pair("stranger")[0])
    (path,) = (tmp_path / "repository").rglob(naming.INDEX)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ObjectDamaged):
        open_night(store)
    path.unlink()
    with pytest.raises(NotFound):
        open_night(store)


def test_no_catalog_of_a_backup_of_before_indexes(store, tmp_path):
    publish_night(store, tmp_path, 1, [config("web", 5)], index=False)
    with pytest.raises(NotFound, match="has no index"):
        open_night(store)
