"""SSH host keys as people write them down: parsing, matching to a host, fingerprints, known_hosts lines."""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from etcdkeep.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

ALGORITHMS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")


@dataclass(frozen=True)
class HostKey:
    """
    One public host key.

    :param blob: The key in SSH's wire format, which begins with the algorithm's name.
    :param hosts: The names the line was written for; empty means any host it is configured for.
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
        """Tell whether the line applies to this host."""
        return not self.hosts or host in self.hosts or f"[{host}]:{port}" in self.hosts


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
    Parse ``algorithm base64 [comment]``, with or without host names in front.

    :raises ConfigError: when it is no such line, or a kind of known_hosts line that is not supported (hashed names, markers).
    """
    fields = line.split()
    hosts: tuple[str, ...] = ()
    if fields and fields[0] not in ALGORITHMS:
        hosts, fields = tuple(fields[0].split(",")), fields[1:]
    if len(fields) < 2 or fields[0] not in ALGORITHMS or any(host.startswith(("|", "@")) for host in hosts):
        raise ConfigError(
            f"host key line {line!r} is not understood: expected '[host ]algorithm base64' with one of {', '.join(ALGORITHMS)}; "
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
