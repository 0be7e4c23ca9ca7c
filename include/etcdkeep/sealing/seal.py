"""
Sealing: plaintext → zstd → age, and back, in one pass and constant memory, with the digests of both sides.

The result is an ordinary ``.zst.age`` file: ``age -d -i KEY FILE | zstd -d`` opens it.
"""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from enum import Enum
from io import BytesIO
from queue import Queue
from threading import Event
from typing import TYPE_CHECKING, BinaryIO, Final

import pyrage
from backports import zstd

from etcdkeep.errors import IdentityMismatch, SealError
from etcdkeep.sealing.age_keys import parse_recipients
from etcdkeep.sealing.digest import Hasher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from etcdkeep.ports import ByteSink
    from etcdkeep.sealing.age_keys import Identity

AGE_HEADER: Final = b"age-encryption.org/v1\n"
BLOCK_BYTES: Final = 2**20
BLOCKS_AHEAD: Final = 4
"""How far the source may run ahead of the sealing thread: enough to ride over a slow write, little to hold."""

COMPRESSION_LEVEL: Final = 1
"""On etcd's data level 3 saves nothing more and takes twice the time."""


@dataclass(frozen=True)
class Sealed:
    """Both sides of one sealed stream; SHA-256 in hex."""

    plain_size_bytes: int
    plain_sha256: str
    stored_size_bytes: int
    stored_sha256: str
    stored_crc32c: int


def seal(
    plaintext: Iterable[bytes],
    sink: ByteSink,
    recipients: Sequence[str],
    *,
    passed: Hasher | None = None,
    level: int = COMPRESSION_LEVEL,
) -> Sealed:
    """
    Write a stream to `sink`, compressed and encrypted to `recipients`, and return its digests.

    The source is read in the calling thread and sealed in a second one, so that neither waits for the other's work.
    What `plaintext` or `sink` raises comes out as it is; `sink` then holds a part that nobody may publish.

    :param plaintext: Closed at the end, whatever happens, when it is a generator.
    :param recipients: ``age1…`` or ``ssh-ed25519 AAAA…`` lines.
    :param passed: What `plaintext` itself feeds with all that it yields, where it needs a digest of its own: hashed once.
    :raises ConfigError: when there is no recipient or one is not usable; nothing was read or written then.
    :raises SealError: when what was about to be stored is not an age file.
    """
    keys = parse_recipients(recipients)
    plain, stored = passed or Hasher(), Hasher()

    def store(data: bytes) -> None:
        if not stored.size_bytes and not data.startswith(AGE_HEADER):
            raise SealError("the data to store does not begin as an age file; nothing was stored in the clear.")
        stored.update(data)
        sink.write(data)

    feed: Queue[bytes | _End] = Queue(BLOCKS_AHEAD)
    stopped = Event()
    blocks = _received(feed)
    reader, writer = _Reader(_compressed(blocks if passed else _hashed(blocks, plain), level)), _Writer(store)

    def encrypt() -> None:
        try:
            pyrage.encrypt_io(reader, writer, keys)
        except Exception as err:
            if cause := reader.failure or writer.failure:
                raise cause from cause.__cause__
            raise SealError(f"age could not encrypt the stream: {err}.") from err
        finally:
            stopped.set()
            with suppress(_SourceFailed):  # the source must never wait for a sealer that is gone
                for _ in blocks:
                    pass

    source = closing(plaintext) if isinstance(plaintext, Generator) else nullcontext()
    with ThreadPoolExecutor(1, "seal") as pool, source:
        sealing = pool.submit(encrypt)
        _pump(plaintext, feed, stopped)
        sealing.result()
    return _facts(plain, stored)


def unseal(stored: BinaryIO, sink: ByteSink, identities: Sequence[Identity], *, size_limit: int) -> Sealed:
    """
    Write the plaintext of a sealed stream to `sink`, and return the digests of both sides.

    Bytes reach `sink` before the end of the stream is known to be sound: use them only after this returned.

    :param size_limit: Plaintext bytes that the manifest records; a longer stream is given up there.
    :raises IdentityMismatch: when none of the identities opens it.
    :raises SealError: when it was altered or cut, is longer than `size_limit`, or holds no zstd stream.
    """
    sealed, plain = Hasher(), Hasher()
    frames = _Frames()

    def emit(data: bytes) -> None:
        for piece in frames.decompress(data):
            plain.update(piece)
            if plain.size_bytes > size_limit:
                raise SealError(
                    f"the sealed stream holds more than the {size_limit} bytes recorded for it; reading stopped there."
                )
            sink.write(piece)

    reader, writer = _Reader(_fetched(stored, sealed)), _Writer(emit)
    try:
        pyrage.decrypt_io(reader, writer, identities)
    except Exception as err:
        if cause := reader.failure or writer.failure:
            raise cause from cause.__cause__
        if "No matching keys" in str(err):
            raise IdentityMismatch(
                f"none of the {len(identities)} age identities given can open this artifact; "
                "the manifest names the recipients it was sealed to: use the identity of one of them."
            ) from err
        raise SealError(
            f"the sealed stream was altered or cut, or is not an age file (after {sealed.size_bytes} bytes): {err}."
        ) from err
    if not frames.complete:
        raise SealError(f"the zstd stream inside ends too early, after {plain.size_bytes} bytes of plaintext.")
    return _facts(plain, sealed)


def opens(identities: Sequence[Identity], recipients: Sequence[str]) -> bool:
    """Say whether one of the identities opens what is sealed to the recipients, by trying."""
    sealed, probe = BytesIO(), b"tried"
    seal([probe], sealed, recipients)
    try:
        unseal(BytesIO(sealed.getvalue()), BytesIO(), identities, size_limit=len(probe))
    except IdentityMismatch:
        return False
    return True


class _End(Enum):
    WHOLE = "whole"
    CUT = "cut"


class _SourceFailed(Exception):
    """Makes age give up; the source's own exception is what the caller sees."""


class _Reader:
    """
    Blocks as the file that pyrage reads 8 KiB at a time.

    pyrage turns what its files raise into errors of its own, so the original is kept in `failure`.
    """

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self.failure: BaseException | None = None
        self._blocks = blocks
        self._block = b""
        self._at = 0

    def read(self, size: int) -> bytes:
        try:
            while self._at == len(self._block):
                self._block, self._at = next(self._blocks), 0
        except StopIteration:
            return b""
        except BaseException as err:
            self.failure = err
            raise
        data = self._block[self._at : self._at + size]
        self._at += len(data)
        return data


class _Writer:
    """The file that pyrage writes to; keeps what `consume` raises in `failure`."""

    def __init__(self, consume: Callable[[bytes], None]) -> None:
        self.failure: BaseException | None = None
        self._consume = consume

    def write(self, data: bytes) -> int:
        if self.failure is not None:  # age tries once more what it could not write, and would hide the first failure
            raise self.failure
        try:
            self._consume(data)
        except BaseException as err:
            self.failure = err
            raise
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


class _Frames:
    """Decompresses a chain of zstd frames in pieces of bounded size, however well they compress."""

    def __init__(self) -> None:
        self._frame = zstd.ZstdDecompressor()

    @property
    def complete(self) -> bool:
        return self._frame.eof

    def decompress(self, data: bytes) -> Iterator[bytes]:
        try:
            while True:
                if self._frame.eof:
                    if not data:
                        return
                    self._frame = zstd.ZstdDecompressor()
                yield self._frame.decompress(data, BLOCK_BYTES)
                if self._frame.eof:
                    data = self._frame.unused_data
                elif self._frame.needs_input:
                    return
                else:
                    data = b""
        except zstd.ZstdError as err:
            raise SealError(f"the zstd stream inside is damaged, or something else follows it: {err}.") from err


def _pump(plaintext: Iterable[bytes], feed: Queue[bytes | _End], stopped: Event) -> None:
    """Hand a source over block by block, and then how it ended; a sealer that stopped gets no more."""
    end = _End.CUT
    try:
        for block in _grouped(plaintext):
            if stopped.is_set():
                break
            feed.put(block)
        else:
            end = _End.WHOLE
    finally:
        feed.put(end)


def _received(feed: Queue[bytes | _End]) -> Iterator[bytes]:
    while not isinstance(block := feed.get(), _End):
        yield block
    if block is _End.CUT:
        raise _SourceFailed


def _grouped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Join small chunks into blocks worth handing to another thread."""
    group: list[bytes] = []
    size = 0
    for chunk in chunks:
        group.append(chunk)
        size += len(chunk)
        if size >= BLOCK_BYTES:
            yield b"".join(group)
            group, size = [], 0
    yield b"".join(group)


def _hashed(blocks: Iterable[bytes], plain: Hasher) -> Iterator[bytes]:
    for block in blocks:
        plain.update(block)
        yield block


def _compressed(blocks: Iterable[bytes], level: int) -> Iterator[bytes]:
    parameter = zstd.CompressionParameter
    compressor = zstd.ZstdCompressor(options={parameter.compression_level: level, parameter.checksum_flag: 1})
    for block in blocks:
        yield compressor.compress(block)
    yield compressor.flush()


def _fetched(stored: BinaryIO, sealed: Hasher) -> Iterator[bytes]:
    while block := stored.read(BLOCK_BYTES):
        sealed.update(block)
        yield block


def _facts(plain: Hasher, stored: Hasher) -> Sealed:
    before, after = plain.digest(), stored.digest()
    return Sealed(before.size_bytes, before.sha256, after.size_bytes, after.sha256, after.crc32c)
