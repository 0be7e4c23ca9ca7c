"""Backups of several nights with indexes, made without etcd: what changes from one to the next is up to the test."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from etcdkeep.naming import ETCD_ARTIFACT, MANIFEST, SIGNATURE
from etcdkeep.objects.index import index_snapshot
from etcdkeep.sealing.age_keys import parse_identities
from etcdkeep.sealing.seal import seal
from etcdkeep.sets.manifest import Plaintext, Stored
from etcdkeep.snapshot import open_snapshot
from tests.builders import age_pair, make_artifact, make_manifest, make_repository, make_signer, make_verification
from tests.object_snapshots import config_map
from tests.snapshots import Put, make_snapshot, record_value, revision_key

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from etcdkeep.ports import ObjectStore

CLUSTER = "harbor"


class Written(NamedTuple):
    """An object as a snapshot has it: its key without ``/registry/``, and its revisions."""

    key: str
    value: bytes
    revision: int
    create_revision: int


def config(
    name: str, revision: int, namespace: str = "shop", *, content: str = "", created: int | None = None
) -> Written:
    """Return a ConfigMap; other `content` makes other bytes."""
    value = config_map(name, namespace, uid=content)
    return Written(f"configmaps/{namespace}/{name}", value, revision, revision if created is None else created)


def night_id(night: int) -> str:
    """Return the id of the backup of a November night."""
    return f"202611{night:02}T023000Z-1f0c9a3e"


def publish_night(
    store: ObjectStore,
    folder: Path,
    night: int,
    objects: Iterable[Written],
    *,
    index: bool = True,
    ok: bool = True,
    index_recipients: tuple[str, ...] = (),
    age_key: str = "",
) -> str:
    """
    Publish the backup of a November night and its verification; return its id.

    :param folder: For the plain snapshot, meanwhile.
    :param index: Whether the verification made an index, as those of before did not.
    :param ok: Whether the verification found the backup good.
    :param age_key: Name of the pair that it is sealed to, as :func:`~tests.builders.age_pair` takes it; empty for that of the tests' cluster.
    """
    identifier = night_id(night)
    puts = [(each, Put(f"/registry/{each.key}".encode(), each.value, each.create_revision)) for each in objects]
    ordered = sorted(
        (revision_key(each.revision, sub), record_value(put, each.revision)) for sub, (each, put) in enumerate(puts)
    )
    file = folder / f"{identifier}.db"
    file.write_bytes(make_snapshot(ordered))
    name, (identity, recipient) = f"{CLUSTER}/{identifier}", age_pair(age_key) if age_key else age_pair()
    with store.create(f"{name}/{ETCD_ARTIFACT}") as sink:
        sealed = seal([file.read_bytes()], sink, [recipient])
    artifact = make_artifact(
        recipients=(recipient,),
        plaintext=Plaintext(size_bytes=sealed.plain_size_bytes, sha256=sealed.plain_sha256),
        stored=Stored(size_bytes=sealed.stored_size_bytes, sha256=sealed.stored_sha256, crc32c=sealed.stored_crc32c),
    )
    taken_at = datetime(2026, 11, night, 2, 30, tzinfo=UTC)
    manifest = make_manifest(backup_id=identifier, taken_at=taken_at, artifacts=(artifact,)).to_bytes()
    for document, data in ((MANIFEST, manifest), (SIGNATURE, make_signer().sign(manifest))):
        with store.create(f"{name}/{document}") as sink:
            sink.write(data)
    made = None
    if index:
        with open_snapshot(file) as snapshot:
            keys = parse_identities(identity)
            made = index_snapshot(store, name, snapshot, [recipient], keys, index_recipients=index_recipients)
    file.unlink()
    repository = make_repository(store)
    problems = () if ok else ("found bad by a test",)
    repository.record(repository.get(CLUSTER, identifier), make_verification(index=made, problems=problems))
    return identifier
