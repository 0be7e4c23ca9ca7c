"""age recipients (public) and identities (private): X25519 and ssh-ed25519, nothing else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias

import pyrage
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from etcdkeep.errors import ConfigError, SecretUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

Recipient: TypeAlias = Any
"""A public key as pyrage, which has no types, holds it."""

Identity: TypeAlias = Any
"""A private key as pyrage holds it; shows nothing of itself when printed with repr()."""

SSH_PRIVATE_KEY = re.compile(
    r"-----BEGIN OPENSSH PRIVATE KEY-----.*?-----END OPENSSH PRIVATE KEY-----[ \t]*", re.DOTALL
)


def parse_recipients(lines: Iterable[str]) -> tuple[Recipient, ...]:
    """
    Return the keys to encrypt to.

    :raises ConfigError: with every problem; also when there is no recipient at all.
    """
    keys: list[Recipient] = []
    problems: list[str] = []
    for index, line in enumerate(lines):
        try:
            keys.append(_parse_recipient(line.strip()))
        except ValueError as err:
            problems.append(f"recipients[{index}]: {err}")
    if problems:
        raise ConfigError("age recipients cannot be used:", tuple(problems))
    if not keys:
        raise ConfigError(
            "no age recipients: backups are always encrypted; give at least one (python -m etcdkeep keygen)."
        )
    return tuple(keys)


def key_of(recipient: str) -> str:
    """Return a recipient without its comment, which is what tells one key from another."""
    return " ".join(recipient.split()[:2])


def parse_identities(data: bytes) -> list[Identity]:
    """
    Return the keys of an identity file: ``AGE-SECRET-KEY-1…`` lines, OpenSSH ed25519 keys, ``#`` comments.

    :raises SecretUnavailable: when a key is not usable or there is none; the message never shows a key.
    """
    text = data.decode("utf-8", "replace")
    keys: list[Identity] = [_parse_ssh_identity(block) for block in SSH_PRIVATE_KEY.findall(text)]
    # Line numbers in messages stay those of the file.
    rest = SSH_PRIVATE_KEY.sub(lambda block: "\n" * block.group().count("\n"), text)
    for number, line in enumerate(map(str.strip, rest.splitlines()), start=1):
        if not line or line.startswith("#"):
            continue
        try:
            keys.append(pyrage.x25519.Identity.from_str(line))
        except pyrage.IdentityError as err:
            raise SecretUnavailable(
                f"age identity, line {number}: neither AGE-SECRET-KEY-1… nor an unencrypted OpenSSH ed25519 private key. "
                "Give the file that `age-keygen` or `python -m etcdkeep keygen` wrote."
            ) from err
    if not keys:
        raise SecretUnavailable(
            "the age identity file holds no key: expected a line AGE-SECRET-KEY-1… or an OpenSSH ed25519 private key."
        )
    return keys


def generate_identity() -> tuple[str, str]:
    """Return a new identity file's content and its recipient."""
    identity = pyrage.x25519.Identity.generate()
    recipient = str(identity.to_public())
    return f"# public key: {recipient}\n{identity}\n", recipient


def _parse_recipient(line: str) -> Recipient:
    if "SECRET-KEY" in line.upper() or "PRIVATE KEY" in line.upper():
        raise ValueError(
            "this is a private key; configure the public one (age1… or ssh-ed25519 …) and replace the pair"
        )
    try:
        if line.startswith("age1"):
            return pyrage.x25519.Recipient.from_str(line)
        if line.startswith("ssh-ed25519 "):
            return pyrage.ssh.Recipient.from_str(line)
    except pyrage.RecipientError as err:
        raise ValueError(f"{line[:32]!r}… is mistyped or cut ({err})") from err
    raise ValueError(f"{line[:32]!r} is neither age1… (X25519) nor ssh-ed25519 AAAA…")


def _parse_ssh_identity(block: str) -> Identity:
    try:
        if isinstance(load_ssh_private_key(block.encode(), None), Ed25519PrivateKey):
            return pyrage.ssh.Identity.from_buffer(block.encode())
    except (TypeError, ValueError, UnsupportedAlgorithm, pyrage.IdentityError) as err:
        raise SecretUnavailable(
            "age identity: the OpenSSH private key cannot be read; it must be whole and without a passphrase "
            "(`ssh-keygen -p` removes one from a copy)."
        ) from err
    raise SecretUnavailable("age identity: only ed25519 OpenSSH keys are supported; this one is of another kind.")
