"""
A repository in restic's own format (version 1) with snapshots of given times and no data, so that `restic forget` can be asked.

restic itself needs half a second for each snapshot, most of it to derive its key. Format: restic's "design" page (repository
layout, keys, AES-256-CTR with Poly1305-AES).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.poly1305 import Poly1305

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

PASSWORD = "not a secret"
SCRYPT = {"N": 2, "r": 8, "p": 1}
"""Quick: nothing is kept secret here."""


class _Key:
    """A key for AES-256-CTR, one for AES-128 of Poly1305-AES, and Poly1305's r."""

    def __init__(self, data: bytes) -> None:
        self.encrypt, self.k, self.r = data[:32], data[32:48], data[48:64]

    def seal(self, data: bytes) -> bytes:
        iv = os.urandom(16)
        encryptor = Cipher(algorithms.AES(self.encrypt), modes.CTR(iv)).encryptor()
        sealed = encryptor.update(data) + encryptor.finalize()
        nonce = Cipher(algorithms.AES(self.k), modes.ECB()).encryptor().update(iv)
        return iv + sealed + Poly1305.generate_tag(self.r + nonce, sealed)


def make_repository(folder: Path, histories: Mapping[str, Sequence[datetime]]) -> None:
    """Write a repository with one host for each history."""
    for name in ("data", "index", "keys", "locks", "snapshots"):
        (folder / name).mkdir(parents=True)
    salt, master = os.urandom(64), os.urandom(64)
    user = _Key(Scrypt(salt, 64, SCRYPT["N"], SCRYPT["r"], SCRYPT["p"]).derive(PASSWORD.encode()))
    document = {
        "mac": {"k": _text(master[32:48]), "r": _text(master[48:])},
        "encrypt": _text(master[:32]),
    }
    key = {"created": "2026-01-01T00:00:00Z", "username": "t", "hostname": "t", "kdf": "scrypt", **SCRYPT}
    key |= {"salt": _text(salt), "data": _text(user.seal(json.dumps(document).encode()))}
    _write(folder / "keys", json.dumps(key).encode())
    ours = _Key(master)
    config = {"version": 1, "id": os.urandom(32).hex(), "chunker_polynomial": "25b468838dcb75"}
    (folder / "config").write_bytes(ours.seal(json.dumps(config).encode()))
    for host, times in histories.items():
        for time in times:
            snapshot = {"time": time.isoformat(), "tree": "0" * 64, "paths": ["/x"], "hostname": host}
            _write(folder / "snapshots", ours.seal(json.dumps(snapshot).encode()))


def forget(program: str, folder: Path, *policy: str) -> dict[str, list[str]]:
    """Return, per host, the times that restic would keep under a policy, as it prints them."""
    line = (program, "--repo", str(folder), "--no-cache", "--no-lock", "forget", "--dry-run", "--json", "--group-by", "host", *policy)  # fmt: skip
    environment = {**os.environ, "RESTIC_PASSWORD": PASSWORD, "HOME": str(folder), "TZ": "UTC"}
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"restic ended with {done.returncode}: {done.stderr}")
    groups: list[dict[str, Any]] = json.loads(done.stdout)
    return {group["host"]: sorted(each["time"] for each in group["keep"] or ()) for group in groups}


def _text(data: bytes) -> str:
    return b64encode(data).decode()


def _write(folder: Path, data: bytes) -> None:
    (folder / hashlib.sha256(data).hexdigest()).write_bytes(data)
