"""The sealed index of a set: made by `verify`, read by `objects`, never trusted when it is not what was recorded."""

from __future__ import annotations

import io
import json

import pyrage
import pytest
from backports import zstd

from etcdkeep import naming
from etcdkeep.cli import common
from etcdkeep.cli.object_set import SetSource
from etcdkeep.config.loading import CONFIG_VARIABLE
from etcdkeep.objects.index import COLUMNS
from etcdkeep.sealing.age_keys import parse_identities
from etcdkeep.verify.run import verify_set
from tests.builders import BACKUP_ID, age_pair, make_entry, make_file
from tests.index_nights import config, publish_night
from tests.kubernetes_values import control_plane
from tests.object_snapshots import recorded_snapshot

SET = f"harbor/{BACKUP_ID}"


@pytest.fixture(scope="session")
def database():
    return recorded_snapshot()


@pytest.fixture
def published(site, tmp_path, monkeypatch):
    """A set that was never verified, and a machine that can read it."""
    identity, config = tmp_path / "age-identity.txt", tmp_path / "clusters.yaml"
    identity.write_bytes(age_pair()[0])
    config.write_text(make_file(make_entry(repository=f"file://{tmp_path}/repository")))
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    monkeypatch.setenv(common.IDENTITY_VARIABLE, str(identity))
    site.backup()
    return site


@pytest.fixture
def verified(published):
    verify(published)
    return published


def verify(site, **options):
    found = site.repository.get("harbor", BACKUP_ID)
    record = verify_set(site.repository, site.cluster, found, site.identities(), **options)
    assert record.ok
    site.repository.record(found, record)
    return record


def index_path(site):
    return site.folder / "repository" / SET / naming.INDEX


@pytest.fixture
def snapshot_reads(monkeypatch):
    """Count how often a set's snapshot is opened."""
    reads = []
    original = SetSource.snapshot.func
    monkeypatch.setattr(SetSource, "snapshot", property(lambda self: reads.append(1) or original(self)))
    return reads


def test_index_opens_with_stock_tools_to_one_json_document(verified):
    sealed = index_path(verified).read_bytes()
    assert b"/registry/" not in sealed
    document = json.loads(zstd.decompress(pyrage.decrypt(sealed, parse_identities(age_pair()[0]))))
    rows = [
        dict(zip(document["columns"], row, strict=True))
        for block in document["objects"]
        for row in zip(*block, strict=True)
    ]
    assert tuple(document["columns"]) == COLUMNS
    assert document["revision"] == max(each.mod_revision for each in control_plane())
    assert {row["key"]: row["revision"] for row in rows} == {
        each.key.decode(): each.mod_revision for each in control_plane()
    }
    pods = {
        (row["kind"], row["namespace"], row["name"], row["size_bytes"]) for row in rows if row["resource"] == "pods"
    }
    assert pods == {
        ("Pod", each.json["metadata"]["namespace"], each.json["metadata"]["name"], len(each.stored))
        for each in control_plane()
        if each.json and each.json["kind"] == "Pod"
    }


@pytest.mark.parametrize(
    "command",
    [
        ("list", "{}"),
        ("list", "{}", "-o", "wide", "--other"),
        ("list", "{}", "-k", "po", "-n", "shop", "-o", "name"),
        ("stats", "{}"),
        ("diff", "{}", "{}", "-o", "name"),
    ],
    ids=" ".join,
)
def test_index_says_what_the_snapshot_says(verified, run, snapshot_reads, database, tmp_path, command):
    path = tmp_path / "etcd.db"
    path.write_bytes(database)
    from_index = run(*(word.format("harbor") for word in command))
    assert from_index.code == 0
    assert from_index.out == run(*(word.format(path) for word in command)).out
    assert snapshot_reads == []


@pytest.mark.parametrize("options", [(), ("-k", "cm"), ("-n", "shop")], ids=["all", "kind", "namespace"])
def test_diff_of_two_indexes_shows_every_change(published, run, snapshot_reads, tmp_path, options):
    store = published.repository.store
    first = (config("same", 2), config("changed", 3), config("gone", 4), config("again", 5))
    second = (
        config("same", 2),
        config("changed", 9, content="x", created=3),
        config("new", 8),
        config("again", 10, content="y"),
    )
    sets = [f"harbor/{publish_night(store, tmp_path, *night)}" for night in ((1, first), (2, second))]
    answer = run("diff", *sets, *options)
    assert answer.code == 1
    assert [(row[1], row[4]) for row in answer.rows] == [
        ("recreated", "again"),
        ("changed", "changed"),
        ("removed", "gone"),
        ("added", "new"),
    ]
    assert snapshot_reads == []


def test_set_without_an_index_is_read_from_its_snapshot(published, run, snapshot_reads):
    assert run("list", SET, "-k", "ns", "-o", "name").out.splitlines()[-1].startswith("namespace/")
    assert snapshot_reads
    assert not index_path(published).exists()


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: b"", lambda data: None], ids=["cut", "empty", "gone"]
)
def test_index_that_is_not_what_was_recorded_is_not_used(verified, run, snapshot_reads, damage):
    path = index_path(verified)
    data = damage(path.read_bytes())
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    answer = run("list", "harbor", "-o", "name")
    assert answer.code == 0
    assert "namespace/shop" in answer.out.splitlines()
    assert snapshot_reads


def test_index_of_another_snapshot_is_not_used(verified, run, snapshot_reads):
    forged = zstd.compress(b'{"schema_version": 1, "revision": 9}')
    index_path(verified).unlink()
    recipients = [pyrage.x25519.Recipient.from_str(age_pair()[1])]
    index_path(verified).write_bytes(pyrage.encrypt(forged, recipients))
    assert "namespace/shop" in run("list", "harbor", "-o", "name").out.splitlines()
    assert snapshot_reads


def test_second_verification_keeps_the_index_and_repairs_a_wrong_one(verified):
    path = index_path(verified)
    first = path.read_bytes()
    record = verify(verified)
    assert path.read_bytes() == first
    assert record.index == verified.repository.get("harbor", BACKUP_ID).verifications[0].index
    path.unlink()
    path.write_bytes(first[:-1])
    assert verify(verified).index.plaintext == record.index.plaintext
    assert path.read_bytes() != first[:-1]


def test_verification_without_record_or_identity_leaves_no_index(published):
    assert verify(published, write_index=False).index is None
    published.has_identity = False
    assert verify(published).index is None
    assert not index_path(published).exists()


def test_index_that_cannot_be_stored_is_a_warning(published, monkeypatch):
    store = published.repository.store
    original = type(store).create

    def create(self, name, **options):
        if name.endswith(naming.INDEX):
            from etcdkeep.errors import AccessDenied

            raise AccessDenied("no write")
        return original(self, name, **options)

    monkeypatch.setattr(type(store), "create", create)
    record = verify(published)
    assert record.ok
    assert "no index" in record.warnings[-1]


def test_older_revision_and_contents_need_the_snapshot(verified, run, snapshot_reads):
    newest = max(each.mod_revision for each in control_plane())
    assert run("list", "harbor", "--revision", newest).code == 0
    assert snapshot_reads == []
    assert run("list", "harbor", "--revision", newest - 1).code == 0
    assert snapshot_reads
    whole = run("list", "harbor", "-o", "json").json["items"]
    assert whole == [each.json for each in sorted(control_plane(), key=lambda each: each.key) if each.json]


def test_set_cannot_be_opened_without_the_identity(verified, run, monkeypatch):
    monkeypatch.delenv(common.IDENTITY_VARIABLE)
    assert run("list", "harbor").code == 4


def test_forged_set_is_refused(verified, run):
    manifest = verified.folder / "repository" / SET / naming.MANIFEST
    data = manifest.read_bytes()
    manifest.unlink()
    manifest.write_bytes(data + b" ")
    assert run("list", SET).code == 3
    assert run("get", SET, "ns", "shop").code == 3


def test_index_is_written_a_block_at_a_time(verified):
    """Read in blocks, as `objects` does: no line holds it all."""
    data = zstd.decompress(pyrage.decrypt(index_path(verified).read_bytes(), parse_identities(age_pair()[0])))
    head, *_, end = io.BytesIO(data).readlines()
    assert json.loads(head + b"]}")["objects"] == []
    assert end == b"]}\n"
