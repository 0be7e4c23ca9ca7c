"""Each level's failure has its own sentence, and nothing that cannot be known makes a set bad."""

from __future__ import annotations

import errno
import os
import tarfile
from io import BytesIO

import pytest

from etcdkeep import naming
from etcdkeep.errors import IdentityMismatch, NoSpace, StoreUnavailable
from etcdkeep.sealing import private_file
from etcdkeep.sealing.age_keys import parse_identities
from etcdkeep.sets.manifest import Artifact, compare_with_member
from etcdkeep.snapshot import SnapshotReport, open_snapshot
from etcdkeep.verify.run import verify_set
from tests.builders import BACKUP_ID, age_pair, make_database, make_reported
from tests.damaged_snapshots import DAMAGES, sample
from tests.fakes import snapshot_status
from tests.snapshots import Delete, Put

PREFIX = naming.set_prefix("harbor", BACKUP_ID)
ENCRYPTED = Put(b"/registry/secrets/default/s", b"k8s:enc:aescbc:v1:key1:0123456789abcdef")
ENCRYPTION_CONFIGURATION = b"""\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources: [{resources: [secrets], providers: [{aescbc: {keys: [{name: key1, secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}}]}]
"""


def verified(site, *, identities=True, progress=None):
    found = site.repository.get("harbor", BACKUP_ID)
    keys = site.identities() if identities else None
    return verify_set(site.repository, site.cluster, found, keys, progress)


def replace(site, name, change):
    """Replace a stored object by `change` of its bytes."""
    path = site.folder / "repository" / PREFIX / name
    data = change(path.read_bytes())
    path.unlink()
    path.write_bytes(data)


def publish_with(site, **plaintexts):
    """Publish a set whose artifacts of these kinds hold other plaintexts, each sealed and recorded as if it were right."""
    manifest = site.compose()
    spool = site.spool(BACKUP_ID)
    artifacts: list[Artifact] = []
    for artifact in manifest.artifacts:
        data = plaintexts.get(artifact.kind.replace("-", "_"))
        if data is not None:
            artifact = spool.seal(artifact.name, artifact.kind, [data], artifact.node)
        artifacts.append(artifact)
    return site.publish(manifest.model_copy(update={"artifacts": tuple(artifacts)}))


def test_a_sound_set_reaches_every_level(site):
    site.backup()
    seen = []
    record = verified(site, progress=lambda done, total: seen.append((done, total)))
    assert record.problems == record.warnings == ()
    assert record.levels == ("stored", "sealed", "etcd", "pki")
    assert record.complete
    assert record.live_keys == 4
    assert record.total_keys > record.live_keys
    assert {"read", "etcd", "control-plane"} <= set(record.seconds)
    total = site.repository.get("harbor", BACKUP_ID).manifest.stored_bytes
    assert seen[-1] == (total, total)


def test_without_an_identity_only_the_stored_bytes_are_compared(site):
    site.backup()
    record = verified(site, identities=False)
    assert (record.levels, record.complete, record.ok) == (("stored",), False, True)
    replace(site, naming.ETCD_ARTIFACT, lambda data: data[:-1])
    record = verified(site, identities=False)
    assert (record.levels, record.ok) == ((), False)


ALTERATIONS = [
    pytest.param(lambda data: data[:-1], id="cut"),
    pytest.param(lambda data: b"", id="emptied"),
    pytest.param(lambda data: data + b"x", id="longer"),
    pytest.param(lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:], id="flipped-in-the-header"),
    pytest.param(lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], id="flipped-in-the-payload"),
    pytest.param(lambda data: b"x" * len(data), id="replaced"),
]


@pytest.mark.parametrize("change", ALTERATIONS)
@pytest.mark.parametrize("name", [naming.ETCD_ARTIFACT, "control-plane.tar.zst.age", naming.ACCESS_ARTIFACT])
def test_altered_bytes_in_the_repository_are_level_stored(site, change, name):
    site.backup()
    replace(site, name, change)
    record = verified(site)
    assert record.levels == ()
    assert any(problem.startswith(f"{name} in the repository has ") for problem in record.problems)


def test_a_missing_artifact_is_level_stored(site):
    site.backup()
    site.repository.store.delete(PREFIX + naming.ETCD_ARTIFACT)
    record = verified(site)
    assert record.levels == ()
    assert record.problems == ("etcd.db.zst.age is not in the repository",)


def test_other_plaintext_than_recorded_is_level_sealed(site):
    manifest = site.compose()
    size = manifest.artifacts[0].plaintext.size_bytes
    wrong = manifest.artifacts[0].model_dump() | {"plaintext": {"size_bytes": size, "sha256": "0" * 64}}
    site.publish(manifest.model_copy(update={"artifacts": (Artifact.model_validate(wrong), *manifest.artifacts[1:])}))
    record = verified(site)
    assert record.levels == ("stored",)
    assert record.problems[0].startswith("etcd.db.zst.age, opened has ")


def test_more_plaintext_than_recorded_is_given_up_as_level_sealed(site):
    manifest = site.compose()
    short = manifest.artifacts[0].model_dump() | {"plaintext": {"size_bytes": 100, "sha256": "0" * 64}}
    site.publish(manifest.model_copy(update={"artifacts": (Artifact.model_validate(short), *manifest.artifacts[1:])}))
    record = verified(site)
    assert record.levels == ("stored",)
    assert "holds more than the 100 bytes recorded for it" in record.problems[0]


def test_a_wrong_identity_says_nothing_of_the_set(site):
    site.backup()
    found = site.repository.get("harbor", BACKUP_ID)
    with pytest.raises(IdentityMismatch):
        verify_set(site.repository, site.cluster, found, parse_identities(age_pair("other")[0]))


def test_a_wrong_identity_does_not_hide_altered_bytes(site):
    found = site.backup()
    for artifact in found.manifest.artifacts:
        replace(site, artifact.name, lambda data: data[:-1])
    record = verify_set(site.repository, site.cluster, found, parse_identities(age_pair("other")[0]))
    assert record.levels == ()
    assert len([problem for problem in record.problems if " in the repository has " in problem]) == 3


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_of_a_snapshot_is_level_etcd(site, name):
    damage = DAMAGES[name]
    publish_with(site, etcd=damage.apply(sample()))
    record = verified(site)
    assert record.levels == ("stored", "sealed")
    assert any(problem.startswith("etcd.db.zst.age: ") for problem in record.problems)
    assert any(damage.says in problem for problem in record.problems)
    assert not any("None" in problem for problem in record.problems)


def test_what_is_no_snapshot_is_level_etcd(site):
    publish_with(site, etcd=b"not a snapshot")
    record = verified(site)
    assert record.levels == ("stored", "sealed")
    assert any("this is not an etcd snapshot" in problem for problem in record.problems)


def test_a_sound_snapshot_of_other_data_is_seen_by_what_the_member_said(site):
    publish_with(site, etcd=make_database(Put(b"/registry/x", b"y")))
    record = verified(site)
    assert record.levels == ("stored", "sealed")
    said = " ".join(record.problems)
    for fact in ("hash is ", "revision is 9, but member cp-0 reported 8 (etcdctl 3.5.16)", "total keys is "):
        assert fact in said


def report_of(database: bytes, tmp_path) -> SnapshotReport:
    file = tmp_path / "snapshot.db"
    file.write_bytes(database)
    with open_snapshot(file) as snapshot:
        return snapshot.check()


@pytest.mark.parametrize(("version", "rule"), [("3.5.16", "total_keys"), ("3.6.6", "live_keys")])
def test_keys_are_compared_by_the_rule_of_the_tool(database, tmp_path, version, rule):
    report = report_of(database, tmp_path)
    status = snapshot_status(database)
    facts = {"hash": status["hash"], "revision": 8, "size_bytes": status["totalSize"], "tool_version": version}
    assert compare_with_member(report, make_reported(**facts, total_keys=getattr(report, rule))) == []
    assert len(compare_with_member(report, make_reported(**facts, total_keys=1))) == 1


def test_a_set_without_a_snapshot_is_level_etcd(site):
    manifest = site.compose()
    site.publish(manifest.model_copy(update={"artifacts": manifest.artifacts[1:]}))
    record = verified(site)
    assert record.levels == ("stored", "sealed")
    assert "the set has no snapshot" in record.problems


def test_a_set_without_a_node_s_files_is_level_pki(site):
    manifest = site.compose()
    site.publish(manifest.model_copy(update={"artifacts": manifest.artifacts[:1]}))
    record = verified(site)
    assert record.levels == ("stored", "sealed", "etcd")
    assert record.problems == ("the set has no files of a control-plane node",)


@pytest.mark.parametrize(
    ("data", "said"),
    [pytest.param(b"no tar", "the archive is not a valid tar", id="no-tar"), pytest.param(b"", "the archive is not a valid tar", id="empty")],
)  # fmt: skip
def test_an_archive_that_is_none_is_level_pki(site, data, said):
    publish_with(site, control_plane=data)
    record = verified(site)
    assert record.levels == ("stored", "sealed", "etcd")
    assert any(said in problem for problem in record.problems)


def test_an_archive_that_leads_elsewhere_is_level_pki(site):
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../../etc/cron.d/x"))
    publish_with(site, control_plane=buffer.getvalue())
    record = verified(site)
    assert record.levels == ("stored", "sealed", "etcd")
    assert any("points outside the archive" in problem for problem in record.problems)


@pytest.mark.parametrize(
    ("replaced", "said"),
    [
        pytest.param({"pki/sa.key": None}, "pki/sa.key is missing", id="missing"),
        pytest.param({"pki/sa.pub": b"x"}, "pki/sa.pub", id="unreadable"),
        pytest.param({"admin.conf": b""}, "admin.conf is empty", id="empty"),
    ],
)
def test_a_faulty_pki_is_level_pki(site, replaced, said):
    root = site.folder / "kubernetes"
    for name, data in replaced.items():
        (root / name).unlink()
        if data is not None:
            (root / name).write_bytes(data)
    site.backup()
    record = verified(site)
    assert record.levels == ("stored", "sealed", "etcd")
    assert any(said in problem and problem.startswith("control-plane.tar.zst.age: ") for problem in record.problems)


def test_a_certificate_near_its_end_is_a_warning(make_site):
    site = make_site(1, cert_warning_days=3000)
    site.backup()
    record = verified(site)
    assert record.ok
    assert any("expires on" in warning for warning in record.warnings)


def test_encrypted_values_need_their_keys_in_the_set(make_site, tmp_path):
    site = make_site()
    site.members[0].database = make_database(ENCRYPTED)
    site.backup()
    record = verified(site)
    assert record.levels == ("stored", "sealed", "etcd")
    assert any(
        "values are encrypted with aescbc key 'key1', which is nowhere in the set" in problem
        for problem in record.problems
    )


def test_encrypted_values_with_their_keys_are_good(make_site, tmp_path):
    keys = tmp_path / "encryption.yaml"
    keys.write_bytes(ENCRYPTION_CONFIGURATION)
    site = make_site(1, extra_paths=[str(keys)])
    site.members[0].database = make_database(ENCRYPTED)
    site.backup()
    record = verified(site)
    assert record.problems == ()
    assert record.levels[-1] == "pki"


def test_values_that_were_replaced_or_deleted_need_no_key(site):
    old = b"k8s:enc:aescbc:v1:retired:" + bytes(40)
    changes = [
        Put(b"/registry/secrets/a", old),
        Put(b"/registry/secrets/b", old),
        Put(b"/registry/secrets/a", b"plain", create=2, version=2),
        Delete(b"/registry/secrets/b"),
    ]
    site.members[0].database = make_database(changes)
    site.backup()
    assert verified(site).problems == ()


def kubeception(make_site):
    return make_site(1, profile="gke-user-kubeception", control_plane={"pod_name": "etcd-.*"})


def test_a_cluster_without_nodes_has_no_level_pki(make_site):
    site = kubeception(make_site)
    site.backup()
    record = verified(site)
    assert (record.levels, record.complete, record.ok) == (("stored", "sealed", "etcd"), True, True)


def test_its_encrypted_values_without_keys_are_not_verified(make_site):
    site = kubeception(make_site)
    site.members[0].database = make_database(ENCRYPTED)
    site.backup()
    assert not verified(site).ok


def test_a_set_of_an_unknown_signer_is_bad_and_nothing_of_it_is_opened(site, monkeypatch):
    site.backup()
    site.repository.store.delete(PREFIX + naming.SIGNATURE)
    site.repository.store.delete(PREFIX + naming.ETCD_ARTIFACT)
    record = verified(site)
    assert not record.ok
    assert "signature" in record.problems[0]


def test_passing_trouble_of_the_store_says_nothing_of_the_set(site, monkeypatch):
    site.backup()
    repository = site.repository
    found = repository.get("harbor", BACKUP_ID)

    def down(name):
        raise StoreUnavailable("503")

    monkeypatch.setattr(repository.store, "open", down)
    with pytest.raises(StoreUnavailable):
        verify_set(repository, site.cluster, found, site.identities())


def test_a_full_disk_says_where_and_how_much(site, monkeypatch, tmp_path):
    site.backup()

    class Full:
        def __init__(self, **how):
            self.file = (tmp_path / "plain").open("w+b")

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            self.file.close()

        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(private_file.tempfile, "TemporaryFile", Full)
    with pytest.raises(NoSpace, match=r"has no space for \d+ bytes of plaintext \(No space left on device\).*TMPDIR"):
        verified(site)


def test_plaintext_has_no_name(site, monkeypatch, tmp_path):
    monkeypatch.setattr(private_file, "TMPFS", tmp_path / "none")
    monkeypatch.setattr(private_file.tempfile, "tempdir", str(tmp_path / "private"))
    (tmp_path / "private").mkdir()
    site.backup()
    with private_file.private_file(10) as file:
        file.write(b"x")
        assert os.fstat(file.fileno()).st_nlink == 0
    assert verified(site).ok
    assert list((tmp_path / "private").iterdir()) == []


def test_large_plaintext_does_not_go_to_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(private_file, "TMPFS", tmp_path)
    free = private_file.shutil.disk_usage(tmp_path).free
    chosen = []
    original = private_file.tempfile.TemporaryFile
    monkeypatch.setattr(private_file.tempfile, "TemporaryFile", lambda dir: chosen.append(dir) or original(dir=dir))
    for size in (1, free):
        with private_file.private_file(size):
            pass
    assert chosen[0] == tmp_path
    assert chosen[1] != tmp_path
