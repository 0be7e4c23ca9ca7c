"""Plaintext that travels while it is unsealed."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.errors import NotFound, SecretUnavailable, VerificationFailed
from etcdkeep.sealing.age_keys import parse_identities
from etcdkeep.sealing.seal import seal
from etcdkeep.sets.backup_set import BackupSet
from etcdkeep.sets.manifest import Plaintext
from etcdkeep.sets.opening import stream_plaintext
from tests.builders import BACKUP_ID, age_pair, make_artifact, make_manifest

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = os.urandom(5 * 2**20 + 7)
NAME = "etcd.db"
Stream = Callable[..., Iterator[bytes]]


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    """Stream the snapshot of a set in a folder."""
    store = DirectoryStore(tmp_path)
    with store.create(f"harbor/{BACKUP_ID}/{NAME}.zst.age") as sink:
        seal([PLAIN], sink, (age_pair("ours")[1],))

    def start(name: str = NAME, owner: str | None = "ours", sha256: str = "", size_bytes: int = len(PLAIN)) -> Any:
        plain = Plaintext(size_bytes=size_bytes, sha256=sha256 or hashlib.sha256(PLAIN).hexdigest())
        manifest = make_manifest(artifacts=(make_artifact(f"{NAME}.zst.age", plaintext=plain),))
        found = BackupSet("harbor", BACKUP_ID, manifest, b"", b"", ())
        return stream_plaintext(store, found, parse_identities(age_pair(owner)[0]) if owner else None, name)

    return start


def test_all_of_it_comes_in_order(stream: Stream) -> None:
    assert b"".join(stream()) == PLAIN


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        pytest.param({"name": "other.db"}, NotFound, "holds no other.db", id="none-of-that-name"),
        pytest.param({"owner": None}, SecretUnavailable, "no age_identity", id="no-identity"),
        pytest.param({"owner": "theirs"}, SecretUnavailable, "sealed to age1", id="another-identity"),
        pytest.param({"sha256": "0" * 64}, VerificationFailed, "SHA-256 of the plaintext is", id="other-bytes"),
        pytest.param({"size_bytes": 2**20}, VerificationFailed, "cannot be used", id="longer-than-recorded"),
    ],
)
def test_an_end_without_error_means_that_it_is_whole(
    stream: Stream, wrong: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        b"".join(stream(**wrong))


def test_a_reader_that_stops_early_leaves_nothing_running(stream: Stream) -> None:
    running, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    pieces = stream()
    next(pieces)
    pieces.close()
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (running, descriptors)
