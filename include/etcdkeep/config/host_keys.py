"""SSH host keys as people write them down: parsing, matching to a host, fingerprints, known_hosts lines."""

from __future__ import annotations

import hmac
import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from etcdkeep.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

ALGORITHMS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")

MARKERS = {
    "@cert-authority": "host certificates are not supported; give the host's own keys ('python -m etcdkeep trust' prints them)",
    "@revoked": "leave the line out, and every other line with that key: a key that is not listed is refused",
}
HASHED = re.compile(r"\|1\|([A-Za-z0-9+/]+={0,2})\|([A-Za-z0-9+/]+={0,2})")
"""``HashKnownHosts yes``: salt, and HMAC-SHA1 of the host's name."""


@dataclass(frozen=True)
class HostKey:
    """
    One public host key.

    :param blob: The key in SSH's wire format, which begins with the algorithm's name.
    :param hosts: The patterns the line was written for, or one hashed name; empty means any host it is configured for.
    """

    algorithm: str
    blob: bytes
    hosts: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """As ssh prints it: ``SHA256:`` and base64 without padding."""
        return "SHA256:" + b64encode(sha256(self.blob).digest()).decode().rstrip("=")

    def line(self, host: str, port: int) -> str:
        """Return the line to put into the configuration (and a valid line of known_hosts)."""
        return f"{known_hosts_name(host, port)} {self.algorithm} {b64encode(self.blob).decode()}"

    def is_for(self, host: str, port: int) -> bool:
        """Tell whether the line applies to this host, by ssh's rules: a line without port is good for every port."""
        return not self.hosts or any(
            _matches(self.hosts, name.lower()) for name in {known_hosts_name(host, port), host}
        )


def _matches(patterns: tuple[str, ...], name: str) -> bool:
    """Match as ssh does: case does not count, ``*`` and ``?`` stand for anything, a negated pattern outweighs all others."""
    if hashed := HASHED.fullmatch(patterns[0]):
        salt, expected = (b64decode(part) for part in hashed.groups())
        return hmac.compare_digest(hmac.digest(salt, name.encode(), "sha1"), expected)
    negated = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
    return any(_is_like(pattern, name) for pattern in wanted) and not any(_is_like(each, name) for each in negated)


def _is_like(pattern: str, name: str) -> bool:
    pattern = re.sub(r"^\[(.*)\]:22$", r"\1", pattern)
    expression = re.escape(pattern.lower()).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(expression, name, re.DOTALL) is not None


def known_hosts_name(host: str, port: int) -> str:
    """Return how known_hosts names a host: bare for port 22, else ``[host]:port``."""
    return host if port == 22 else f"[{host}]:{port}"


def known_hosts_line(line: str, names: str) -> str:
    """
    Return a configured line as ssh reads it from known_hosts.

    :param names: For a line that has none: a host, or a pattern.
    """
    key = parse_host_key(line)
    return f"{','.join(key.hosts) or names} {key.algorithm} {b64encode(key.blob).decode()}"


def parse_host_key(line: str) -> HostKey:
    """
    Parse ``algorithm base64 [comment]``, with or without host names in front, as in known_hosts.

    :raises ConfigError: when it is no such line, or has a marker: ``@cert-authority``, ``@revoked``.
    """
    fields = line.split()
    if fields and fields[0] in MARKERS:
        raise ConfigError(f"host key line {line!r}: {fields[0]} is not accepted here: {MARKERS[fields[0]]}.")
    hosts: tuple[str, ...] = ()
    if fields and fields[0] not in ALGORITHMS:
        hosts, fields = tuple(fields[0].split(",")), fields[1:]
    if len(fields) < 2 or fields[0] not in ALGORITHMS or not _understood(hosts):
        raise ConfigError(
            f"host key line {line!r} is not understood: expected '[hosts ]algorithm base64' with one of {', '.join(ALGORITHMS)}; "
            "'python -m etcdkeep trust' prints such lines."
        )
    try:
        blob = b64decode(fields[1], validate=True)
    except Base64Error as err:
        raise ConfigError(f"host key line {line!r}: the key is not base64 ({err}); copy the whole line again.") from err
    if _first_field(blob) != fields[0].encode():
        raise ConfigError(
            f"host key line {line!r}: the base64 part is cut off or not a key of type {fields[0]}; copy the whole line again."
        )
    return HostKey(fields[0], blob, hosts)


def _understood(hosts: tuple[str, ...]) -> bool:
    if any(host.startswith("|") for host in hosts):
        return len(hosts) == 1 and HASHED.fullmatch(hosts[0]) is not None
    return all(host.lstrip("!") and not host.startswith("@") for host in hosts)


def _first_field(blob: bytes) -> bytes:
    """Return the first of a key's length-prefixed fields (RFC 4253 §6.6), empty when they do not fill the blob exactly."""
    fields, rest = [], blob
    while rest:
        length = int.from_bytes(rest[:4], "big")
        field, rest = rest[4 : 4 + length], rest[4 + length :]
        if len(field) < length:
            return b""
        fields.append(field)
    return fields[0] if len(fields) > 1 else b""


def keys_for(lines: Iterable[str], host: str, port: int) -> tuple[HostKey, ...]:
    """
    Return the configured keys of one host.

    :raises ConfigError: when a line is not a host key.
    """
    return tuple(key for key in map(parse_host_key, lines) if key.is_for(host, port))
