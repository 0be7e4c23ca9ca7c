"""Length, SHA-256 and CRC-32C of a stream of bytes, taken while it passes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import google_crc32c


@dataclass(frozen=True)
class Digest:
    """What identifies a stream's bytes; SHA-256 in hex."""

    size_bytes: int
    sha256: str
    crc32c: int


class Hasher:
    """Takes the digest of what it is fed."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._sha256 = hashlib.sha256()
        self._crc32c = 0

    def update(self, data: bytes) -> None:
        """Add the next bytes."""
        self.size_bytes += len(data)
        self._sha256.update(data)
        self._crc32c = google_crc32c.extend(self._crc32c, data)

    def digest(self) -> Digest:
        """Return the digest of everything so far."""
        return Digest(self.size_bytes, self._sha256.hexdigest(), self._crc32c)
