"""Snapshots that are damaged, empty, huge or encrypted: what the pipeline makes of each."""

from __future__ import annotations

import base64
import hashlib
import json
import mmap
import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml

from etcdkeep.backup.handover import SAVED
from etcdkeep.backup.snapshot import SavedSnapshot
from etcdkeep.errors import VerificationFailed
from tests.backup_run import BackupRun, assert_one_good_set
from tests.damaged_snapshots import DAMAGES, sample
from tests.etcd import etcd_program, running_etcd
from tests.process import resident_bytes
from tests.snapshots import Edit

if TYPE_CHECKING:
    from pathlib import Path

GIB = 2**30
TRAILER_BYTES = 32


def file_in_pod(run: BackupRun) -> Path:
    """Return where the saved snapshot really lies."""
    (path,) = run.handle.node.root.glob(f"containers/*/*/tmp/*{run.identifier}*.db")
    return path


def reported(path: Path) -> dict[str, int]:
    """Return what the real tool reports of a file, as the manifest keeps it."""
    argv = (etcd_program("etcdutl"), "snapshot", "status", str(path), "-w", "json")
    found = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    return {
        "hash": found["hash"],
        "revision": found["revision"],
        "total_keys": found["totalKey"],
        "size_bytes": found["totalSize"],
    }


def saved_as(run: BackupRun, snapshot: bytes, **facts: int) -> None:
    """Let the pod's file be another one, and the member have reported these facts of it."""
    file_in_pod(run).write_bytes(snapshot)
    report_other_facts(run, {"size_bytes": len(snapshot) - TRAILER_BYTES, **facts})


def report_other_facts(run: BackupRun, facts: dict[str, int]) -> None:
    """Let the member have reported these facts of its file, signed as the task signs them."""
    saved = SavedSnapshot.model_validate(run.outputs["snapshot"])
    run.hand_over("snapshot", SAVED, saved.model_copy(update={"snapshot": saved.snapshot.model_copy(update=facts)}))


SEALED = (
    "truncated-and-sealed",
    "meta-1-flipped",
    "page-zeroed",
    "freelist-swapped",
    "unreachable-page",
    "record-created-later",
)
BROKEN_SEAL = ("bit-in-value", "trailer-changed")


@pytest.mark.parametrize("name", SEALED)
def test_a_damaged_snapshot_with_a_fitting_trailer_is_marked_bad(start_run, name):
    run = start_run("skiff")
    run.until("snapshot")
    saved_as(run, DAMAGES[name].apply(sample()))
    run.until("upload")
    with pytest.raises(VerificationFailed, match=re.escape(DAMAGES[name].says)) as caught:
        run.task("verify")
    assert f"backup {run.name}/{run.identifier} is marked bad" in str(caught.value)
    assert run.assets == {}
    run.task("cleanup")
    (made,) = run.own_sets()
    assert (made.state, made.levels) == ("bad", ("stored", "sealed"))
    assert run.leftovers() == []
    newest = run.repository.newest("skiff")
    assert newest is not None
    assert newest.backup_id != run.identifier


@pytest.mark.parametrize("name", BROKEN_SEAL)
def test_a_snapshot_that_does_not_match_its_trailer_is_taken_anew(start_run, name, caplog):
    run = start_run("skiff")
    run.until("snapshot")
    saved_as(run, DAMAGES[name].apply(sample()), size_bytes=len(sample()) - TRAILER_BYTES)
    run.task("copy_out")
    assert "could not be copied out" in caplog.text
    run.whole()
    assert_one_good_set(run)


def test_another_snapshot_than_the_member_reported_is_marked_bad(start_run):
    run = start_run("skiff")
    run.until("snapshot")
    saved_as(run, sample())
    run.until("upload")
    with pytest.raises(VerificationFailed, match=r"hash is \d+, but member kube-etcd-0 reported \d+ \(etcd"):
        run.task("verify")
    assert [made.state for made in run.own_sets()] == ["bad"]


def test_a_fresh_etcd_without_a_key_is_a_good_backup(start_run, tmp_path):
    with running_etcd(tmp_path / "fresh") as etcd:
        empty = etcd.snapshot(tmp_path / "empty.db")
    run = start_run("skiff")
    run.until("snapshot")
    saved_as(run, empty.read_bytes(), **reported(empty))
    made = run.whole()
    assert_one_good_set(run)
    assert made.verifications[-1].live_keys == 0


@pytest.mark.slow
def test_a_database_of_more_than_two_gib_is_backed_up_in_flat_memory(start_run, tmp_path):
    run = start_run("skiff")
    run.until("snapshot")
    path = file_in_pod(run)
    grow(path, 2 * GIB + 64 * 2**20)
    report_other_facts(run, reported(path))
    before = resident_bytes()
    run.task("copy_out")
    made = run.whole()
    assert_one_good_set(run)
    assert made.manifest.artifact("etcd").plaintext.size_bytes > 2 * GIB
    assert resident_bytes() - before < 100 * 2**20


def grow(path: Path, size_bytes: int) -> None:
    """Lengthen a snapshot with free pages, as a database has them after a great deletion; the file stays sparse."""

    edit = Edit(path.read_bytes())
    edit.set_meta(page_count=size_bytes // edit.page_size)
    with path.open("r+b") as file:
        file.write(edit.image)
        file.truncate(size_bytes)
        with mmap.mmap(file.fileno(), size_bytes, prot=mmap.PROT_READ) as image:
            digest = hashlib.sha256(image).digest()
        file.seek(size_bytes)
        file.write(digest)


KEY = "/registry/secrets/shop/encrypted-at-rest"
VALUE = "k8s:enc:aescbc:v1:key-of-2026:0123456789abcdef"


def encryption_configuration(key_name: str) -> str:
    secret = base64.b64encode(os.urandom(32)).decode()
    provider = {"aescbc": {"keys": [{"name": key_name, "secret": secret}]}}
    rule = {"resources": ["secrets"], "providers": [provider, {"identity": {}}]}
    return yaml.safe_dump(
        {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration", "resources": [rule]}
    )


@pytest.fixture
def encrypted_value(site, older_run):
    older_run("harbor")
    harbor = site.clusters["harbor"]
    harbor.etcdctl("put", KEY, VALUE)
    configuration = harbor.node.root / "etc/kubernetes/encryption.yaml"
    yield configuration
    harbor.etcdctl("del", KEY)
    status = json.loads(harbor.etcdctl("endpoint", "status", "-w", "json").stdout)
    harbor.etcdctl("compact", "--physical", str(status[0]["Status"]["header"]["revision"]))
    configuration.unlink(missing_ok=True)


@pytest.mark.parametrize("key_name", [pytest.param(None, id="none"), pytest.param("another", id="another")])
def test_encrypted_values_without_their_key_in_the_set_are_not_verified(start_run, encrypted_value, key_name):
    extra = ()
    if key_name:
        encrypted_value.write_text(encryption_configuration(key_name))
        extra = ("etc/kubernetes/encryption.yaml",)
    run = start_run("harbor")
    run.reconfigure(extra_paths=[f"{run.handle.node.view}/{path}" for path in extra])
    run.until("upload")
    with pytest.raises(VerificationFailed, match=r"encrypted with aescbc key 'key-of-2026'.*extra_paths"):
        run.task("verify")
    (made,) = run.own_sets()
    assert (made.state, made.levels) == ("bad", ("stored", "sealed", "etcd"))
    assert run.repository.newest("harbor").backup_id != run.identifier


def test_encrypted_values_with_their_key_in_the_set_are_good(start_run, encrypted_value):
    encrypted_value.write_text(encryption_configuration("key-of-2026"))
    run = start_run("harbor")
    run.reconfigure(extra_paths=[f"{run.handle.node.view}/etc/kubernetes/encryption.yaml"])
    run.whole()
    assert "pki" in assert_one_good_set(run).levels
