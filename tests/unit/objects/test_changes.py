"""What changed from one backup to another by their indexes: counts first, names on demand."""

from __future__ import annotations

import tracemalloc
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etcdkeep import naming
from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.cli import common
from etcdkeep.config.loading import CONFIG_VARIABLE
from etcdkeep.errors import IdentityMismatch, NotFound, ObjectDamaged
from etcdkeep.objects.changes import changes_between, changes_since_previous
from etcdkeep.objects.compare import compare, count_changes
from etcdkeep.objects.index import open_index
from etcdkeep.sealing.age_keys import parse_identities
from etcdkeep.sealing.private_file import private_file
from tests.builders import age_pair, make_entry, make_file, make_repository
from tests.index_nights import CLUSTER, Written, config, night_id, publish_night
from tests.object_snapshots import custom

INDEX_IDENTITY, INDEX_RECIPIENT = age_pair("index")
MACHINE = Written("cluster.k8s.io/machines/m0", custom("cluster.k8s.io/v1", "Machine", "m0"), 3, 3)
RANGES = Written("ranges/serviceips", b"k8s\0any", 4, 4)
OLD = (
    config("same", 2),
    config("changed", 5),
    config("again", 6),
    config("gone-1", 7),
    config("gone-2", 8),
    config("gone", 9, "market"),
    MACHINE,
    RANGES,
)
NEW = (
    config("same", 2),
    config("changed", 20, content="x", created=5),
    config("again", 21, content="y"),
    config("new", 22, "market"),
    RANGES._replace(value=b"k8s\0other", revision=23),
)


@pytest.fixture
def store(tmp_path):
    return DirectoryStore(tmp_path / "repository")


@pytest.fixture
def repository(store):
    return make_repository(store)


@pytest.fixture
def publish(store, tmp_path):
    def night(number, objects, **options):
        options.setdefault("index_recipients", (INDEX_RECIPIENT,))
        return publish_night(store, tmp_path, number, objects, **options)

    return night


@pytest.fixture
def two_nights(publish):
    publish(1, OLD)
    publish(2, NEW)


def since_previous(repository, wanted="", identity=INDEX_IDENTITY, **options):
    return changes_since_previous(repository, CLUSTER, parse_identities(identity), wanted, **options)


def test_counts_come_by_kind_and_namespace_what_lost_most_first(two_nights, repository):
    found = since_previous(repository)
    assert (found.before, found.after) == (f"harbor/{night_id(1)}", f"harbor/{night_id(2)}")
    assert [
        (each.resource.full_name, each.namespace, each.added, each.removed, each.changed, each.recreated, each.total)
        for each in found.counts()[1]
    ] == [
        ("configmaps", "shop", 0, 2, 1, 1, 4),
        ("configmaps", "market", 1, 1, 0, 0, 2),
        ("machines.cluster.k8s.io", "", 0, 1, 0, 0, 1),
    ]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({"what": "removed"}, ["gone", "gone-1", "gone-2", "m0"]),
        ({"what": "removed", "kind": "configmaps", "namespace": "shop"}, ["gone-1", "gone-2"]),
        ({"kind": "machines.cluster.k8s.io"}, ["m0"]),
        ({"namespace": ""}, ["m0"]),
        ({"what": "added"}, ["new"]),
    ],
)
def test_names_are_those_behind_a_count(two_nights, repository, wanted, names):
    found = since_previous(repository)
    total, named = found.named(**wanted)
    assert (total, sorted(each.name for each in named)) == (len(names), names)
    assert found.named(**wanted, limit=1) == (len(names), named[:1])


words = st.text(st.sampled_from("ab-"), min_size=1, max_size=2)
places = st.tuples(st.sampled_from(["a", "b", "a-"]), words)
writes = st.tuples(st.sampled_from(["", "x"]), st.integers(1, 5))


@given(old=st.dictionaries(places, writes), new=st.dictionaries(places, writes))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_kept_in_columns_is_what_a_plain_comparison_finds(tmp_path_factory, old, new):
    folder = tmp_path_factory.mktemp("nights")
    store = DirectoryStore(folder / "repository")
    for night, objects in ((1, old), (2, new)):
        written = [
            config(name, 9 * night + created, space, content=content, created=created)
            for (space, name), (content, created) in objects.items()
        ]
        publish_night(store, folder, night, written)
    before, after = make_repository(store).sets(CLUSTER)
    identities = parse_identities(age_pair()[0])
    found = changes_between(store, before, after, identities)
    with ExitStack() as stack:
        files = [(each, stack.enter_context(private_file(each.index.plaintext.size_bytes))) for each in (before, after)]
        rows = [list(open_index(store, each.name, each.index, identities, file)) for each, file in files]
    plain = sorted(
        compare(lambda: rows[0], rows[1], lambda entry: True),
        key=lambda each: (each.entry.namespace, each.entry.name),
    )
    wanted = [(each.what, each.entry.name, *(side and side.revision for side in each[1:])) for each in plain]
    assert [(each.what, each.name, each.before, each.after) for each in found.named()[1]] == wanted
    counts = count_changes((each.what, each.entry.type, each.entry.namespace) for each in plain)
    assert found.counts() == (len(counts), counts)
    assert found.counts(1) == (len(counts), counts[:1])
    assert sum(each.total for each in counts) == len(found) == len(wanted)


def test_memory_grows_with_the_names_of_what_differs_and_little_else(publish, repository):
    publish(1, [config(f"object-{number:09}", number + 2) for number in range(3000)])
    publish(2, [config(f"another-{number:09}", number + 2) for number in range(3000)])
    found = since_previous(repository)
    assert (len(found), found.counts()[1][0].added, found.counts()[1][0].removed) == (6000, 3000, 3000)
    assert found.size_bytes < 6000 * 60


def test_each_object_in_a_namespace_of_its_own_takes_little_memory_too(publish, repository):
    publish(1, [config("name", number + 2, f"space-{number:06}") for number in range(3000)])
    publish(2, [config("other", number + 2, f"space-{number:06}") for number in range(3000)])
    tracemalloc.start()
    found = since_previous(repository)
    held_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    document = found.as_json(counts=5)
    answer_bytes = tracemalloc.get_traced_memory()[1] - held_bytes
    tracemalloc.stop()
    assert (len(document["counts"]), document["more_counts"]) == (5, 2995)
    assert answer_bytes < 20_000
    assert found.size_bytes < 6000 * 60


def test_encrypted_and_plain_objects_of_a_kind_are_counted_together(publish, repository):
    encrypted = Written("cluster.k8s.io/machines/m1", b"k8s:enc:aescbc:v1:key:" + 40 * b"x", 5, 5)
    publish(1, [MACHINE, encrypted])
    publish(2, [RANGES])
    found = since_previous(repository)
    assert [(each.resource.names, each.removed) for each in found.counts()[1]] == [
        (("cluster.k8s.io", "machines", "Machine"), 2)
    ]
    assert found.named(what="removed", kind="machines.cluster.k8s.io")[0] == 2


def test_json_names_only_what_is_asked_for(two_nights, repository):
    found = since_previous(repository)
    document = found.as_json()
    assert document["names"] == []
    assert document["counts"][0] == {
        "group": "",
        "resource": "configmaps",
        "kind": "ConfigMap",
        "namespace": "shop",
        "added": 0,
        "removed": 2,
        "changed": 1,
        "recreated": 1,
    }
    (named,) = found.as_json(found.named(what="recreated")[1])["names"]
    assert named == {
        "change": "recreated",
        "group": "",
        "resource": "configmaps",
        "kind": "ConfigMap",
        "namespace": "shop",
        "name": "again",
        "before": 6,
        "after": 21,
    }


def test_the_previous_set_is_the_last_good_one_before(publish, repository):
    publish(1, OLD)
    publish(2, OLD, ok=False)
    publish(3, NEW)
    publish(4, NEW)
    for sets in (None, repository.sets(CLUSTER)):
        found = since_previous(repository, night_id(3), sets=sets)
        assert (found.before, found.after) == (f"harbor/{night_id(1)}", f"harbor/{night_id(3)}")
    assert since_previous(repository).before == f"harbor/{night_id(3)}"
    assert since_previous(repository).counts() == (0, ())


def test_the_first_set_has_none_before_it(two_nights, repository):
    with pytest.raises(NotFound, match=f"no good backup was taken before harbor/{night_id(1)}"):
        since_previous(repository, night_id(1))


def test_a_set_without_an_index_is_an_error_that_names_it(publish, repository):
    publish(1, OLD, index=False)
    publish(2, NEW)
    with pytest.raises(NotFound, match=f"backup harbor/{night_id(1)} has no index. Verify it"):
        since_previous(repository)


def test_an_index_that_is_damaged_or_sealed_to_others_is_an_error(publish, repository, tmp_path):
    publish(1, OLD)
    publish(2, NEW, index_recipients=())
    before, after = repository.sets(CLUSTER)
    with pytest.raises(IdentityMismatch):
        since_previous(repository)
    ours = parse_identities(age_pair()[0])
    assert len(changes_between(repository.store, before, after, ours))
    path = tmp_path / "repository" / CLUSTER / night_id(1) / naming.INDEX
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ObjectDamaged):
        changes_between(repository.store, before, after, ours)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with the key for indexes alone."""
    identity, configuration = tmp_path / "identity.txt", tmp_path / "clusters.yaml"
    identity.write_bytes(INDEX_IDENTITY)
    configuration.write_text(make_file(make_entry(repository=f"file://{tmp_path}/repository")))
    monkeypatch.setenv(CONFIG_VARIABLE, str(configuration))
    monkeypatch.setenv(common.IDENTITY_VARIABLE, str(identity))


def test_command_compares_with_the_previous_set(two_nights, machine, run):
    answer = run("diff", CLUSTER, "--previous", "-k", "cm", "-n", "shop", "-o", "name")
    assert (answer.code, answer.out.splitlines()) == (
        1,
        [
            "! configmap/again -n shop",
            "~ configmap/changed -n shop",
            "- configmap/gone-1 -n shop",
            "- configmap/gone-2 -n shop",
        ],
    )
    whole = [f"{CLUSTER}/{night_id(night)}" for night in (1, 2)]
    assert run("diff", CLUSTER, "--previous").out == run("diff", *whole).out


def test_command_counts_by_kind_and_namespace(two_nights, machine, run):
    answer = run("diff", CLUSTER, "--previous", "--count", "-k", "cm,machines")
    assert answer.code == 1
    assert answer.rows == [
        ["shop", "ConfigMap", "2", "1", "1", "0"],
        ["market", "ConfigMap", "1", "0", "0", "1"],
        ["-", "Machine", "1", "0", "0", "0"],
    ]
    document = run("diff", CLUSTER, "--previous", "--count", "-k", "cm", "-o", "json").json
    assert (document["before"], document["after"]) == (f"harbor/{night_id(1)}", f"harbor/{night_id(2)}")
    assert [each["removed"] for each in document["counts"]] == [2, 1]


@pytest.mark.parametrize(
    "options",
    [(), ("--previous", "--live"), (CLUSTER, "--previous"), ("--previous", "--count", "-o", "name")],
    ids=" ".join,
)
def test_command_refuses_what_makes_no_sense(two_nights, machine, run, options):
    assert run("diff", CLUSTER, *options).code == 2


def test_command_has_no_previous_set_of_a_file_or_of_the_first_backup(two_nights, machine, run, tmp_path):
    (tmp_path / "etcd.db").write_bytes(b"")
    assert run("diff", tmp_path / "etcd.db", "--previous").code == 2
    answer = run("diff", f"{CLUSTER}/{night_id(1)}", "--previous")
    assert answer.code == 1
    assert "no good backup was taken before" in answer.err
