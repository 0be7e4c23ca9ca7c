"""A store that refuses, fails or alters, and keys that do not fit: no second set, no half set, no good set gone."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

import pytest
from airflow.sdk.exceptions import AirflowSkipException

from etcdkeep.adapters.stores.gcs import RETRY, GcsStore
from etcdkeep.errors import (
    AccessDenied,
    ConfigError,
    IdentityMismatch,
    NotFound,
    ObjectDamaged,
    SecretUnavailable,
    StoreUnavailable,
    VerificationFailed,
)
from etcdkeep.sealing.age_keys import generate_identity
from etcdkeep.sealing.signature import generate_signing_key
from tests.backup_run import assert_nothing_lost, assert_one_good_set

COPY = r"^POST .*/rewriteTo/"
MANIFEST = r"^PUT .*upload.*manifest\.json&"
READ = r"^GET /download/.*etcd\.db\.zst\.age"


@pytest.fixture
def hasty(monkeypatch):
    """Let the client give up after a second instead of two minutes."""
    monkeypatch.setitem(GcsStore.__init__.__kwdefaults__, "retry", RETRY.with_timeout(1.0))


def raw(run, name: str) -> Path:
    """Return the file behind an object of the run's set."""
    return Path(run.cluster.repository.removeprefix("file://"), run.name, run.identifier, name)


REFUSALS = [
    pytest.param(COPY, 401, AccessDenied, "credentials were not accepted", id="401-copy"),
    pytest.param(COPY, 403, AccessDenied, "403.*roles/storage.objectUser", id="403-copy"),
    pytest.param(COPY, 404, NotFound, "not in the spool", id="404-copy"),
    pytest.param(COPY, 412, ObjectDamaged, "not the artifact that was sealed", id="412-copy"),
    pytest.param(COPY, 503, StoreUnavailable, "no usable answer from the server", id="503-copy"),
    pytest.param(MANIFEST, 403, AccessDenied, "403.*roles/storage.objectUser", id="403-manifest"),
    pytest.param(MANIFEST, 412, NotFound, "no backup skiff/", id="412-manifest"),
    pytest.param(MANIFEST, 503, StoreUnavailable, "no usable answer from the server", id="503-manifest"),
]


@pytest.mark.parametrize(("match", "status", "error", "said"), REFUSALS)
def test_a_bucket_that_says_no_has_no_set_until_it_says_yes(site, start_run, hasty, match, status, error, said):
    run = start_run("skiff", bucket=True)
    run.until("copy_out")
    with site.faults.gcs("status", match=match, value=status) as fault:
        with pytest.raises(error, match=said) as caught:
            run.task("upload")
        assert site.faults.hits(fault.id)
    assert run.cluster.repository in str(caught.value)
    assert run.own_sets() == []
    run.whole()
    assert_one_good_set(run)


def test_a_bucket_that_says_no_to_every_try_has_nothing_left_in_it(site, start_run, hasty):
    run = start_run("skiff", bucket=True)
    run.until("copy_out")
    with site.faults.gcs("status", match=MANIFEST, value=503), pytest.raises(StoreUnavailable):
        run.task("upload")
    assert_nothing_lost(run)


@pytest.mark.parametrize("match", [COPY, MANIFEST, READ], ids=["copy", "manifest", "read-back"])
def test_503_for_a_while_is_ridden_over(site, start_run, match):
    run = start_run("skiff", bucket=True)
    with site.faults.gcs("status", match=match, value=503, times=2) as fault:
        run.whole()
        assert site.faults.hits(fault.id) == 2
    assert_one_good_set(run)


def test_two_tries_that_publish_at_once_make_one_set(start_run):
    run = start_run("skiff", bucket=True)
    run.until("copy_out")
    answers = []
    tries = [Thread(target=lambda: answers.append(run.task("upload"))) for _ in range(2)]
    for each in tries:
        each.start()
    for each in tries:
        each.join()
    assert answers
    assert all(answer == answers[0] for answer in answers)
    run.whole()
    assert_one_good_set(run)


def test_clearing_a_finished_run_makes_no_second_set(start_run):
    run = start_run("skiff")
    made = run.whole()
    run.outputs.clear()
    again = run.whole()
    assert again.manifest_bytes == made.manifest_bytes
    assert_one_good_set(run)


STORED_FAULTS = [
    pytest.param("etcd.db.zst.age", lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:], "in the repository", id="altered-head"),
    pytest.param("etcd.db.zst.age", lambda data: data[:-1] + bytes([data[-1] ^ 1]), "in the repository", id="altered-last-byte"),
    pytest.param("etcd.db.zst.age", lambda data: data[: len(data) // 2], "in the repository", id="truncated"),
    pytest.param("etcd.db.zst.age", lambda data: data + b"\0", "in the repository", id="longer"),
    pytest.param("etcd.db.zst.age", lambda data: b"", "in the repository", id="emptied"),
    pytest.param("etcd.db.zst.age", None, "is not in the repository", id="missing"),
    pytest.param("manifest.json", lambda data: data.replace(b"harbor", b"harbou").replace(b"skiff", b"skife"), "signature", id="manifest-altered"),
    pytest.param("manifest.json.sig", lambda data: data[::-1], "signature", id="signature-altered"),
    pytest.param("manifest.json.sig", None, "signature", id="signature-missing"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "said"), STORED_FAULTS)
def test_a_set_that_changed_in_the_repository_is_marked_bad_and_the_older_one_stays_good(start_run, name, change, said):
    run = start_run("skiff")
    run.whole()
    path = raw(run, name)
    data = path.read_bytes()
    path.unlink()
    if change:
        path.write_bytes(change(data))
    run.assets.clear()
    with pytest.raises(VerificationFailed, match=said):
        run.task("verify")
    assert run.assets == {}
    word = "unsigned" if change is None and name.endswith(".sig") else "foreign" if "manifest" in name else "bad"
    assert [made.state for made in run.own_sets()] == [word]
    newest = run.repository.newest("skiff")
    assert newest is not None
    assert newest.backup_id != run.identifier


def test_a_set_without_its_manifest_is_no_backup(start_run):
    run = start_run("skiff")
    run.whole()
    raw(run, "manifest.json").unlink()
    assert run.own_sets() == []
    with pytest.raises(NotFound, match=f"no backup skiff/{run.identifier}"):
        run.task("verify")


@pytest.mark.parametrize("action", ["corrupt", "truncate"])
def test_a_bucket_that_gives_other_bytes_back_makes_a_bad_set(site, start_run, hasty, action):
    run = start_run("skiff", bucket=True)
    run.until("upload")
    with (
        site.faults.gcs(action, match=READ, after=1000),
        pytest.raises((VerificationFailed, ObjectDamaged, StoreUnavailable)),
    ):
        run.task("verify")
    assert run.assets == {}
    assert [made.state for made in run.own_sets()] != ["good"]


def test_a_wrong_age_identity_says_nothing_about_the_set(start_run, tmp_path):
    (tmp_path / "stranger.txt").write_text(generate_identity()[0])
    run = start_run("skiff", age_identity={"path": str(tmp_path / "stranger.txt")})
    run.until("upload")
    with pytest.raises(
        IdentityMismatch, match=r"skiff/.*/etcd\.db\.zst\.age, sealed to age1.*use the identity of one of them"
    ):
        run.task("verify")
    assert [made.state for made in run.own_sets()] == ["unverified"]
    run.reconfigure()
    run.whole()
    assert_one_good_set(run)


def test_without_an_age_identity_verify_stops_at_stored_and_says_so(start_run):
    run = start_run("skiff", age_identity=None)
    run.until("upload")
    with pytest.raises(AirflowSkipException, match=r"level stored.*no age_identity.*python -m etcdkeep verify"):
        run.task("verify")
    (made,) = run.own_sets()
    assert (made.state, made.levels) == ("unverified", ("stored",))
    assert run.assets == {}
    run.reconfigure()
    run.whole()
    assert_one_good_set(run)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        pytest.param({"signing": {"key": {"path": "/nowhere/signing.pem"}}}, SecretUnavailable, "/nowhere/signing.pem", id="no-signing-key"),
        pytest.param({"signing": {"public_keys": [generate_signing_key()[1]]}}, ConfigError, "public_keys", id="untrusted-signing-key"),
        pytest.param({"signing": {"key": None}}, ConfigError, "no key to sign for purpose", id="signing-key-not-set"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_sign_publishes_nothing(start_run, changes, error, said):
    run = start_run("skiff")
    run.until("copy_out")
    run.reconfigure(**changes)
    with pytest.raises(error, match=said):
        run.task("upload")
    run.reconfigure()
    assert_nothing_lost(run)
