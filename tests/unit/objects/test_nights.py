"""The history of one object over all backups, from their indexes."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from etcdkeep import naming
from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.cli import common
from etcdkeep.config.loading import CONFIG_VARIABLE
from etcdkeep.errors import (
    AccessDenied,
    ConfigError,
    IdentityMismatch,
    NotFound,
    ObjectDamaged,
    PermanentError,
    StoreUnavailable,
    UnsafeName,
)
from etcdkeep.objects.nights import nightly_history
from etcdkeep.sealing.age_keys import parse_identities
from tests.builders import age_pair, make_entry, make_file, make_repository
from tests.index_nights import CLUSTER, Written, config, night_id, publish_night
from tests.object_snapshots import custom

INDEX_IDENTITY, INDEX_RECIPIENT = age_pair("index")
OTHERS = tuple(config(f"other-{number}", 2) for number in range(3))


@pytest.fixture
def store(tmp_path):
    return DirectoryStore(tmp_path / "repository")


@pytest.fixture
def publish(store, tmp_path):
    def night(number, *objects, **options):
        options.setdefault("index_recipients", (INDEX_RECIPIENT,))
        return publish_night(store, tmp_path, number, (*objects, *OTHERS), **options)

    return night


@pytest.fixture
def history(store):
    """Ask with the key for indexes alone."""

    def ask(name="web", kind="configmap", namespace="shop", identity=INDEX_IDENTITY, **options):
        keys = parse_identities(identity)
        return nightly_history(make_repository(store), CLUSTER, keys, kind, namespace, name, **options)

    return ask


def events(found):
    return [(night.backup_id[6:8], night.event) for night in found.nights]


@pytest.fixture
def eventful(publish):
    """Nine nights of ConfigMap web: each with something else."""
    publish(1)
    publish(2, config("web", 10))
    publish(3, config("web", 10))
    publish(4, config("web", 20, content="new", created=10))
    publish(5, config("web", 21, content="new", created=10))
    publish(6, config("web", 30, content="new"))
    publish(7)
    publish(8)
    publish(9, config("web", 40))


def test_each_night_says_what_became_of_it(eventful, history):
    found = history()
    assert events(found) == [
        ("01", "absent"),
        ("02", "first seen"),
        ("03", "unchanged"),
        ("04", "changed"),
        ("05", "written again"),
        ("06", "recreated"),
        ("07", "gone"),
        ("08", "absent"),
        ("09", "back"),
    ]
    assert [night.revision for night in found.nights] == [None, 10, 10, 20, 21, 30, None, None, 40]
    assert [night.create_revision for night in found.nights] == [None, 10, 10, 10, 10, 30, None, None, 40]
    assert (found.resource.full_name, found.namespace, found.name) == ("configmaps", "shop", "web")
    assert {night.state for night in found.nights} == {"good"}
    assert found.unread == ()


def test_nights_are_ordered_by_when_they_were_taken(publish, history):
    publish(3)
    publish(1, config("web", 10))
    publish(2, config("web", 10))
    assert events(history()) == [("01", "first seen"), ("02", "unchanged"), ("03", "gone")]


def test_a_night_without_an_index_is_named_and_not_passed_over(publish, history):
    publish(1, config("web", 10))
    publish(2, config("web", 20, content="new", created=10), index=False)
    publish(3, config("web", 30, content="newer", created=10))
    found = history()
    assert events(found) == [("01", "first seen"), ("02", "not read"), ("03", "changed")]
    assert [str(night.problem) for night in found.unread] == [
        f"backup harbor/{night_id(2)} has no index. Verify it to make one."
    ]


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        pytest.param(lambda path: path.unlink(), NotFound, id="gone"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-9]), ObjectDamaged, id="cut"),
        pytest.param(lambda path: path.write_bytes(b""), ObjectDamaged, id="empty"),
    ],
)
def test_an_index_that_cannot_be_used_is_named(publish, history, tmp_path, damage, kind):
    publish(1, config("web", 10))
    publish(2, config("web", 10))
    damage(tmp_path / "repository" / CLUSTER / night_id(2) / naming.INDEX)
    (unread,) = history().unread
    assert unread.backup_id == night_id(2)
    assert type(unread.problem) is kind


def test_an_index_of_another_backup_is_not_taken_for_this_one_s(publish, history, tmp_path):
    publish(1, config("web", 10))
    publish(2)
    folder = tmp_path / "repository" / CLUSTER
    (folder / night_id(2) / naming.INDEX).write_bytes((folder / night_id(1) / naming.INDEX).read_bytes())
    assert events(history()) == [("01", "first seen"), ("02", "not read")]


def test_a_manifest_that_is_not_believed_is_named(publish, history, tmp_path):
    publish(1, config("web", 10))
    publish(2, config("web", 10))
    manifest = tmp_path / "repository" / CLUSTER / night_id(2) / naming.MANIFEST
    manifest.write_bytes(manifest.read_bytes() + b" ")
    (unread,) = history().unread
    assert (unread.backup_id, unread.state) == (night_id(2), "foreign")


def test_indexes_of_before_the_key_are_named_and_the_others_read(publish, history):
    publish(1, config("web", 10), index_recipients=())
    publish(2, config("web", 10))
    found = history()
    assert events(found) == [("01", "not read"), ("02", "first seen")]
    assert isinstance(found.unread[0].problem, IdentityMismatch)
    assert history(identity=age_pair()[0]).unread == ()


@pytest.mark.parametrize(
    ("error", "kind"), [(AccessDenied, AccessDenied), (UnsafeName, PermanentError), (ConfigError, ConfigError)]
)
def test_one_index_that_is_refused_ends_no_other_night(publish, history, monkeypatch, error, kind):
    publish(1, config("web", 10))
    publish(2, config("web", 20, content="new", created=10))
    publish(3, config("web", 20, content="new", created=10))
    original = DirectoryStore.open

    def refuse(self, name):
        if night_id(2) in name and name.endswith(naming.INDEX):
            raise error(f"{name}: 403")
        return original(self, name)

    monkeypatch.setattr(DirectoryStore, "open", refuse)
    found = history()
    assert events(found) == [("01", "first seen"), ("02", "not read"), ("03", "changed")]
    problem = found.unread[0].problem
    assert type(problem) is kind
    assert "403" in str(problem)


def test_a_key_for_indexes_reads_nothing_of_backups_that_it_opens_whole(publish, history):
    """As after a rotation, where the age identity of before becomes the key for indexes."""
    old_identity, old_recipient = age_pair("before the rotation")
    publish(1, config("web", 10), age_key="before the rotation")
    publish(2, config("web", 10), index_recipients=(old_recipient,))
    found = history(identity=old_identity, index_only=True)
    assert events(found) == [("01", "not read"), ("02", "first seen")]
    assert str(found.unread[0].problem).endswith("and its public half to index_recipients.")
    assert f"index_identity opens the whole backup {CLUSTER}/{night_id(1)}, " in str(found.unread[0].problem)
    assert history(identity=old_identity).unread == ()


def test_a_stranger_s_key_opens_nothing(publish, history):
    publish(1, config("web", 10))
    with pytest.raises(IdentityMismatch):
        history(identity=age_pair("stranger")[0])


def test_a_store_that_does_not_answer_is_no_answer(publish, history, monkeypatch):
    publish(1, config("web", 10))
    publish(2, config("web", 10))
    original = DirectoryStore.open

    def cut(self, name):
        if night_id(2) in name and name.endswith(naming.INDEX):
            raise StoreUnavailable("timed out")
        return original(self, name)

    monkeypatch.setattr(DirectoryStore, "open", cut)
    with pytest.raises(StoreUnavailable):
        history()


def test_what_no_backup_has_is_not_found_with_what_is_near(publish, history):
    publish(1, config("web", 10, "market"))
    publish(2, index=False)
    with pytest.raises(
        NotFound, match=r"none of the 1 backups of harbor .* configmap shop/web; near: market/web; 1 more"
    ):
        history()
    with pytest.raises(NotFound, match="no kind 'gizmo'"):
        history(kind="gizmo")


def test_a_cluster_without_a_backup_is_not_found(history):
    with pytest.raises(NotFound, match="has no backup"):
        history()


def test_a_name_is_of_one_kind_and_namespace(publish, history):
    secret = Written("secrets/shop/web", config("web", 5).value.replace(b"ConfigMap", b"Secret"), 5, 5)
    publish(1, config("web", 10), config("web", 11, "market"), secret)
    publish(2, secret, config("web", 11, "market"))
    assert [event for _, event in events(history())] == ["first seen", "gone"]
    assert [event for _, event in events(history(namespace="market"))] == ["first seen", "unchanged"]


def test_custom_and_cluster_scoped_kinds(publish, history):
    one = custom("cluster.k8s.io/v1", "Machine", "web", "shop")
    class_ = custom("cluster.k8s.io/v1", "MachineClass", "web")
    publish(
        1,
        Written("cluster.k8s.io/machines/shop/web", one, 5, 5),
        Written("cluster.k8s.io/machineclasses/web", class_, 6, 6),
    )
    assert history(kind="machine").namespace == "shop"
    assert history(kind="machineclasses.cluster.k8s.io").namespace == ""


def test_a_name_that_ends_as_another_does_is_not_it(publish, history):
    publish(1, config("web", 10))
    publish(2, config("my-web", 20), config("web-2", 21))
    assert [event for _, event in events(history())] == ["first seen", "gone"]


def test_each_index_is_opened_once_and_no_more_at_a_time_than_allowed(publish, history, monkeypatch):
    for night in range(1, 9):
        publish(night, config("web", 10))
    opened, running, most, lock = Counter(), 0, 0, threading.Lock()
    both = threading.Barrier(2)
    original = DirectoryStore.open

    def count(self, name):
        nonlocal running, most
        if not name.endswith(naming.INDEX):
            return original(self, name)
        with lock:
            opened[name] += 1
            running += 1
            most = max(most, running)
        both.wait(timeout=30)  # only passes when two are read at the same time
        stream = original(self, name)
        with lock:
            running -= 1
        return stream

    monkeypatch.setattr(DirectoryStore, "open", count)
    assert len(history(at_once=2).nights) == 8
    assert set(opened.values()) == {1}
    assert len(opened) == 8
    assert most == 2


def test_json_has_every_night_and_no_content(eventful, history):
    document = history().as_json()
    assert [each["event"] for each in document["backups"]][:2] == ["absent", "first seen"]
    assert document["backups"][3] == {
        "backup": night_id(4),
        "taken_at": "2026-11-04T02:30:00+00:00",
        "state": "good",
        "event": "changed",
        "revision": 20,
        "create_revision": 10,
        "size_bytes": len(config("web", 20, content="new").value),
        "problem": None,
    }
    assert (document["kind"], document["not_read"]) == ("ConfigMap", 0)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with the key for indexes alone."""
    identity, configuration = tmp_path / "identity.txt", tmp_path / "clusters.yaml"
    identity.write_bytes(INDEX_IDENTITY)
    configuration.write_text(make_file(make_entry(repository=f"file://{tmp_path}/repository")))
    monkeypatch.setenv(CONFIG_VARIABLE, str(configuration))
    monkeypatch.setenv(common.IDENTITY_VARIABLE, str(identity))


def test_command_shows_the_nights_on_which_something_happened(eventful, machine, run):
    answer = run("history", CLUSTER, "cm/web", "-n", "shop", "--sets")
    assert answer.code == 0
    shown = [(row[0], " ".join(row[3:-3])) for row in answer.rows]
    assert shown == [
        (night_id(2), "first seen"),
        (night_id(4), "changed"),
        (night_id(5), "written again"),
        (night_id(6), "recreated"),
        (night_id(7), "gone"),
        (night_id(9), "back"),
    ]
    assert "9 backups" in answer.err
    assert len(run("history", CLUSTER, "cm", "web", "-n", "shop", "--sets", "-o", "json").json["backups"]) == 9


@pytest.mark.parametrize(
    ("options", "code"),
    [({"index": False}, 1), ({"index_recipients": ()}, 4)],
    ids=["no-index", "sealed-to-others"],
)
def test_command_names_what_it_could_not_read_and_says_that_the_answer_is_incomplete(
    publish, machine, run, options, code
):
    publish(1, config("web", 10))
    publish(2, config("web", 10), **options)
    answer = run("history", CLUSTER, "cm", "web", "-n", "shop", "--sets")
    assert answer.code == code
    assert [row[0] for row in answer.rows] == [night_id(1), night_id(2)]
    assert "not read: " in answer.err
    assert "the answer is incomplete: 1 of 2 backups could not be read" in answer.err


def test_command_takes_a_cluster_alone(eventful, machine, run, monkeypatch):
    assert run("history", f"{CLUSTER}/{night_id(2)}", "cm", "web", "--sets").code == 2
    monkeypatch.delenv(common.IDENTITY_VARIABLE)
    assert run("history", CLUSTER, "cm", "web", "--sets").code == 4
