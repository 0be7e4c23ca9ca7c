"""What an SSH connection is made with: modern algorithms only, and those that a configuration brings back by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CIPHERS = ("aes256-gcm@openssh.com", "aes128-gcm@openssh.com", "aes256-ctr", "aes192-ctr", "aes128-ctr")
MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")
WEAK_CIPHERS = ("aes256-cbc", "aes192-cbc", "aes128-cbc", "3des-cbc")
WEAK_MACS = ("hmac-sha1", "hmac-sha1-96", "hmac-md5", "hmac-md5-96")
WEAK = (*WEAK_CIPHERS, *WEAK_MACS)
"""Can be brought back for one host. Key exchanges and signatures with SHA-1 (ssh-rsa) and DSA cannot."""


def check_weak(name: str) -> str:
    """
    Return the name of a weak algorithm that may be brought back.

    :raises ValueError: when it is none.
    """
    if name not in WEAK:
        why = "is used anyway" if name in (*CIPHERS, *MACS) else "is not supported"
        raise ValueError(f"{name!r} {why}; expected one of {', '.join(WEAK)}")
    return name


def offered(
    modern: Sequence[str], weak: Sequence[str], allowed: Iterable[str], supported: Iterable[str]
) -> tuple[str, ...]:
    """Return what is offered to a server, the best first."""
    wanted = (*modern, *(name for name in weak if name in set(allowed)))
    known = set(supported)
    return tuple(name for name in wanted if name in known)


def nothing_in_common(kind: str, theirs: Sequence[str], setting: str) -> str:
    """
    Say what a server offers, and which setting lets it in, to follow the server's name.

    :param kind: Such as ``cipher``.
    :param setting: Section of the configuration that is about this host: ``ssh`` or ``ssh.jump``.
    """
    words = f"it offers no {kind} that is safe, only {', '.join(theirs) or 'none'}."
    for name in theirs:
        if name in WEAK:
            return (
                f"{words}\nUpdate its SSH server. Until then, for this host alone: {setting}.weak_algorithms: [{name}]"
            )
    return f"{words}\nUpdate its SSH server: nothing of this is supported here."
