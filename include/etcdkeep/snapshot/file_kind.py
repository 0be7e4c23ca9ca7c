"""What a file is that is given for a snapshot and is none: named, with the command that opens it."""

from __future__ import annotations

import shlex

HEAD_BYTES = 1024
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", 257
_KINDS = (
    ((b"\x1f\x8b",), "gzip", "gunzip -k {file}"),
    ((b"\x28\xb5\x2f\xfd", *(bytes((0x50 | n, 0x2A, 0x4D, 0x18)) for n in range(16))), "zstd", "zstd -dk {file}"),
    ((b"\xfd7zXZ\0",), "xz", "xz -dk {file}"),
    ((b"BZh",), "bzip2", "bunzip2 -k {file}"),
    ((b"\x04\x22\x4d\x18",), "lz4", "lz4 -dk {file}"),
    ((b"PK\3\4", b"PK\5\6", b"PK\7\x08"), "a zip archive", "unzip {file}"),
    ((b"7z\xbc\xaf\x27\x1c",), "a 7z archive", "7z x {file}"),
    (
        (b"age-encryption.org/v1", b"-----BEGIN AGE ENCRYPTED FILE-----"),
        "encrypted with age",
        "age -d -i KEY {file} > opened, or for a whole set: python -m etcdkeep unseal SET",
    ),
    ((b"-----BEGIN PGP MESSAGE-----",), "encrypted with PGP", "gpg -d {file} > opened"),
    ((b"Salted__",), "encrypted with openssl", "openssl enc -d … -in {file} -out opened"),
    ((b"SQLite format 3\0",), "a SQLite database (kine keeps a cluster's objects so)", ""),
)


def name_kind(head: bytes, file: str) -> str:
    """
    Say what a file is, and how it is opened; nothing where it may be a snapshot or is of a kind we do not know.

    :param head: Its first :data:`HEAD_BYTES`.
    """
    what, command = next(
        ((what, command) for marks, what, command in _KINDS if head.startswith(marks)),
        ("a tar archive", "tar -xf {file}") if head.startswith(_TAR_MAGIC, _TAR_MAGIC_AT) else ("", ""),
    )
    if not what:
        return ""
    return f"it is {what}, not a plain snapshot" + (
        f". Open it first: {command.format(file=shlex.quote(file))}" if command else ""
    )
