"""
What every object store promises, over a directory, a strict bucket server in this process, the stock emulator, and S3 (moto).

The stock emulator ignores preconditions on resumable uploads and rewrites (AIRFLOW_NOTES §0.5), so the tests of
"never replaced" run over the others.
"""

from __future__ import annotations

import io
import os
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import google_crc32c
import pytest

from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.adapters.stores.opening import duplicate, open_store, transfer
from etcdkeep.errors import AccessDenied, ConfigError, NotFound, ObjectExists, StoreUnavailable, UnsafeName
from etcdkeep.sealing.age_keys import generate_identity, parse_identities
from etcdkeep.sealing.seal import seal, unseal
from tests.gcs_stub import BUCKET, REWRITE_BYTES, gcs_stub
from tests.s3_server import PART_BYTES, s3_server
from tests.stores import CHUNK_BYTES, bucket_store, running_emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from etcdkeep.ports import ObjectStore


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    with running_emulator() as url:
        yield url


def _opener(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], ObjectStore]]:
    """Give a function that opens any prefix of one fresh place."""
    if kind == "directory":
        yield lambda prefix: DirectoryStore(tmp_path / "repository" / prefix)
    elif kind == "bucket":
        with gcs_stub() as stub:
            yield lambda prefix: bucket_store(stub.url, prefix)
    elif kind == "s3":
        with s3_server() as server:
            yield server.store
    else:
        url = request.getfixturevalue("emulator")
        yield lambda prefix: bucket_store(url, f"{os.urandom(4).hex()}/{prefix}".rstrip("/"))


@pytest.fixture(params=["directory", "bucket", "emulator", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    for opener in _opener(request.param, request, tmp_path):
        yield opener("team")


@pytest.fixture(params=["directory", "bucket", "s3"])
def strict_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    for opener in _opener(request.param, request, tmp_path):
        yield opener("team")


def put(store: ObjectStore, name: str, data: bytes = b"x") -> None:
    with store.create(name) as sink:
        sink.write(data)


def get(store: ObjectStore, name: str) -> bytes:
    with store.open(name) as stream:
        return stream.read()


def names(store: ObjectStore, prefix: str = "") -> list[str]:
    return [found.name for found in store.list(prefix)]


# --- writing and reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 3 * CHUNK_BYTES + 77]
)
def test_bytes_come_back_as_written(store: ObjectStore, size: int) -> None:
    data = (bytes(range(256)) + os.urandom(512)) * (size // 768 + 1)
    put(store, "a/b.bin", data[:size])
    assert get(store, "a/b.bin") == data[:size]


def test_many_small_writes_and_reads(store: ObjectStore) -> None:
    data = os.urandom(CHUNK_BYTES + 5000)
    with store.create("a") as sink:
        for start in range(0, len(data), 4097):
            assert sink.write(data[start : start + 4097]) == len(data[start : start + 4097])
    with store.open("a") as stream:
        assert b"".join(iter(lambda: stream.read(999), b"")) == data


def test_a_reader_may_stop_early(store: ObjectStore) -> None:
    put(store, "a", os.urandom(3 * CHUNK_BYTES))
    with store.open("a") as stream:
        assert len(stream.read(10)) == 10


def test_an_object_appears_when_the_block_ends(store: ObjectStore) -> None:
    with store.create("set/manifest.json", content_type="application/json") as sink:
        sink.write(b"{" * (2 * CHUNK_BYTES))
        assert store.stat("set/manifest.json") is None
        assert names(store) == []
        with pytest.raises(NotFound):
            get(store, "set/manifest.json")
    assert names(store) == ["set/manifest.json"]


@pytest.mark.parametrize("written", [0, 10, 3 * CHUNK_BYTES])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_nothing_is_left_when_the_block_raises(store: ObjectStore, written: int, error: type[BaseException]) -> None:
    failure = error("the source was cut")

    def write_and_fail() -> None:
        with store.create("set/etcd.db.zst.age") as sink:
            sink.write(bytes(written))
            raise failure

    with pytest.raises(error) as caught:
        write_and_fail()
    assert caught.value is failure
    assert names(store) == []
    assert store.purge("set") == 0
    put(store, "set/etcd.db.zst.age", b"second try")
    assert get(store, "set/etcd.db.zst.age") == b"second try"


def test_facts(store: ObjectStore) -> None:
    before = datetime.now(UTC)
    put(store, "a/b", b"some bytes")
    found = store.stat("a/b")
    assert found is not None
    assert (found.name, found.size_bytes) == ("a/b", 10)
    assert found.crc32c in (None, google_crc32c.value(b"some bytes"))
    assert abs(found.updated_at - before) < timedelta(minutes=1)
    [listed] = store.list()
    assert listed.crc32c in (None, found.crc32c)
    assert replace(listed, crc32c=found.crc32c) == found


def test_what_is_not_there(store: ObjectStore) -> None:
    assert store.stat("a/b") is None
    assert names(store) == []
    assert store.purge("a") == 0
    store.delete("a/b")
    with pytest.raises(NotFound, match="a/b"), store.open("a/b"):
        pass
    with pytest.raises(NotFound):
        store.copy("a/b", "c")
    assert names(store) == []


def test_a_folder_is_no_object(store: ObjectStore) -> None:
    put(store, "a/b/c")
    assert store.stat("a/b") is None
    with pytest.raises(NotFound), store.open("a/b"):
        pass


# --- never replaced --------------------------------------------------------------------------------------------


def test_an_object_is_never_replaced(strict_store: ObjectStore) -> None:
    put(strict_store, "a", b"first")
    with pytest.raises(ObjectExists, match="never replaced"):
        put(strict_store, "a", b"second" * CHUNK_BYTES)
    assert get(strict_store, "a") == b"first"
    assert names(strict_store) == ["a"]


def test_a_copy_never_replaces(strict_store: ObjectStore) -> None:
    put(strict_store, "a", b"first")
    put(strict_store, "b", b"second")
    with pytest.raises(ObjectExists):
        strict_store.copy("b", "a")
    assert get(strict_store, "a") == b"first"


def test_of_two_writers_at_once_one_publishes_and_whole(strict_store: ObjectStore) -> None:
    """The loser hears of it: the name was taken, or a directory says that its file was begun anew."""
    with suppress(ObjectExists, StoreUnavailable), strict_store.create("a") as first:
        first.write(b"1" * (2 * CHUNK_BYTES))
        with suppress(ObjectExists), strict_store.create("a") as second:
            second.write(b"2" * (2 * CHUNK_BYTES))
        first.write(b"1" * CHUNK_BYTES)
    assert get(strict_store, "a") in (b"1" * (3 * CHUNK_BYTES), b"2" * (2 * CHUNK_BYTES))
    assert names(strict_store) == ["a"]


def test_the_loser_of_two_writers_is_told(strict_store: ObjectStore) -> None:

    def write_while_another_does() -> None:
        with strict_store.create("a") as first:
            first.write(b"1")
            put(strict_store, "a", b"2")

    with pytest.raises((ObjectExists, StoreUnavailable)):
        write_while_another_does()
    assert get(strict_store, "a") == b"2"


# --- listing, copying, removing --------------------------------------------------------------------------------

TREE = ["a-b", "a.b", "a/1", "a/2/x", "a/2/y", "a/20", "ab", "b/.spool/c", "ä ö/ü+%?#.json"]


def test_lists_in_the_order_of_names(store: ObjectStore) -> None:
    for name in reversed(TREE):
        put(store, name)
    assert names(store) == TREE


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("a/", ["a/1", "a/2/x", "a/2/y", "a/20"]),
        ("a/2", ["a/2/x", "a/2/y", "a/20"]),
        ("a/2/", ["a/2/x", "a/2/y"]),
        ("a", ["a-b", "a.b", "a/1", "a/2/x", "a/2/y", "a/20", "ab"]),
        ("b/.spool/c", ["b/.spool/c"]),
        ("nothing/", []),
    ],
)
def test_lists_by_prefix(store: ObjectStore, prefix: str, expected: list[str]) -> None:
    for name in TREE:
        put(store, name)
    assert names(store, prefix) == expected


@pytest.mark.parametrize("size", [0, 5, 2 * REWRITE_BYTES + 1])
def test_a_copy_has_the_same_bytes(store: ObjectStore, size: int) -> None:
    data = os.urandom(size)
    put(store, ".spool/set/etcd.db", data)
    store.copy(".spool/set/etcd.db", "set/etcd.db")
    store.purge(".spool/set")
    assert get(store, "set/etcd.db") == data


def test_removes_one_object(store: ObjectStore) -> None:
    put(store, "a/b")
    put(store, "a/c")
    store.delete("a/b")
    assert names(store) == ["a/c"]
    put(store, "a/b", b"again")
    assert get(store, "a/b") == b"again"


@pytest.mark.parametrize("prefix", ["a/2", "a/2/"])
def test_purges_one_folder_and_not_its_neighbours(store: ObjectStore, prefix: str) -> None:
    for name in TREE:
        put(store, name)
    assert store.purge(prefix) == 2
    assert names(store) == [name for name in TREE if not name.startswith("a/2/")]
    put(store, "a/2/x", b"new")
    assert get(store, "a/2/x") == b"new"


@pytest.mark.parametrize("prefix", ["", "/", "..", "../team", "a/../..", "a//b"])
def test_purges_nothing_by_accident(store: ObjectStore, prefix: str) -> None:
    put(store, "a/b")
    with pytest.raises(UnsafeName):
        store.purge(prefix)
    assert names(store) == ["a/b"]


UNSAFE = [
    "",
    "/",
    "/etc/passwd",
    "../x",
    "a/../../x",
    "a/..",
    "./a",
    "a/./b",
    "a//b",
    "a/",
    "a\0b",
    "a\nb",
    "a\\b",
    "x" * 201,
    "a/.b.part",
]


@pytest.mark.parametrize("name", UNSAFE, ids=repr)
@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda store, name: put(store, name), id="create"),
        pytest.param(lambda store, name: get(store, name), id="open"),
        pytest.param(lambda store, name: store.stat(name), id="stat"),
        pytest.param(lambda store, name: store.delete(name), id="delete"),
        pytest.param(lambda store, name: store.copy("a", name), id="copy to"),
        pytest.param(lambda store, name: store.copy(name, "b"), id="copy from"),
    ],
)
def test_names_that_lead_elsewhere(
    strict_store: ObjectStore, act: Callable[[ObjectStore, str], object], name: str
) -> None:
    put(strict_store, "a")
    with pytest.raises(UnsafeName, match="refused"):
        act(strict_store, name)
    assert names(strict_store) == ["a"]


def test_the_longest_name_fits(store: ObjectStore) -> None:
    put(store, "x" * 200)
    assert names(store) == ["x" * 200]


def test_folders_without_end_are_not_followed(tmp_path: Path) -> None:
    """Made by whoever may write there: each level costs an open file and a call."""
    store = DirectoryStore(tmp_path / "store")
    put(store, "a/object")
    deep = tmp_path / "store" / "/".join("a" * 40)
    deep.mkdir(parents=True)
    (deep / "object").touch()
    assert names(store) == ["a/object"]


def test_a_prefix_cannot_see_the_one_beside_it(tmp_path: Path) -> None:
    with gcs_stub() as stub, s3_server() as server:
        openers = (
            lambda prefix: DirectoryStore(tmp_path / prefix),
            lambda prefix: bucket_store(stub.url, prefix),
            server.store,
        )
        for opener in openers:
            here, beside = opener("team"), opener("team2")
            put(beside, "a")
            assert names(here) == []
            assert here.stat("a") is None


def test_room(tmp_path: Path) -> None:
    with gcs_stub() as stub, s3_server() as server:
        assert bucket_store(stub.url).free_bytes() is None
        assert server.store().free_bytes() is None
    room = DirectoryStore(tmp_path / "new").free_bytes()
    assert room is not None
    assert room > 0


def test_protection(tmp_path: Path) -> None:
    until = datetime.now(UTC) + timedelta(days=30)
    directory = DirectoryStore(tmp_path)
    put(directory, "a")
    assert directory.protect("a", until) is False
    with gcs_stub() as stub:
        bucket = bucket_store(stub.url)
        put(bucket, "a")
        assert bucket.protect("a", datetime.now(UTC) - timedelta(days=1))
        assert not stub.objects["a"].retention
        assert bucket.protect("a", until)
        assert bucket.protect("a", until)
        assert stub.asked("PATCH") == 1
        assert stub.objects["a"].retention["mode"] == "Locked"
        with pytest.raises(AccessDenied, match="locked"):
            bucket.delete("a")
        with pytest.raises(NotFound):
            bucket.protect("missing", until)


def test_protection_in_s3() -> None:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    with s3_server(lock=True) as server:
        store = server.store("team")
        put(store, "a/b")
        assert store.protect("a/b", datetime.now(UTC) - timedelta(days=1))
        assert server.asked(r"PUT .*\?retention") == 0
        assert store.protect("a/b", until)
        assert store.protect("a/b", until)
        assert server.asked(r"PUT .*\?retention") == 1
        mode = server.client.head_object(Bucket=server.bucket, Key="team/a/b")
        assert (mode["ObjectLockMode"], mode["ObjectLockRetainUntilDate"]) == ("COMPLIANCE", until)
        assert [found.locked_until for found in (store.stat("a/b"), *store.list())] == [until, until]
        with pytest.raises(AccessDenied, match="locked"):
            store.delete("a/b")
        assert names(store) == ["a/b"]
        with pytest.raises(NotFound):
            store.protect("missing", until)


def test_what_is_removed_from_a_bucket_with_versions_is_gone() -> None:
    """A plain deletion would only hide it, and let it be paid for; it would also hide what is locked."""
    with s3_server(lock=True) as server:
        store = server.store("team")
        for data in (b"first", b"second"):
            put(store, "a/b", data)
            server.client.delete_object(Bucket=server.bucket, Key="team/a/b")  # by somebody else: leaves a marker
            assert names(store) == []
        put(store, "a/b", b"third")
        store.delete("a/b")
        assert names(store) == []
        server.client.put_object(Bucket=server.bucket, Key="team/a/c", Body=b"1")
        server.client.put_object(Bucket=server.bucket, Key="team/a/c", Body=b"2")
        store.delete("a/c")
        left = server.client.list_object_versions(Bucket=server.bucket, Prefix="team/a/c")
        assert left.get("Versions", []) == []


# --- between stores --------------------------------------------------------------------------------------------


@pytest.fixture
def kinds(tmp_path: Path) -> Iterator[dict[str, Callable[[str], ObjectStore]]]:
    with gcs_stub() as stub, s3_server() as server:
        yield {
            "directory": lambda prefix: DirectoryStore(tmp_path / prefix),
            "bucket": lambda prefix: bucket_store(stub.url, prefix),
            "s3": server.store,
        }


@pytest.mark.parametrize("target_kind", ["directory", "bucket", "s3"])
@pytest.mark.parametrize("source_kind", ["directory", "bucket", "s3"])
def test_transfer(kinds: dict[str, Callable[[str], ObjectStore]], source_kind: str, target_kind: str) -> None:
    source, target = kinds[source_kind]("spool"), kinds[target_kind]("repository")
    data = os.urandom(REWRITE_BYTES + 5)
    put(source, "run/etcd.db", data)
    transfer(source, "run/etcd.db", target, "set/etcd.db")
    assert get(target, "set/etcd.db") == data
    with pytest.raises(ObjectExists):
        transfer(source, "run/etcd.db", target, "set/etcd.db")
    with pytest.raises(NotFound):
        transfer(source, "run/missing", target, "set/other")
    assert names(target) == ["set/etcd.db"]
    source.purge("run")
    assert get(target, "set/etcd.db") == data


def test_transfer_inside_a_bucket_moves_no_bytes_through_here() -> None:
    with gcs_stub() as stub:
        spool, repository = bucket_store(stub.url, "keep/.spool"), bucket_store(stub.url, "keep")
        put(spool, "run/a", b"x" * 1000)
        transfer(spool, "run/a", repository, "set/a")
        assert stub.asked("rewriteTo") == 1
        assert stub.asked("GET /download") == 0


def test_transfer_inside_s3_moves_no_bytes_through_here() -> None:
    with s3_server() as server:
        spool, repository = server.store("keep/.spool"), server.store("keep")
        data = os.urandom(2 * REWRITE_BYTES + 7)
        put(spool, "run/a", data)
        server.requests.clear()
        transfer(spool, "run/a", repository, "set/a")
        assert server.asked("PUT .*partNumber=") == 3
        assert server.asked("GET /[^?]*/a$") == 0
        assert get(repository, "set/a") == data
        assert server.uploads() == []


@pytest.mark.parametrize("kind", ["directory", "bucket", "s3"])
def test_a_duplicate_is_bytes_of_its_own(
    kinds: dict[str, Callable[[str], ObjectStore]], tmp_path: Path, kind: str
) -> None:
    first, second = kinds[kind]("one"), kinds[kind]("two")
    put(first, "set/a", b"x" * 1000)
    duplicate(first, "set/a", second, "set/a")
    assert get(second, "set/a") == b"x" * 1000
    if kind == "directory":
        assert (tmp_path / "one/set/a").stat().st_ino != (tmp_path / "two/set/a").stat().st_ino


def test_s3_of_two_accounts_is_copied_through_here() -> None:
    """A server copies nothing from a server that it does not know."""
    with s3_server() as one, s3_server() as another:
        first, second = one.store("a"), another.store("b")
        put(first, "set/a", b"x" * (PART_BYTES + 1))
        transfer(first, "set/a", second, "set/a")
        assert another.asked("partNumber=.*copy") == 0
        assert get(second, "set/a") == b"x" * (PART_BYTES + 1)


def test_transfer_inside_a_disk_is_a_link(tmp_path: Path) -> None:
    spool, repository = DirectoryStore(tmp_path / ".spool"), DirectoryStore(tmp_path)
    put(spool, "run/a", b"x" * 1000)
    transfer(spool, "run/a", repository, "set/a")
    assert (tmp_path / "set/a").stat().st_ino == (tmp_path / ".spool/run/a").stat().st_ino


def test_a_sealed_stream_through_a_store(store: ObjectStore) -> None:
    identity, recipient = generate_identity()
    plaintext = os.urandom(2 * CHUNK_BYTES)
    with store.create("set/etcd.db.zst.age") as sink:
        facts = seal(iter([plaintext]), sink, [recipient])
    plain = io.BytesIO()
    with store.open("set/etcd.db.zst.age") as stored:
        assert unseal(stored, plain, parse_identities(identity.encode()), size_limit=len(plaintext)) == facts
    assert plain.getvalue() == plaintext
    found = store.stat("set/etcd.db.zst.age")
    assert found is not None
    assert found.size_bytes == facts.stored_size_bytes
    assert found.crc32c in (None, facts.stored_crc32c)


# --- opening ---------------------------------------------------------------------------------------------------


def test_opens_what_a_url_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gcs_stub() as stub:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", stub.url)
        for url in (f"gs://{BUCKET}/a/b", f"gs://{BUCKET}", (tmp_path / "ä b").as_uri()):
            store = open_store(url)
            assert store.url == url
            put(store, "x/y", b"z")
            assert get(open_store(f"{url}/"), "x/y") == b"z"
        assert set(stub.objects) == {"a/b/x/y", "x/y"}
    assert (tmp_path / "ä b/x/y").read_bytes() == b"z"


@pytest.mark.parametrize(
    "url",
    ["", "s3://", "s3:///x", "gs://", "gs:///x", "file://host/x", "file:x", "/tmp/x", "gs://b/x?y", "file:///x#y"],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="expected gs://bucket/prefix, s3://bucket/prefix or file:///path"):
        open_store(url)


def test_a_bucket_without_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    with pytest.raises(AccessDenied, match="no Google credentials"):
        open_store("gs://vault")
