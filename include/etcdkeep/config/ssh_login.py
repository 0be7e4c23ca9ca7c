"""What a site gives for logging in to a host, from an Airflow connection or from files."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from etcdkeep.config.ssh_algorithms import CIPHERS, WEAK_CIPHERS
from etcdkeep.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KEEPALIVE_S = 15
ALGORITHM_KINDS = ("ciphers", "macs", "kex", "keys", "pubkeys", "compression")
"""What `disabled_algorithms` can be about, in paramiko's words: `keys` are host keys, `pubkeys` signatures of ours."""


@dataclass(frozen=True)
class SshOptions:
    """
    How a connection is made, where that is said; nothing here can bring a weak algorithm back.

    :param source: Who says it, for messages.
    :param connect_s: Seconds for each step of setting the connection up; None for the cluster's `limits.connect_s`.
    :param keepalive_s: Seconds between two signs of life; 0 for none.
    :param ciphers: The ones to offer, the best first; empty for all modern ones.
    :param disabled: Kind of algorithm → names that are not offered.
    """

    source: str = "the configuration"
    connect_s: float | None = None
    keepalive_s: int = KEEPALIVE_S
    ciphers: tuple[str, ...] = ()
    disabled: Mapping[str, Sequence[str]] = field(default_factory=lambda: MappingProxyType({}))
    compress: bool = False

    def chosen_ciphers(self, offered: Sequence[str], setting: str) -> tuple[str, ...]:
        """
        Return those of the ciphers on offer that were chosen.

        :param offered: The modern ones, and the weak ones that the configuration allows.
        :raises ConfigError: for a cipher that is not among them.
        """
        for name in self.ciphers:
            if name in offered:
                continue
            if name in WEAK_CIPHERS:
                raise ConfigError(
                    f"{self.source}: ciphers names {name!r}, which is weak. Remove it; or, for this host alone, set "
                    f"{setting}.weak_algorithms: [{name}]"
                )
            raise ConfigError(
                f"{self.source}: ciphers names {name!r}, which is not supported. Remove it; supported are {', '.join(CIPHERS)}."
            )
        return self.ciphers or tuple(offered)

    def without_disabled(self, kind: str, names: Sequence[str]) -> tuple[str, ...]:
        """
        Return the algorithms of a kind that are not disabled.

        :raises ConfigError: when none is left.
        """
        left = tuple(name for name in names if name not in self.disabled.get(kind, ()))
        if not left:
            raise ConfigError(
                f"{self.source}: disabled_algorithms leaves none of the usable {kind}: {', '.join(names)}. Remove one of them from it."
            )
        return left


NO_OPTIONS = SshOptions()


@dataclass(frozen=True)
class SshLogin:
    """
    One connection of type `ssh`.

    :param source: Which one, for messages.
    :param host: Name or address it is for; empty for any.
    :param key: Private key without passphrase, as OpenSSH reads it; empty for a login by password alone.
    :param host_keys: Lines as in the configuration.
    """

    source: str
    user: str
    host: str = ""
    port: int = 22
    key: bytes = field(default=b"", repr=False)
    password: str = field(default="", repr=False)
    host_keys: tuple[str, ...] = ()
    options: SshOptions = NO_OPTIONS

    def check_host(self, host: str, setting: str) -> None:
        """
        Refuse to send this login to a host that it is not for.

        :param setting: Where another address can be set.
        :raises ConfigError: when the connection names another one.
        """
        if self.host and self.host.lower().strip("[]") != host.lower():
            raise ConfigError(
                f"{self.source} is for host {self.host!r}, not for {host!r}; it was not sent there. Leave its host empty, or set "
                f"{setting} to {self.host!r}."
            )
