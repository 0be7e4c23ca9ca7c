"""A sealed artifact is an ordinary file: the real ``age`` and ``zstd`` open ours, and we open theirs."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from etcdkeep.errors import SealError
from etcdkeep.sealing.age_keys import generate_identity, parse_identities
from etcdkeep.sealing.seal import seal, unseal

if TYPE_CHECKING:
    from pathlib import Path

for program in ("age", "zstd", "ssh-keygen"):
    if shutil.which(program) is None:
        pytest.skip(
            f"the program {program} is not installed (apt-get install age zstd openssh-client)", allow_module_level=True
        )

PLAINTEXT = {"empty": b"", "text": b"etcd " * 50_000, "noise": os.urandom(3_000_001)}


@pytest.fixture(params=["x25519", "ssh-ed25519"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """Give an identity file and its recipient."""
    key = tmp_path / "key"
    if request.param == "x25519":
        text, recipient = generate_identity()
        key.write_text(text)
    else:
        subprocess.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ops@example", "-f", key), check=True)
        recipient = key.with_suffix(".pub").read_text().strip()
    key.chmod(0o600)
    return key, recipient


def run(*argv: str | Path, stdin: bytes) -> bytes:
    return subprocess.run(argv, input=stdin, capture_output=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("name", PLAINTEXT)
def test_stock_programs_open_ours(name: str, pair: tuple[Path, str]) -> None:
    key, recipient = pair
    stored = io.BytesIO()
    seal([PLAINTEXT[name]], stored, [recipient])
    compressed = run("age", "-d", "-i", key, stdin=stored.getvalue())
    assert run("zstd", "-d", stdin=compressed) == PLAINTEXT[name]


@pytest.mark.parametrize("options", [("-3",), ("-19", "--no-check"), ("-T2", "-1")], ids=" ".join)
@pytest.mark.parametrize("name", PLAINTEXT)
def test_we_open_what_stock_programs_made(name: str, options: tuple[str, ...], pair: tuple[Path, str]) -> None:
    key, recipient = pair
    stored = run("age", "-r", recipient, stdin=run("zstd", *options, stdin=PLAINTEXT[name]))
    plain = io.BytesIO()
    unseal(io.BytesIO(stored), plain, parse_identities(key.read_bytes()), size_limit=len(PLAINTEXT[name]))
    assert plain.getvalue() == PLAINTEXT[name]


def test_a_pair_of_age_keygen(tmp_path: Path) -> None:
    text = run("age-keygen", stdin=b"")
    recipient = next(line.split()[-1] for line in text.decode().splitlines() if "public key" in line)
    stored, plain = io.BytesIO(), io.BytesIO()
    seal([b"x"], stored, [recipient])
    stored.seek(0)
    unseal(stored, plain, parse_identities(text), size_limit=1)
    assert plain.getvalue() == b"x"


def test_an_age_file_that_is_not_compressed(pair: tuple[Path, str]) -> None:
    key, recipient = pair
    stored = run("age", "-r", recipient, stdin=b"not compressed")
    with pytest.raises(SealError, match="zstd"):
        unseal(io.BytesIO(stored), io.BytesIO(), parse_identities(key.read_bytes()), size_limit=100)
