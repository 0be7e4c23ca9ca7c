"""Sealing and opening: what goes in comes out, everything else is an error of its own, and nothing hangs."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from typing import TYPE_CHECKING

import google_crc32c
import pyrage
import pytest
from backports import zstd
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from etcdkeep.errors import (
    ConfigError,
    IdentityMismatch,
    NoSpace,
    SealError,
    SecretUnavailable,
    StoreUnavailable,
    StreamCut,
)
from etcdkeep.sealing.age_keys import generate_identity, parse_identities, parse_recipients
from etcdkeep.sealing.seal import AGE_HEADER, BLOCK_BYTES, Sealed, seal, unseal

if TYPE_CHECKING:
    from collections.abc import Iterator

IDENTITY_FILE, RECIPIENT = generate_identity()
IDENTITIES = parse_identities(IDENTITY_FILE.encode())
SSH_KEY = Ed25519PrivateKey.generate()
SSH_PUBLIC = SSH_KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
SSH_PRIVATE = SSH_KEY.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
NOISE = os.urandom(300_000)


def sealed(plaintext: bytes, *recipients: str) -> bytes:
    sink = io.BytesIO()
    seal([plaintext], sink, recipients or (RECIPIENT,))
    return sink.getvalue()


def opened(stored: bytes, limit: int = 2**40) -> bytes:
    sink = io.BytesIO()
    unseal(io.BytesIO(stored), sink, IDENTITIES, size_limit=limit)
    return sink.getvalue()


def aged(content: bytes) -> bytes:
    """An age file around something that we did not compress."""
    return pyrage.encrypt(content, parse_recipients([RECIPIENT]))


class FailingSink:
    """Takes `room` bytes, then has none left."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, data: bytes, /) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise NoSpace("the spool is full")
        return len(data)


class CutStream(io.RawIOBase):
    """A stored object whose store fails after some bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        if block := self.data.read(min(size, 1000)):
            return block
        raise StoreUnavailable("the bucket went away")


# --- round trip ------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=3000), max_size=8))
def test_what_goes_in_comes_out(chunks: list[bytes]) -> None:
    stored = io.BytesIO()
    facts = seal(iter(chunks), stored, [RECIPIENT])
    plain = io.BytesIO()
    stored.seek(0)
    assert unseal(stored, plain, IDENTITIES, size_limit=facts.plain_size_bytes) == facts
    assert plain.getvalue() == b"".join(chunks)


@pytest.mark.parametrize(
    "size", [0, 1, 65_535, 65_536, 65_537, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 5 * BLOCK_BYTES + 7]
)
@pytest.mark.parametrize("kind", ["zeros", "noise"])
def test_facts_are_those_of_both_sides(size: int, kind: str) -> None:
    plaintext = bytes(size) if kind == "zeros" else os.urandom(size)
    stored = io.BytesIO()
    facts = seal([plaintext], stored, [RECIPIENT])
    data = stored.getvalue()
    assert facts == Sealed(
        plain_size_bytes=size,
        plain_sha256=hashlib.sha256(plaintext).hexdigest(),
        stored_size_bytes=len(data),
        stored_sha256=hashlib.sha256(data).hexdigest(),
        stored_crc32c=google_crc32c.value(data),
    )
    assert opened(data, limit=size) == plaintext


def test_every_recipient_can_open_it_alone() -> None:
    other_file, other = generate_identity()
    stored = sealed(NOISE, RECIPIENT, f"{SSH_PUBLIC} ops@example", other)
    for identity in (IDENTITY_FILE.encode(), SSH_PRIVATE, other_file.encode()):
        sink = io.BytesIO()
        unseal(io.BytesIO(stored), sink, parse_identities(identity), size_limit=len(NOISE))
        assert sink.getvalue() == NOISE


def test_several_zstd_frames_are_one_stream() -> None:
    assert opened(aged(zstd.compress(b"first ") + zstd.compress(b"") + zstd.compress(b"second"))) == b"first second"


def test_nothing_of_the_plaintext_shows() -> None:
    assert b"the canary sings" not in sealed(b"the canary sings " * 5)


# --- sealing that fails ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [StreamCut("cut"), KeyboardInterrupt(), OSError("socket")], ids=["ours", "signal", "os"]
)
@pytest.mark.parametrize("good_bytes", [0, 10, BLOCK_BYTES, 40 * BLOCK_BYTES])
def test_the_sources_exception_comes_out_as_itself(error: BaseException, good_bytes: int) -> None:
    def source() -> Iterator[bytes]:
        for _ in range(good_bytes // 10_000):
            yield NOISE[:10_000]
        raise error

    with pytest.raises(type(error)) as caught:
        seal(source(), io.BytesIO(), [RECIPIENT])
    assert caught.value is error


@pytest.mark.parametrize("room", [0, 300, 200_000, 10 * BLOCK_BYTES])
def test_a_full_sink_ends_an_endless_source_and_closes_it(room: int) -> None:
    closed = threading.Event()

    def source() -> Iterator[bytes]:
        try:
            while True:
                yield os.urandom(50_000)
        finally:
            closed.set()

    with pytest.raises(NoSpace, match="spool is full"):
        seal(source(), FailingSink(room), [RECIPIENT])
    assert closed.is_set()


def test_no_thread_stays_behind() -> None:
    before = threading.active_count()
    test_a_full_sink_ends_an_endless_source_and_closes_it(300)
    sealed(NOISE)
    assert threading.active_count() == before


def test_without_recipients_nothing_is_read() -> None:
    def source() -> Iterator[bytes]:
        pytest.fail("the source was read")
        yield b""

    with pytest.raises(ConfigError, match="no age recipients"):
        seal(source(), io.BytesIO(), [])


def test_what_is_no_ciphertext_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(reader: io.BytesIO, writer: io.BytesIO, _: object) -> None:
        while data := reader.read(8192):
            writer.write(data)

    monkeypatch.setattr(pyrage, "encrypt_io", broken)
    sink = io.BytesIO()
    with pytest.raises(SealError, match="nothing was stored in the clear"):
        seal([b"secret" * 1000], sink, [RECIPIENT])
    assert sink.getvalue() == b""


# --- opening that fails ----------------------------------------------------------------------------------------


def test_wrong_identity() -> None:
    stranger = parse_identities(generate_identity()[0].encode())
    with pytest.raises(IdentityMismatch, match="none of the 1 age identities"):
        unseal(io.BytesIO(sealed(NOISE)), io.BytesIO(), stranger, size_limit=len(NOISE))


def test_no_identity() -> None:
    with pytest.raises(IdentityMismatch, match="none of the 0"):
        unseal(io.BytesIO(sealed(NOISE)), io.BytesIO(), [], size_limit=len(NOISE))


def test_truncation_at_any_byte() -> None:
    stored = sealed(NOISE[:500])
    for length in range(len(stored)):
        with pytest.raises(SealError):
            opened(stored[:length])


@pytest.mark.parametrize("length", [65_000, 66_000, 131_400, 200_000, 262_500, -1], ids=str)
def test_truncation_of_a_longer_stream(length: int) -> None:
    with pytest.raises(SealError, match="altered or cut"):
        opened(sealed(NOISE)[:length])


def test_a_changed_bit_anywhere() -> None:
    stored = sealed(NOISE[:300])
    for position in range(len(stored)):
        damaged = bytearray(stored)
        damaged[position] ^= 0x04
        # In the header a changed stanza looks like one for somebody else.
        with pytest.raises((SealError, IdentityMismatch)):
            opened(bytes(damaged))


def test_bytes_after_the_end() -> None:
    with pytest.raises(SealError):
        opened(sealed(NOISE) + b"x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "ends too early", id="nothing"),
        pytest.param(b"just text, never compressed", "damaged", id="not zstd"),
        pytest.param(zstd.compress(NOISE)[:-1], "ends too early", id="last byte missing"),
        pytest.param(zstd.compress(NOISE)[:100_000], "ends too early", id="cut in the middle"),
        pytest.param(zstd.compress(NOISE) + b"garbage", "something else follows", id="garbage behind"),
        pytest.param(zstd.compress(NOISE) + b"\x28\xb5", "ends too early", id="half a frame behind"),
    ],
)
def test_what_is_inside_is_no_whole_zstd_stream(content: bytes, message: str) -> None:
    with pytest.raises(SealError, match=message):
        opened(aged(content))


def test_zstd_checksum_is_written_and_checked() -> None:
    stream = bytearray(pyrage.decrypt(sealed(NOISE), IDENTITIES))
    stream[-1] ^= 1
    with pytest.raises(SealError, match="damaged"):
        opened(aged(bytes(stream)))


def test_a_longer_stream_than_recorded_is_given_up_at_once() -> None:
    bomb = sealed(bytes(64 * BLOCK_BYTES))
    sink = io.BytesIO()
    with pytest.raises(SealError, match="more than the 1000 bytes"):
        unseal(io.BytesIO(bomb), sink, IDENTITIES, size_limit=1000)
    assert len(sink.getvalue()) <= 1000


def test_pieces_stay_small_however_well_it_compresses() -> None:
    class Largest:
        size = 0

        def write(self, data: bytes, /) -> int:
            self.size = max(self.size, len(data))
            return len(data)

    sink = Largest()
    unseal(io.BytesIO(sealed(bytes(64 * BLOCK_BYTES))), sink, IDENTITIES, size_limit=64 * BLOCK_BYTES)
    assert sink.size <= BLOCK_BYTES


def test_a_store_that_fails_while_read_comes_out_as_itself() -> None:
    stored = sealed(NOISE)
    for length in (0, 100, 5000):
        with pytest.raises(StoreUnavailable, match="went away"):
            unseal(CutStream(stored[:length]), io.BytesIO(), IDENTITIES, size_limit=len(NOISE))  # type: ignore[arg-type]


def test_a_full_disk_while_opening_comes_out_as_itself() -> None:
    with pytest.raises(NoSpace):
        unseal(io.BytesIO(sealed(NOISE)), FailingSink(1000), IDENTITIES, size_limit=len(NOISE))


# --- keys ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param("", "neither age1", id="empty"),
        pytest.param("AAAA", "neither age1", id="something"),
        pytest.param(RECIPIENT[:-1], "mistyped or cut", id="one letter short"),
        pytest.param("age1yubikey1qqqq", "mistyped or cut", id="plugin"),
        pytest.param("ssh-rsa AAAAB3NzaC1yc2E", "neither age1", id="rsa"),
        pytest.param("ssh-ed25519 AAAA", "mistyped or cut", id="ssh cut"),
        pytest.param("ecdsa-sha2-nistp256 AAAA", "neither age1", id="ecdsa"),
    ],
)
def test_unusable_recipients(line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"recipients\[1\]: .*{message}"):
        parse_recipients([RECIPIENT, line])


def test_every_unusable_recipient_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_recipients(["x", RECIPIENT, "y"])
    assert [problem[:13] for problem in caught.value.problems] == ["recipients[0]", "recipients[2]"]


def test_a_private_key_among_recipients_is_not_repeated() -> None:
    secret = IDENTITY_FILE.splitlines()[-1]
    with pytest.raises(ConfigError, match="private key") as caught:
        parse_recipients([secret])
    assert secret[16:] not in str(caught.value)


def test_an_identity_file_holds_many_things() -> None:
    other = generate_identity()[0]
    text = f"# created for ops\r\n\r\n{IDENTITY_FILE}\n  {other}\n{SSH_PRIVATE.decode()}\n# end"
    assert len(parse_identities(text.encode())) == 3


ECDSA = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
LOCKED = SSH_KEY.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, BestAvailableEncryption(b"word"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "holds no key", id="empty"),
        pytest.param(b"# only words\n", "holds no key", id="comments"),
        pytest.param(f"# key\n{IDENTITY_FILE.splitlines()[-1][:-1]}".encode(), "line 2", id="cut"),
        pytest.param(RECIPIENT.encode(), "line 1", id="public"),
        pytest.param(SSH_PRIVATE + b"nonsense", f"line {SSH_PRIVATE.count(10) + 1}", id="line behind a block"),
        pytest.param(ECDSA, "only ed25519", id="ecdsa"),
        pytest.param(LOCKED, "passphrase", id="passphrase"),
        pytest.param(SSH_PRIVATE.replace(b"b3Bl", b"c3Bl"), "cannot be read", id="damaged"),
        pytest.param(AGE_HEADER + b"\xff\xfe", "line 1", id="encrypted file"),
    ],
)
def test_unusable_identities(data: bytes, message: str) -> None:
    with pytest.raises(SecretUnavailable, match=message) as caught:
        parse_identities(data)
    body = [line for line in data.decode(errors="replace").splitlines() if len(line) > 40 and not line.startswith("-")]
    assert not any(line[20:40] in str(caught.value) for line in body)


def test_an_identity_does_not_show_itself() -> None:
    secret = IDENTITY_FILE.splitlines()[-1]
    assert secret[16:40] not in repr(IDENTITIES)


def test_a_new_pair_fits() -> None:
    text, recipient = generate_identity()
    assert recipient in text.splitlines()[0]
    sink = io.BytesIO()
    unseal(io.BytesIO(sealed(b"x", recipient)), sink, parse_identities(text.encode()), size_limit=1)
    assert sink.getvalue() == b"x"
