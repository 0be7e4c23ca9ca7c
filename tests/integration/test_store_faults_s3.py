"""What an S3 store does when its server or its caller fails: a clear error, and nothing half there or lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import create_server
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep.adapters.stores import s3_client
from etcdkeep.adapters.stores.opening import open_store
from etcdkeep.adapters.stores.s3 import PART_BYTES as LIVE_PART_BYTES
from etcdkeep.adapters.stores.s3 import S3Store
from etcdkeep.errors import (
    AccessDenied,
    ConfigError,
    EtcdkeepError,
    NotFound,
    ObjectDamaged,
    ObjectExists,
    ServerUntrusted,
    StoreUnavailable,
)
from tests.pki import make_authority
from tests.s3_server import PART_BYTES, Fault, S3Server, client, s3_server, s3_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
DATA = os.urandom(3 * PART_BYTES + 99)


@pytest.fixture
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        running.client.put_object(Bucket=running.bucket, Key="there", Body=DATA)
        running.requests.clear()
        yield running


@pytest.fixture
def store(server: S3Server) -> S3Store:
    return server.store()


def put(store: S3Store, name: str, data: bytes = DATA) -> None:
    with store.create(name) as sink:
        for start in range(0, len(data), 100_000):
            sink.write(data[start : start + 100_000])


def get(store: S3Store, name: str) -> bytes:
    with store.open(name) as stream:
        return b"".join(iter(lambda: stream.read(100_000), b""))


OPERATIONS = [
    pytest.param(lambda store: put(store, "new"), id="create"),
    pytest.param(lambda store: get(store, "there"), id="open"),
    pytest.param(lambda store: store.stat("there"), id="stat"),
    pytest.param(lambda store: list(store.list()), id="list"),
    pytest.param(lambda store: store.copy("there", "new"), id="copy"),
    pytest.param(lambda store: store.delete("there"), id="delete"),
    pytest.param(lambda store: store.protect("there", datetime.now(UTC) + timedelta(days=1)), id="protect"),
]
WITHOUT_LOCK = OPERATIONS[:-1]
FOR_EVER = 10**6

# --- the server fails ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("act", WITHOUT_LOCK)
def test_passing_trouble_is_ridden_over(
    server: S3Server, store: S3Store, act: Callable[[S3Store], object], status: int
) -> None:
    server.faults.append(Fault("status", status=status))
    act(store)
    assert all(server.read(name) == DATA for name in server.names())


@pytest.mark.parametrize("status", [429, 500])
@pytest.mark.parametrize("act", OPERATIONS)
def test_lasting_trouble_is_transient(
    server: S3Server, store: S3Store, act: Callable[[S3Store], object], status: int
) -> None:
    server.faults.append(Fault("status", status=status, times=FOR_EVER))
    with pytest.raises(StoreUnavailable, match="no usable answer"):
        act(store)
    assert len(server.requests) <= 3, "bounded"
    server.faults.clear()
    assert server.names() == ["there"]


@pytest.mark.parametrize(
    ("status", "code", "error", "message"),
    [
        (403, "InvalidAccessKeyId", AccessDenied, "were not accepted.*Renew them"),
        (403, "SignatureDoesNotMatch", AccessDenied, "were not accepted"),
        (400, "ExpiredToken", AccessDenied, "were not accepted"),
        (403, "RequestTimeTooSkewed", AccessDenied, r"the clock of this worker differs .*Correct it \(NTP\)"),
        (403, "AccessDenied", AccessDenied, "docs/copies.md"),
        (400, "AuthorizationHeaderMalformed", ConfigError, "another region"),
        (400, "InvalidArgument", ConfigError, "InvalidArgument"),
    ],
)
@pytest.mark.parametrize("act", OPERATIONS)
def test_refusals_are_permanent_and_say_why(
    server: S3Server,
    store: S3Store,
    act: Callable[[S3Store], object],
    status: int,
    code: str,
    error: type[Exception],
    message: str,
) -> None:
    server.faults.append(Fault("status", status=status, code=code, times=FOR_EVER))
    with pytest.raises(error, match=message):
        act(store)
    assert len(server.requests) <= 4, "once; where an answer to HEAD has no words, for these and for the region"
    server.faults.clear()
    assert server.names() == ["there"]


@pytest.mark.parametrize("act", OPERATIONS)
def test_no_server(act: Callable[[S3Store], object]) -> None:
    with pytest.raises(StoreUnavailable):
        act(s3_store("http://127.0.0.1:9", "vault"))


@pytest.mark.parametrize("act", [OPERATIONS[0], OPERATIONS[1], OPERATIONS[3], OPERATIONS[4]])
def test_no_such_bucket(server: S3Server, act: Callable[[S3Store], object]) -> None:
    with pytest.raises(NotFound, match="s3://another"):
        act(server.store(bucket="another"))


def test_a_server_that_knows_no_conditions_is_named(server: S3Server, store: S3Store) -> None:
    server.faults.append(Fault("status", "^PUT", status=501, code="NotImplemented", times=FOR_EVER))
    with pytest.raises(ConfigError, match="If-None-Match"):
        put(store, "new", b"small")


def test_a_certificate_that_nobody_knows(server: S3Server, tmp_path: Path) -> None:
    unknown = make_authority("nobody knows it", datetime.now(UTC))
    (tmp_path / "both.pem").write_bytes(unknown.pem_key + unknown.crt)
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    with create_server(("127.0.0.1", 0)) as listening:

        def shake() -> None:
            while True:
                try:
                    context.wrap_socket(listening.accept()[0], server_side=True)
                except OSError:
                    if listening.fileno() < 0:
                        return

        Thread(target=shake, daemon=True).start()
        with pytest.raises(ServerUntrusted, match=r"not trusted.*AWS_CA_BUNDLE"):
            s3_store(f"https://127.0.0.1:{listening.getsockname()[1]}", "vault").stat("a")


# --- writing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 2 * PART_BYTES])
def test_every_write_forbids_replacing_and_names_its_checksum(server: S3Server, store: S3Store, size: int) -> None:
    put(store, "new", DATA[:size])
    store.copy("there", "copied")
    writes = [
        headers
        for request, headers in zip(server.requests, server.headers[-len(server.requests) :], strict=True)
        if request.startswith("PUT") or "uploadId" in request
    ]
    publishing = [headers for headers in writes if headers.get("IF_NONE_MATCH") == "*"]
    assert len(publishing) == 2
    assert all("X_AMZ_CHECKSUM_CRC32C" in headers for headers in writes if "X_AMZ_COPY_SOURCE" not in headers and headers not in publishing[1:])  # fmt: skip


def test_a_name_that_is_taken_costs_no_upload(server: S3Server, store: S3Store) -> None:
    with pytest.raises(ObjectExists):
        put(store, "there")
    assert server.asked("^(PUT|POST)") == 0


@pytest.mark.parametrize("size", [10, 2 * PART_BYTES + 5])
def test_somebody_else_was_faster(server: S3Server, store: S3Store, size: int) -> None:
    def write_too_late() -> None:
        with store.create("new") as sink:
            sink.write(DATA[:size])
            server.client.put_object(Bucket=server.bucket, Key="new", Body=b"faster")

    with pytest.raises(ObjectExists):
        write_too_late()
    assert server.read("new") == b"faster"
    assert server.uploads() == []


@pytest.mark.parametrize("act", ["create", "copy"])
@pytest.mark.parametrize("request_", ["^PUT .*partNumber=", "^POST .*uploadId="], ids=["part", "last"])
def test_an_answer_that_got_lost(server: S3Server, store: S3Store, act: str, request_: str) -> None:
    """After the last one's the object is there already: the client asks again and meets its own object."""
    server.faults.append(Fault("lose", request_))
    put(store, "new") if act == "create" else store.copy("there", "new")
    assert server.read("new") == DATA
    assert server.uploads() == []


def test_the_answer_to_a_small_object_got_lost(server: S3Server, store: S3Store) -> None:
    server.faults.append(Fault("lose", "^PUT"))
    put(store, "new", b"small")
    assert server.asked("^PUT") == 2
    assert server.read("new") == b"small"


@pytest.mark.parametrize("size", [10, PART_BYTES, 2 * PART_BYTES + 5])
def test_damage_on_the_way_up(server: S3Server, store: S3Store, size: int) -> None:
    server.faults.append(Fault("flip", "^PUT", times=FOR_EVER))
    with pytest.raises(StoreUnavailable, match="damaged in"):
        put(store, "new", DATA[:size])
    server.faults.clear()
    assert server.names() == ["there"]
    assert server.uploads() == []
    put(store, "new", DATA[:size])
    assert server.read("new") == DATA[:size]


def test_a_server_that_stored_something_else(server: S3Server) -> None:
    """Deleted is the very version that was written."""

    class Lying:
        def __init__(self, real: Any) -> None:
            self._real = real
            self.deleted: list[dict[str, Any]] = []

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        def put_object(self, **kwargs: Any) -> Any:
            kept = {key: value for key, value in kwargs.items() if "Checksum" not in key and key != "ContentLength"}
            return self._real.put_object(**{**kept, "Body": kwargs["Body"][:-1]})

        def delete_object(self, **kwargs: Any) -> Any:
            self.deleted.append(kwargs)
            return self._real.delete_object(**kwargs)

    lying = Lying(server.client)
    with pytest.raises(StoreUnavailable, match="it was deleted"):
        put(S3Store(lying, server.bucket), "new", b"small")
    assert server.names() == ["there"]
    assert "IfMatch" in lying.deleted[0]


def test_a_killed_writer_leaves_nothing_that_shows(server: S3Server, store: S3Store) -> None:
    code = (
        "import os, signal; from tests.s3_server import s3_store, PART_BYTES\n"
        f"with s3_store({server.url!r}, {server.bucket!r}).create('set/new') as sink:\n"
        "    sink.write(bytes(2 * PART_BYTES + 5)); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": "include:plugins:."}, cwd=ROOT, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert server.names() == ["there"]
    assert server.uploads() == ["set/new"]
    put(store, "set/new")
    assert server.read("set/new") == DATA
    assert store.purge("set") == 2, "the object and the upload that was never finished"
    assert server.uploads() == []


def test_a_bucket_without_object_lock(store: S3Store) -> None:
    with pytest.raises(ConfigError, match="object-lock-enabled-for-bucket"):
        store.protect("there", datetime.now(UTC) + timedelta(days=1))


def test_who_may_not_ask_about_locks_is_still_told_of_each(server: S3Server) -> None:
    server.faults.append(Fault("status", "object-lock", status=403, times=FOR_EVER))
    assert [found.crc32c is None for found in server.store().list()] == [True]
    assert server.asked("^HEAD") == 1


@pytest.fixture
def locked() -> Iterator[S3Server]:
    """Yield a server whose bucket has object lock, with two objects; its answers for one are those for a customer's key."""
    with s3_server(lock=True) as running:
        for key in ("sealed by another", "there"):
            running.client.put_object(Bucket=running.bucket, Key=key, Body=DATA)
        running.faults.append(Fault("status", "^(HEAD|GET) .*/sealed", status=400, times=FOR_EVER))
        yield running


@pytest.mark.parametrize("status", [400, 403])
def test_an_object_that_gives_no_headers_hides_no_other(locked: S3Server, status: int) -> None:
    locked.faults[0].status = status
    store = locked.store()
    facts = [(found.name, found.size_bytes, found.locked_until) for found in store.list()]
    assert facts == [("sealed by another", len(DATA), None), ("there", len(DATA), None)]
    alone = store.stat("sealed by another")
    assert alone is not None
    assert (alone.size_bytes, alone.crc32c) == (len(DATA), None)
    with pytest.raises(AccessDenied, match=r"^sealed by another of s3://"):
        get(store, "sealed by another")


def test_an_object_with_a_key_of_its_own_is_refused_by_name(server: S3Server, store: S3Store) -> None:
    server.faults.append(Fault("status", "^GET .*/there", status=400, times=FOR_EVER))
    with pytest.raises(AccessDenied, match=r"^there of .*refuses this object and no other .*Find out who wrote it"):
        get(store, "there")


def test_credentials_that_expire_between_listing_and_headers_end_the_listing(locked: S3Server) -> None:
    locked.faults.append(Fault("status", "prefix=sealed", status=400, code="ExpiredToken", times=FOR_EVER))
    with pytest.raises(AccessDenied, match="were not accepted"):
        list(locked.store().list())


@pytest.mark.parametrize("lock", [True, False])
def test_an_object_that_gives_no_headers_can_be_removed_for_good(lock: bool) -> None:
    with s3_server(lock=lock) as running:
        running.client.put_object(Bucket=running.bucket, Key="set/sealed", Body=DATA)
        running.faults.append(Fault("status", "^HEAD .*/sealed", status=400, times=FOR_EVER))
        assert running.store().purge("set") == 1
        versions = running.client.list_object_versions(Bucket=running.bucket)
        assert (versions.get("Versions", []), versions.get("DeleteMarkers", [])) == ([], [])


def test_who_may_not_ask_for_versions_removes_nothing(locked: S3Server) -> None:
    locked.faults.append(Fault("status", "versions", status=403, times=FOR_EVER))
    with pytest.raises(AccessDenied, match="refuses this object and no other"):
        locked.store().delete("sealed by another")
    assert not locked.asked("^DELETE")


# --- reading ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, 1000, PART_BYTES - 1])
def test_a_download_cut_twice_goes_on(server: S3Server, store: S3Store, after: int) -> None:
    server.faults.append(Fault("cut", "^GET .*/there", after=after, times=2))
    assert get(store, "there") == DATA


def test_a_download_that_is_always_cut(server: S3Server, store: S3Store) -> None:
    server.faults.append(Fault("cut", "^GET .*/there", times=FOR_EVER))
    with pytest.raises(StoreUnavailable):
        get(store, "there")


def test_an_object_shorter_than_its_record(server: S3Server, store: S3Store) -> None:
    server.faults.append(Fault("short", "^GET .*/there", after=100, times=FOR_EVER))
    with pytest.raises(ObjectDamaged, match="shorter than recorded"):
        get(store, "there")


def test_an_object_replaced_while_it_is_read(server: S3Server, store: S3Store) -> None:
    with store.open("there") as stream:
        stream.read(10)
        server.client.put_object(Bucket=server.bucket, Key="there", Body=b"?" * len(DATA))
        with pytest.raises(NotFound, match="replaced while it was read"):
            stream.read()


# --- memory and credentials ------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_object(server: S3Server) -> None:
    """What is written goes up in parts, of which one is held; 160 MiB are more than any slack."""
    code = (
        "import resource; from etcdkeep.adapters.stores.s3 import S3Store; from tests.s3_server import client\n"
        f"store = S3Store(client({server.url!r}), {server.bucket!r})\n"
        "def write(name, blocks):\n"
        "    with store.create(name) as sink:\n"
        "        for _ in range(blocks): sink.write(bytes(2**20))\n"
        "write('warm', 20)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "write('large', 160)\n"
        "with store.open('large') as source:\n"
        "    while source.read(2**20): pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": "include:plugins:."},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(done.stdout) * 1024 < 5 * LIVE_PART_BYTES


def test_credentials_region_and_endpoint_are_of_the_default_chain(
    server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    url = f"s3://{server.bucket}/team"
    with pytest.raises(AccessDenied, match="no AWS credentials here"):
        open_store(url)
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = chain\naws_secret_access_key = secret\n")
    (tmp_path / "config").write_text(f"[default]\nregion = eu-test-1\nendpoint_url = {server.url}\n")
    with open_store(url).create("a") as sink:
        sink.write(b"1")
    assert server.read("team/a") == b"1"
    assert "Credential=chain/" in server.headers[-2]["AUTHORIZATION"]
    assert "/eu-test-1/s3/" in server.headers[-2]["AUTHORIZATION"]
    monkeypatch.setenv("AWS_PROFILE", "missing")
    with pytest.raises((ConfigError, AccessDenied), match="missing"):
        open_store(url)


def test_limits_of_the_client() -> None:
    """Bounded in every direction: connecting, silence, and how often."""
    config = s3_client._config(None, s3_client.ATTEMPTS)
    assert (config.connect_timeout, config.read_timeout) == (10, 60)
    assert config.retries == {"mode": "standard", "total_max_attempts": 6}


def test_every_error_is_ours(server: S3Server) -> None:
    with pytest.raises(EtcdkeepError):
        S3Store(client(server.url), "Not_A_Bucket!").stat("a")
