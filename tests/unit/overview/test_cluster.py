"""A cluster and a backup in full."""

from __future__ import annotations

import subprocess
from datetime import timedelta
from shutil import which

import pytest

from etcdkeep import naming
from etcdkeep.backup.publish import record_attempt
from etcdkeep.documents import read, write
from etcdkeep.freshness.check import check_stored, not_checked
from etcdkeep.freshness.removals import looks_removed, signed_removals
from etcdkeep.overview.backup_set import PROVES, set_row, set_view, stock_commands
from etcdkeep.overview.cluster import ATTEMPTS, cluster_view
from etcdkeep.sets.pins import Pin
from etcdkeep.sets.results import DrillResult
from tests.builders import make_verification, signing_pair
from tests.shelf import ARTIFACTS, Shelf

HOSTILE = "<script>alert(1)</script> [x](javascript:y) \x1b[2J\u202e end"


@pytest.fixture
def shelf(tmp_path):
    made = Shelf(tmp_path, rehearse=False, schedule="0 2 * * *", retention={"daily": 3, "min_good": 1}, drill={})
    for day in range(6, -1, -1):
        made.add(day + 0.1)
    return made


def view_of(shelf, **in_use):
    checked = check_stored(shelf.repository, shelf.cluster, shelf.now)
    removed = {name: checked.stored.removed[name] for name in looks_removed(checked.stored, checked.stored.sets, shelf.now)}  # fmt: skip
    gone = signed_removals(shelf.repository.records, "harbor", removed)
    return cluster_view(checked, in_use, [], shelf.now, gone)


def test_what_keeps_each_backup_and_until_when(shelf):
    view = view_of(shelf)
    assert [row.backup_id for row in view.sets] == list(reversed(shelf.ids()))
    assert [row.kept for row in view.sets] == [True] * 3 + [False] * 4
    newest, oldest = view.sets[0], view.sets[-1]
    assert "newest verified" in newest.why_kept
    assert newest.kept_until is not None
    assert shelf.now + timedelta(days=2) <= newest.kept_until <= shelf.now + timedelta(days=4)
    assert oldest.kept_until == shelf.now + timedelta(days=1)
    assert (view.retention, view.enforced) == ("daily 3, min good 1", False)


def test_a_pin_and_a_use_keep_a_backup(shelf):
    pinned, used = shelf.ids()[0], shelf.ids()[1]
    shelf.repository.record_pin(shelf.get(pinned), Pin(pinned=True, reason=HOSTILE, by="alice"))
    view = view_of(shelf, **{used: "restore-a"})
    by_id = {row.backup_id: row for row in view.sets}
    assert by_id[pinned].kept_until is None
    assert by_id[pinned].pinned is not None
    assert "\x1b" not in by_id[pinned].pinned
    assert (by_id[used].kept, by_id[used].in_use) == (True, "restore-a")


def test_without_retention_nothing_is_said_of_keeping(tmp_path):
    shelf = Shelf(tmp_path, rehearse=False)
    shelf.add(1)
    view = view_of(shelf)
    assert (view.sets[0].kept, view.sets[0].kept_until, view.retention) == (None, None, "")


def test_runs_that_left_no_backup(shelf):
    failed, running, removed = shelf.identifier(0.5, "aaaaaaaa"), shelf.identifier(0.01, "bbbbbbbb"), shelf.identifier(30)  # fmt: skip
    for identifier in (failed, running, removed):
        record_attempt(shelf.store, "harbor", identifier, "scheduled__x")
    shelf.bury(removed)
    assert [(each.backup_id, each.running) for each in view_of(shelf).attempts] == [(running, True), (failed, False)]


def test_of_many_runs_that_left_no_backup_the_newest_are_told(shelf):
    failed = [shelf.identifier(10 + number / 100) for number in range(ATTEMPTS + 3)]
    for identifier in failed:
        record_attempt(shelf.store, "harbor", identifier, "scheduled__x")
    view = view_of(shelf)
    assert [each.backup_id for each in view.attempts] == failed[:ATTEMPTS]
    assert view.older_attempts == 3


def test_a_run_that_failed_is_not_hidden_by_a_removal_that_nobody_signed(shelf):
    failed, other = shelf.identifier(20, "aaaaaaaa"), shelf.identifier(30)
    record_attempt(shelf.store, "harbor", failed, "scheduled__x")
    shelf.bury(other)
    (signed,) = shelf.names(f"harbor/removed/{other}/")
    for name, data in (
        ("20260101T000000.000000Z.json", b"{}"),
        (signed.rpartition("/")[2], read(shelf.store, signed)),
    ):
        write(shelf.store, f"harbor/removed/{failed}/{name}", data)
    view = view_of(shelf)
    assert [each.backup_id for each in view.attempts] == [failed]
    assert view.row.calendar[-21] == "b"


def test_drills_with_their_phases_and_the_first_certificate(shelf):
    newest = shelf.ids()[-1]
    drill = DrillResult(etcd_version="3.5.16", tool="etcdutl 3.5.16", restore_s=8.0)
    expires = shelf.now + timedelta(days=9)
    for record in (
        make_verification(at=shelf.now, expires_at=expires, expires_first=f"cp-0 {HOSTILE}"),
        make_verification(at=shelf.now, levels=("drill",), complete=False, drill=drill, seconds={"restore": 3.0, "start": 2.0}),
    ):  # fmt: skip
        shelf.repository.record(shelf.get(newest), record)
    view = view_of(shelf)
    assert [(each.backup_id, each.check.seconds, each.check.restore_s) for each in view.drills] == [(newest, {"restore": 3.0, "start": 2.0}, 8.0)]  # fmt: skip
    assert view.certificate is not None
    assert (view.certificate.expires_at, view.certificate.status) == (expires, "WARNING")
    assert "\x1b" not in view.certificate.file


def test_the_dags_of_a_cluster_on_a_queue(tmp_path):
    shelf = Shelf(tmp_path, verify_queue="verify", drill={})
    shelf.add(1)
    view = view_of(shelf)
    assert (view.restore_dag, view.recover_dag, view.drill_dag) == ("restore__verify", "recover_objects__verify", "drill__harbor")  # fmt: skip


def test_a_cluster_that_could_not_be_read(shelf):
    assert cluster_view(not_checked("harbor", "gone", shelf.now), {}, [], shelf.now) is None


# --- one backup ----------------------------------------------------------------------------------------------------


def set_of(shelf, identifier):
    found = shelf.get(identifier)
    return set_view(found, shelf.cluster, set_row(found, shelf.now))


def test_a_backup_shows_what_each_level_proved_and_its_artifacts(shelf):
    view = set_of(shelf, shelf.ids()[-1])
    assert list(view.proved) == ["stored", "sealed", "etcd", "pki"]
    assert set(view.proved.values()) <= set(PROVES.values())
    assert [each.name for each in view.artifacts] == list(ARTIFACTS)
    assert view.signing_key == signing_pair()[1]
    assert (view.row.believed, view.doubt) == (True, "")
    assert view.facts["Run"].startswith("backup__harbor, scheduled__")


def test_of_an_unsigned_backup_nothing_is_shown_but_that(shelf):
    identifier = shelf.ids()[-1]
    shelf.store.delete(naming.set_prefix("harbor", identifier) + naming.SIGNATURE)
    view = set_of(shelf, identifier)
    assert (view.row.state, view.row.believed) == ("unsigned", False)
    assert "no signature" in view.doubt
    assert (view.artifacts, view.facts, view.members, view.stock) == ((), {}, (), "")


def test_a_record_that_is_not_believed_is_named(shelf):
    identifier = shelf.ids()[-1]
    write(shelf.store, f"harbor/{identifier}/verification/20261123T023100.000000Z-etcd.json", b"{}")
    (sentence,) = set_of(shelf, identifier).refused
    assert "not a signed record" in sentence


def test_text_of_others_is_one_harmless_line(shelf):
    identifier = shelf.add(0.05, run={"reason": HOSTILE + "\nsecond line", "run_id": HOSTILE})
    view = set_of(shelf, identifier)
    for text in (view.row.reason, view.facts["Reason"], view.facts["Run"]):
        assert "end" in text
        assert not {"\x1b", "\u202e", "\n"} & set(text)


@pytest.mark.parametrize(
    ("repository", "fetch"),
    [
        ("gs://bucket/etcd", "gcloud storage cp 'gs://bucket/etcd/harbor/{}/*' ."),
        ("s3://bucket/etcd", "aws s3 cp --recursive s3://bucket/etcd/harbor/{} ."),
        ("file:///srv/my backups", "cp '/srv/my backups/harbor/{}'/*.* ."),
    ],
)
def test_the_commands_fetch_from_where_the_backup_is(shelf, repository, fetch):
    found = shelf.get(shelf.ids()[-1])
    cluster = shelf.cluster.model_copy(update={"repository": repository})
    assert fetch.format(found.backup_id) in stock_commands(found, cluster).splitlines()


@pytest.mark.skipif(
    not all(map(which, ("openssl", "jq"))), reason="openssl or jq is missing: apt-get install openssl jq"
)
def test_the_commands_check_the_signature_with_stock_tools(shelf, tmp_path):
    """Those that need no age identity; docs/open-a-backup.md has them all, and its test runs them all."""
    found = shelf.get(shelf.ids()[-1])
    lines = stock_commands(found, shelf.cluster).splitlines()[1:6]
    folder = tmp_path / "open"
    folder.mkdir()
    done = subprocess.run(["bash", "-e", "-o", "pipefail", "-c", "\n".join(lines)], cwd=folder, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Signature Verified Successfully" in done.stdout
    assert done.stdout.count(": OK") == len(ARTIFACTS)
