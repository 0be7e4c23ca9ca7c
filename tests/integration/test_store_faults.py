"""What each store does when its disk, its server or its caller fails: a clear error, and nothing half there or lost."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from etcdkeep.adapters.stores.copying import copy_bytes
from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.documents import read
from etcdkeep.errors import (
    AccessDenied,
    ConfigError,
    NoSpace,
    NotFound,
    ObjectDamaged,
    ObjectExists,
    StoreUnavailable,
    UnsafeName,
)
from tests.gcs_stub import Fault, GcsStub, gcs_stub
from tests.stores import CHUNK_BYTES, bucket_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from etcdkeep.adapters.stores.gcs import GcsStore
    from etcdkeep.ports import ObjectStore

DATA = os.urandom(3 * CHUNK_BYTES + 99)


@pytest.fixture
def stub() -> Iterator[GcsStub]:
    with gcs_stub() as running:
        running.put("there", DATA)
        yield running


@pytest.fixture
def bucket(stub: GcsStub) -> GcsStore:
    return bucket_store(stub.url)


@pytest.fixture
def directory(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path)


def put(store: ObjectStore, name: str, data: bytes = DATA) -> None:
    with store.create(name) as sink:
        for start in range(0, len(data), 100_000):
            sink.write(data[start : start + 100_000])


def get(store: ObjectStore, name: str) -> bytes:
    with store.open(name) as stream:
        return b"".join(iter(lambda: stream.read(100_000), b""))


def tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


OPERATIONS = [
    pytest.param(lambda store: put(store, "new"), id="create"),
    pytest.param(lambda store: get(store, "there"), id="open"),
    pytest.param(lambda store: store.stat("there"), id="stat"),
    pytest.param(lambda store: list(store.list()), id="list"),
    pytest.param(lambda store: store.copy("there", "new"), id="copy"),
    pytest.param(lambda store: store.delete("there"), id="delete"),
    pytest.param(lambda store: store.protect("there", datetime.now(UTC) + timedelta(days=1)), id="protect"),
]

# --- bucket: the server fails ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("act", OPERATIONS)
def test_passing_trouble_is_ridden_over(
    stub: GcsStub, bucket: GcsStore, act: Callable[[GcsStore], object], status: int
) -> None:
    stub.faults.append(Fault("status", status=status, times=2))
    act(bucket)
    assert all(found.data == DATA for found in stub.objects.values())


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("act", OPERATIONS)
def test_lasting_trouble_is_transient(
    stub: GcsStub, bucket: GcsStore, act: Callable[[GcsStore], object], status: int
) -> None:
    stub.faults.append(Fault("status", status=status, times=10**6))
    with pytest.raises(StoreUnavailable, match="no usable answer"):
        act(bucket)
    assert list(stub.objects) == ["there"]


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (400, ConfigError, "400"),
        (401, AccessDenied, "credentials were not accepted"),
        (403, AccessDenied, "roles/storage.objectUser"),
    ],
)
@pytest.mark.parametrize("act", OPERATIONS)
def test_refusals_are_permanent_and_asked_once(
    stub: GcsStub,
    bucket: GcsStore,
    act: Callable[[GcsStore], object],
    status: int,
    error: type[Exception],
    message: str,
) -> None:
    stub.faults.append(Fault("status", status=status, times=10**6))
    with pytest.raises(error, match=message):
        act(bucket)
    assert stub.asked("^(GET|POST|PATCH)") <= 1
    assert list(stub.objects) == ["there"]


@pytest.mark.parametrize("act", OPERATIONS)
def test_no_server(bucket: GcsStore, act: Callable[[GcsStore], object], stub: GcsStub) -> None:
    lost = bucket_store("http://127.0.0.1:9")
    with pytest.raises(StoreUnavailable):
        act(lost)


@pytest.mark.parametrize("act", [OPERATIONS[0], OPERATIONS[1], OPERATIONS[3], OPERATIONS[4]])
def test_no_such_bucket(stub: GcsStub, act: Callable[[GcsStore], object]) -> None:
    with pytest.raises(NotFound):
        act(bucket_store(stub.url, bucket="another"))


# --- bucket: writing -------------------------------------------------------------------------------------------


def test_every_write_forbids_replacing(stub: GcsStub, bucket: GcsStore) -> None:
    put(bucket, "new")
    bucket.copy("there", "copied")
    assert stub.asked("POST .*uploadType=resumable.*ifGenerationMatch=0") == 1
    assert stub.asked("POST .*rewriteTo.*ifGenerationMatch=0") == 1


def test_412_from_the_start(stub: GcsStub, bucket: GcsStore) -> None:
    with pytest.raises(ObjectExists):
        put(bucket, "there", b"other" * CHUNK_BYTES)
    assert stub.objects["there"].data == DATA
    assert not stub.sessions


def test_412_at_the_end(stub: GcsStub, bucket: GcsStore) -> None:
    def write_too_late() -> None:
        with bucket.create("new") as sink:
            sink.write(DATA)
            stub.put("new", b"somebody else was faster")

    with pytest.raises(ObjectExists):
        write_too_late()
    assert stub.objects["new"].data == b"somebody else was faster"


@pytest.mark.parametrize("which", range(4))
def test_an_answer_that_got_lost(stub: GcsStub, bucket: GcsStore, which: int) -> None:
    """The first chunk's, the next ones', and the last one's, after which the object is there already."""
    with bucket.create("new") as sink:
        for chunk in range(4):
            if chunk == which:
                stub.faults.append(Fault("lose", method="PUT"))
            sink.write(DATA[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES])
    assert stub.objects["new"].data == DATA


def test_the_answer_to_the_opening_got_lost(stub: GcsStub, bucket: GcsStore) -> None:
    stub.faults.append(Fault("lose", method="POST"))
    put(bucket, "new")
    assert stub.objects["new"].data == DATA


def test_a_chunk_kept_in_part(stub: GcsStub) -> None:
    stub.faults.append(Fault("partial", method="PUT"))
    bucket = bucket_store(stub.url, chunk_bytes=2 * CHUNK_BYTES)
    with pytest.raises(StoreUnavailable):
        put(bucket, "new", DATA * 2)
    assert "new" not in stub.objects
    put(bucket, "new", DATA)
    assert stub.objects["new"].data == DATA


@pytest.mark.parametrize("size", [10, CHUNK_BYTES, 2 * CHUNK_BYTES + 5])
def test_damage_on_the_way_up(stub: GcsStub, bucket: GcsStore, size: int) -> None:
    stub.faults.append(Fault("flip", method="PUT"))
    with pytest.raises(StoreUnavailable, match="damaged in"):
        put(bucket, "new", DATA[:size])
    assert "new" not in stub.objects
    put(bucket, "new", DATA[:size])
    assert stub.objects["new"].data == DATA[:size]


def test_a_server_that_stored_something_else(stub: GcsStub, bucket: GcsStore) -> None:
    """Deleted is the very generation that was looked at: what replaced it since is not ours."""
    original = stub.put

    def put_truncated(name: str, data: bytes, content_type: str = "") -> object:
        return original(name, data[:-1], content_type)

    stub.put = put_truncated  # type: ignore[method-assign,assignment]
    with pytest.raises(StoreUnavailable, match="it was deleted"):
        put(bucket, "new")
    assert "new" not in stub.objects
    assert stub.asked(r"DELETE .*ifGenerationMatch=\d{16}") == 1


@pytest.mark.parametrize("written", [CHUNK_BYTES + 10, 3 * CHUNK_BYTES])
@pytest.mark.parametrize("cancel", ["works", "fails"])
def test_a_failed_writer_never_publishes(stub: GcsStub, bucket: GcsStore, written: int, cancel: str) -> None:
    """The client's own writer publishes what it has when its cancellation failed and it is collected as garbage."""
    if cancel == "fails":
        stub.faults.append(Fault("drop", method="DELETE", times=100))

    def write_and_fail() -> None:
        with bucket.create("new") as sink:
            sink.write(DATA[:written])
            raise RuntimeError("cut")

    with pytest.raises(RuntimeError, match="cut"):
        write_and_fail()
    gc.collect()
    assert list(stub.objects) == ["there"]
    assert len(stub.sessions) == (cancel == "fails")


def test_a_writer_killed_between_two_chunks(stub: GcsStub, bucket: GcsStore) -> None:
    code = (
        "import os, signal; from tests.stores import bucket_store, CHUNK_BYTES\n"
        f"with bucket_store({stub.url!r}).create('new') as sink:\n"
        "    sink.write(bytes(2 * CHUNK_BYTES + 5)); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert run_python(code) == -signal.SIGKILL
    assert stub.sessions["0"].data
    assert list(stub.objects) == ["there"]
    put(bucket, "new")
    assert stub.objects["new"].data == DATA


def test_a_bucket_without_object_retention(stub: GcsStub, bucket: GcsStore) -> None:
    stub.object_retention = False
    with pytest.raises(ConfigError, match="enable-per-object-retention"):
        bucket.protect("there", datetime.now(UTC) + timedelta(days=1))


# --- bucket: reading -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, 1000, CHUNK_BYTES - 1])
def test_a_download_cut_twice_goes_on(stub: GcsStub, bucket: GcsStore, after: int) -> None:
    stub.faults.append(Fault("cut", path="/download/", after=after, times=2))
    assert get(bucket, "there") == DATA


def test_a_download_that_is_always_cut(stub: GcsStub, bucket: GcsStore) -> None:
    stub.faults.append(Fault("cut", path="/download/", after=0, times=10**6))
    with pytest.raises(StoreUnavailable):
        get(bucket, "there")


def test_an_object_shorter_than_its_record(stub: GcsStub, bucket: GcsStore) -> None:
    stub.faults.append(Fault("short", path="/download/", after=100, times=10**6))
    with pytest.raises(ObjectDamaged, match="shorter than recorded"):
        get(bucket, "there")


def test_an_object_replaced_while_it_is_read(stub: GcsStub, bucket: GcsStore) -> None:
    with bucket.open("there") as stream:
        stream.read(10)
        stub.put("there", b"?" * len(DATA))
        with pytest.raises(NotFound):
            stream.read()


@pytest.mark.parametrize(
    ("act", "path"),
    [
        pytest.param(lambda store: read(store, "there"), "/download/", id="read"),
        pytest.param(lambda store: store.copy("there", "new"), "/rewriteTo/", id="copy"),
    ],
)
def test_an_object_that_its_writer_encrypted_is_named(
    stub: GcsStub, bucket: GcsStore, act: Callable[[GcsStore], object], path: str
) -> None:
    words = "The target object is encrypted by a customer-supplied encryption key."
    stub.faults.append(Fault("status", path=path, status=400, words=words))
    with pytest.raises(AccessDenied, match=r"there .*refuses this object and no other \(400 .*key of its writer"):
        act(bucket)
    assert [found.name for found in bucket.list()] == ["there"]


@pytest.mark.parametrize("what", ["altered", "truncated"])
def test_a_copy_of_a_damaged_object_is_refused(
    stub: GcsStub, bucket: GcsStore, directory: DirectoryStore, what: str
) -> None:
    """The bytes that come are not those that the store announced."""
    if what == "truncated":
        stub.faults.append(Fault("short", path="/download/", after=100, times=10**6))
    else:
        stub.objects["there"] = LyingObject(**vars(stub.objects["there"]))
    with pytest.raises(ObjectDamaged):
        copy_bytes(bucket, "there", directory, "copied")
    assert tree(directory.root) == []


class LyingObject(type(GcsStub().put("", b""))):  # type: ignore[misc]
    """States another checksum than its bytes have."""

    def resource(self) -> dict[str, object]:
        return {**super().resource(), "crc32c": "AAAAAA=="}


# --- directory -------------------------------------------------------------------------------------------------


def test_private_files_and_folders(directory: DirectoryStore) -> None:
    before = os.umask(0)
    try:
        store = DirectoryStore(directory.root / "new")
        put(store, "a/b/c")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (store.root, *store.root.rglob("*"))}
    assert modes == {"new": 0o700, "a": 0o700, "b": 0o700, "c": 0o600}


def test_a_killed_writer_leaves_nothing_that_shows(directory: DirectoryStore) -> None:
    code = (
        "import os, signal; from pathlib import Path; from etcdkeep.adapters.stores.directory import DirectoryStore\n"
        f"with DirectoryStore(Path({str(directory.root)!r})).create('set/etcd.db') as sink:\n"
        "    sink.write(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    put(directory, "set/etcd.db.json")
    for _ in range(2):
        assert run_python(code) == -signal.SIGKILL
        assert [found.name for found in directory.list()] == ["set/etcd.db.json"]
        assert directory.stat("set/etcd.db") is None
        assert len(tree(directory.root)) == 2
    put(directory, "set/etcd.db")
    assert tree(directory.root) == ["set/etcd.db", "set/etcd.db.json"]


def test_a_purge_takes_half_written_remains_along(directory: DirectoryStore) -> None:
    put(directory, "set/deep/a")
    (directory.root / "set/.b.0123abcd.part").write_bytes(b"half")
    assert directory.purge("set") == 2
    assert list(directory.root.iterdir()) == []


def test_a_retry_keeps_off_the_remains_of_longer_names(directory: DirectoryStore) -> None:
    """``manifest.json`` begins as ``manifest.json.sig`` does; that one may be being written right now."""
    with directory.create("manifest.json.sig") as signature:
        signature.write(b"signature")
        put(directory, "manifest.json", b"manifest")
    assert get(directory, "manifest.json.sig") == b"signature"


def test_a_part_that_another_writer_sweeps_up_before_it_is_locked_is_made_again(
    directory: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, swept = fcntl.flock, []

    def lock_late(descriptor: int, operation: int) -> None:
        if not swept:
            (part,) = (directory.root / "set").glob(".a.*.part")
            swept.append(part.name)
            with directory.create("set/b") as stream:  # finds a part that nobody has locked
                stream.write(b"b")
            assert not part.exists()
        lock(descriptor, operation)

    monkeypatch.setattr("etcdkeep.adapters.stores.directory.fcntl.flock", lock_late)
    with directory.create("set/a") as stream:
        stream.write(b"a")
    assert read(directory, "set/a") == b"a"
    assert [item.name for item in directory.list("set/")] == ["set/a", "set/b"]


def test_the_next_object_in_a_folder_takes_the_remains_of_killed_writers_along(directory: DirectoryStore) -> None:
    """A verification's name holds its time: nothing of that very name is ever begun again."""
    put(directory, "set/verification/first.json")
    (directory.root / "set/verification/.second.json.0123abcd.part").write_bytes(b"half")
    (directory.root / "set/verification/.link.0123abcd.part").symlink_to("/etc/passwd")
    with directory.create("set/verification/third.json") as living:
        living.write(b"half")
        put(directory, "set/verification/fourth.json")
        assert len(list((directory.root / "set/verification").glob(".third.json.*.part"))) == 1
    assert not (directory.root / "set/verification/.second.json.0123abcd.part").exists()
    assert get(directory, "set/verification/third.json") == b"half"


def test_a_writer_thought_dead_cannot_publish_its_successors_half(directory: DirectoryStore) -> None:
    successor = directory.create("etcd.db")

    def stale_writer() -> None:
        with directory.create("etcd.db") as sink:
            sink.write(b"old")
            successor.__enter__().write(b"new, half")

    with pytest.raises(StoreUnavailable, match="rewritten by another process"):
        stale_writer()
    assert directory.stat("etcd.db") is None
    successor.__exit__(None, None, None)
    assert get(directory, "etcd.db") == b"new, half"


def test_a_folder_purged_while_it_is_written_to(directory: DirectoryStore) -> None:
    def write_into_it() -> None:
        with directory.create("set/etcd.db") as sink:
            sink.write(b"x")
            directory.purge("set")

    with pytest.raises(StoreUnavailable, match="removed or rewritten"):
        write_into_it()
    assert tree(directory.root) == []


@contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    """Let the kernel refuse to make a file larger: what a full disk does, without filling one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_room(directory: DirectoryStore) -> None:
    with pytest.raises(NoSpace, match="incomplete object was removed"), file_size_limit(150_000):
        put(directory, "set/etcd.db")
    assert tree(directory.root) == []
    put(directory, "set/etcd.db")
    assert get(directory, "set/etcd.db") == DATA


def test_a_place_that_cannot_be_written() -> None:
    with pytest.raises(AccessDenied, match="Check owner, mode and mount"):
        put(DirectoryStore(Path("/sys/kernel/etcdkeep")), "a")


def test_a_disk_that_fails_while_read() -> None:
    """The first page of a process's memory is mapped nowhere: the kernel answers EIO, as a dying disk does."""
    with pytest.raises(StoreUnavailable, match=os.strerror(errno.EIO)):
        get(DirectoryStore(Path("/proc/self")), "mem")


@pytest.fixture
def treasure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "key").write_text("treasure")
    return folder


def test_symbolic_links_are_not_followed(directory: DirectoryStore, treasure: Path) -> None:
    (directory.root / "folder").symlink_to(treasure)
    (directory.root / "file").symlink_to(treasure / "key")
    assert list(directory.list()) == []
    for name in ("folder/key", "file"):
        assert directory.stat(name) is None
        with pytest.raises(NotFound):
            get(directory, name)
        with pytest.raises(NotFound):
            directory.copy(name, "copied")
    with pytest.raises(UnsafeName, match="symbolic link"):
        put(directory, "folder/new")
    with pytest.raises(UnsafeName, match="symbolic link"):
        directory.purge("folder")
    with pytest.raises(ObjectExists):
        put(directory, "file")
    assert tree(treasure) == ["key"]


def test_a_purge_removes_links_and_not_what_they_lead_to(directory: DirectoryStore, treasure: Path) -> None:
    put(directory, "set/a")
    (directory.root / "set/folder").symlink_to(treasure)
    (directory.root / "set/file").symlink_to(treasure / "key")
    assert directory.purge("set") == 3
    assert tree(treasure) == ["key"]


def test_the_root_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "disk")
    put(DirectoryStore(tmp_path / "root"), "a/b")
    assert tree(tmp_path / "disk") == ["a/b"]


def test_a_copy_to_another_file_system(directory: DirectoryStore) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == directory.root.stat().st_dev:
        pytest.skip("no second file system at /dev/shm")
    other = DirectoryStore(memory / f"etcdkeep-test-{os.getpid()}")
    try:
        put(directory, "a")
        other.copy_from(directory, "a", "set/b")
        assert get(other, "set/b") == DATA
        with pytest.raises(ObjectExists):
            other.copy_from(directory, "a", "set/b")
    finally:
        other.purge("set")
        other.root.rmdir()


def test_a_file_where_a_folder_should_be(directory: DirectoryStore) -> None:
    put(directory, "a", b"x")
    with pytest.raises(UnsafeName, match="is a file or a symbolic link"):
        put(directory, "a/b")
    assert directory.stat("a/b") is None
    assert get(directory, "a") == b"x"


def run_python(code: str) -> int:
    """Run Python with our import path, and return its exit code."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run((sys.executable, "-c", code), env=environment, timeout=60, check=False).returncode
