"""A drill's walk: what becomes a problem of the set, and what is raised and says nothing of it."""

from __future__ import annotations

import pytest

from etcdkeep.drill.run import PHASES, drill_set
from etcdkeep.errors import (
    CommandFailed,
    DrillImpossible,
    IdentityMismatch,
    NoSpace,
    SecretUnavailable,
    VerificationFailed,
)
from tests.builders import age_pair, make_database, make_manifest
from tests.drill_sets import identities, open_repository, publish_snapshot
from tests.fake_workshop import FakeWorkshop, make_programs
from tests.snapshots import Put

REFUSED = CommandFailed("etcdutl 3.5.1 snapshot restore ended with code 1: Error: expected sha256", exit_code=1)
PANIC = CommandFailed("etcd 3.5.1 ended with code 2: panic: page 7", exit_code=2)


@pytest.fixture
def make_set(tmp_path, database):
    def make(**changes):
        path = tmp_path / "etcd.db"
        path.write_bytes(database)
        return publish_snapshot(tmp_path / "repository", path, **changes)

    return make


@pytest.fixture
def workshop(tmp_path):
    return FakeWorkshop(tmp_path / "work")


def drill(found, workshop, keys=None, begun=None):
    repository = open_repository(workshop.folder.parent / "repository")
    record = drill_set(repository, found, keys or identities(), workshop.open, *([begun] if begun else []))
    assert not workshop.folder.exists()
    return record


def test_a_good_set_reaches_the_level_with_the_seconds_of_each_phase(make_set, workshop):
    begun = []
    record = drill(make_set(), workshop, begun=begun.append)
    assert record.problems == ()
    assert [warning.rpartition(": ")[2] for warning in record.warnings] == ["configmaps"]
    assert record.levels == ("drill",)
    assert tuple(record.seconds) == PHASES == tuple(begun)
    assert (record.drill.etcd_version, record.drill.tool) == ("3.5.1", "etcdutl 3.5.1")
    assert record.drill.restore_s == pytest.approx(sum(record.seconds[phase] for phase in PHASES[:3]), abs=0.002)
    assert (record.total_keys, record.live_keys) == (12, 4)


def test_a_drill_makes_a_set_good_or_bad_only_together_with_its_verification(make_set, workshop, tmp_path):
    repository = open_repository(tmp_path / "repository")
    found = make_set(verified=False)
    repository.record(found, drill(found, workshop))
    assert (repository.get("harbor", found.backup_id).state, repository.get("harbor", found.backup_id).levels) == (
        "unverified",
        ("drill",),
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"revision": 7}, "revision is 8, but member cp-0 reported 7", id="revision"),
        pytest.param({"hash": 1}, "but member cp-0 reported 1 ", id="hash"),
        pytest.param({"total_keys": 14}, "total keys is 12, but member cp-0 reported 14", id="keys"),
        pytest.param({"size_bytes": 4096}, "database size is", id="size"),
    ],
)
def test_a_manifest_that_says_something_else(make_set, workshop, changes, said):
    record = drill(make_set(reported=changes), workshop)
    assert record.levels == ()
    (problem,) = record.problems
    assert said in problem


def test_an_etcd_that_serves_something_else(make_set, workshop):
    workshop.served = make_database(Put(b"/registry/pods/default/more", b"x"))
    problems = drill(make_set(), workshop).problems
    assert "the restored etcd is at revision 9, the snapshot at 8" in problems
    assert "pods: the restored etcd serves 1 keys, the snapshot holds 0" in problems


def test_an_etcd_that_forgot_its_history(make_set, workshop):
    workshop.changes = {"hash_kv": 1}
    (problem,) = drill(make_set(), workshop).problems
    assert problem.startswith("HashKV of the restored etcd is 1")


@pytest.mark.parametrize(
    ("faults", "said", "seconds"),
    [
        pytest.param({"restore": REFUSED}, "Error: expected sha256", {"unseal"}, id="restore-refused"),
        pytest.param({"serve": PANIC}, "a real etcd does not start from it: etcd 3.5.1 ended with code 2", {"unseal", "restore"}, id="etcd-dies-at-once"),
        pytest.param({"keys": PANIC}, "ended while it was read: etcd 3.5.1 ended with code 2", {"unseal", "restore", "start"}, id="etcd-dies-later"),
    ],
)  # fmt: skip
def test_what_the_programs_refuse_is_a_problem_of_the_set(make_set, workshop, faults, said, seconds):
    workshop.faults = faults
    record = drill(make_set(), workshop)
    assert record.levels == ()
    assert said in record.problems[0]
    assert set(record.seconds) == seconds


@pytest.mark.parametrize("task", ["restore", "serve", "keys"])
@pytest.mark.parametrize("fault", [DrillImpossible("killed by SIGKILL"), NoSpace("no room")], ids=["killed", "full"])
def test_what_the_machine_is_to_blame_for_is_raised(make_set, workshop, task, fault):
    workshop.faults = {task: fault}
    with pytest.raises(type(fault)):
        drill(make_set(), workshop)
    assert not workshop.folder.exists()


def test_where_no_etcd_starts_at_all_the_set_is_not_blamed(make_set, workshop):
    workshop.faults = {
        "serve": PANIC,
        "serve empty": CommandFailed("etcd 3.5.1 ended with code 1: no IPv4", exit_code=1),
    }
    with pytest.raises(DrillImpossible, match=r"not even without the backup: .*no IPv4"):
        drill(make_set(), workshop)
    assert workshop.done == ["restore", "serve", "serve empty"]


def test_programs_too_old_are_told_before_anything_is_opened(make_set, workshop):
    workshop.programs = make_programs("3.4.27", "3.4.27")
    with pytest.raises(DrillImpossible, match=r"the backup is of etcd 3\.5\.1"):
        drill(make_set(), workshop)
    assert workshop.done == []


def test_newer_programs_are_a_warning(make_set, workshop):
    workshop.programs = make_programs("3.6.1", "3.6.1")
    record = drill(make_set(), workshop)
    assert record.ok
    assert "drilled with etcd 3.6.1" in record.warnings[0]


def altered(folder, name, change):
    path = next(folder.rglob(name))
    data = bytearray(path.read_bytes())
    change(data)
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda data: data.__setitem__(300, data[300] ^ 1), "the sealed stream was altered", id="altered"),
        pytest.param(lambda data: data.__delitem__(slice(-40, None)), "the sealed stream was altered or cut", id="cut"),
    ],
)
def test_altered_bytes_in_the_repository(make_set, workshop, tmp_path, change, said):
    found = make_set()
    altered(tmp_path / "repository", "etcd.db.zst.age", change)
    (problem,) = drill(found, workshop).problems
    assert said in problem


def test_an_artifact_that_is_gone(make_set, workshop, tmp_path):
    found = make_set()
    next((tmp_path / "repository").rglob("etcd.db.zst.age")).unlink()
    assert drill(found, workshop).problems == ("etcd.db.zst.age is not in the repository",)


def test_another_plaintext_than_the_manifest_s(make_set, workshop):
    plaintext = {"size_bytes": 10**6, "sha256": "0" * 64}
    found = make_set()
    artifact = found.manifest.artifacts[0]
    changed = artifact.model_copy(update={"plaintext": artifact.plaintext.model_copy(update=plaintext)})
    other = type(found)(**{**vars(found), "manifest": found.manifest.model_copy(update={"artifacts": (changed,)})})
    (problem,) = drill(other, workshop).problems
    assert "the manifest says 0000" in problem


def test_bytes_that_are_no_snapshot(tmp_path, workshop, make_set):
    found = make_set()
    workshop.served = make_database()
    artifact = found.manifest.artifacts[0]
    junk = tmp_path / "junk"
    junk.write_bytes(b"junk" * 1000)
    folder = tmp_path / "repository/harbor" / found.backup_id
    (folder / artifact.name).unlink()
    from etcdkeep.adapters.stores.directory import DirectoryStore
    from etcdkeep.backup.spool import Spool

    spool = Spool(DirectoryStore(tmp_path / "repository"), "harbor", found.backup_id, (age_pair()[1],))
    sealed = spool.seal(artifact.name, "etcd", [junk.read_bytes()])
    other = type(found)(**{**vars(found), "manifest": found.manifest.model_copy(update={"artifacts": (sealed,)})})
    (problem,) = drill(other, workshop).problems
    assert "is not an etcd snapshot" in problem


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        pytest.param(None, SecretUnavailable, id="no-identity"),
        pytest.param("another", IdentityMismatch, id="another-identity"),
    ],
)
def test_without_the_right_identity_the_set_is_not_blamed(make_set, workshop, tmp_path, keys, error):
    from etcdkeep.sealing.age_keys import parse_identities

    given = parse_identities(age_pair(keys)[0]) if keys else None
    with pytest.raises(error):
        drill_set(open_repository(tmp_path / "repository"), make_set(), given, workshop.open)
    assert not workshop.folder.exists()


def test_a_set_whose_manifest_cannot_be_trusted_is_refused(make_set, workshop, tmp_path):
    found = make_set()
    altered(tmp_path / "repository", "manifest.json", lambda data: data.__setitem__(slice(0, 1), b" "))
    with pytest.raises(VerificationFailed, match="cannot be drilled"):
        drill(open_repository(tmp_path / "repository").get("harbor", found.backup_id), workshop)


def test_a_set_without_a_snapshot_is_refused(make_set, workshop):
    found = make_set()
    other = type(found)(**{**vars(found), "manifest": make_manifest(artifacts=())})
    with pytest.raises(VerificationFailed, match="has no snapshot"):
        drill(other, workshop)
