"""
SSH connections to nodes: the way there, the host's key, our key.

Nothing is read from ``~/.ssh`` or an agent, and no setting turns the host-key check off.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from io import StringIO
from types import MappingProxyType
from typing import Any, cast

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from etcdkeep.config.host_keys import ALGORITHMS, HostKey, keys_for
from etcdkeep.config.ssh_algorithms import CIPHERS, MACS, WEAK_CIPHERS, WEAK_MACS, nothing_in_common, offered
from etcdkeep.config.ssh_login import NO_OPTIONS, SshOptions
from etcdkeep.control_plane.pem import PemError, normalise_private_key
from etcdkeep.errors import AccessDenied, EtcdkeepError, HostKeyUnknown, ServerUntrusted, Unreachable

DEAD_PEER_S = 60
PROHIBITED = 1
"""RFC 4254 §5.1: administratively prohibited."""

SIGNATURES = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
"""How a key type is named when algorithms are negotiated, where that differs."""

INCOMPATIBLE = (
    ("cipher", "cipher", ("client_encrypt_algo_list", "server_encrypt_algo_list")),
    ("mac", "MAC", ("client_mac_algo_list", "server_mac_algo_list")),
    ("kex", "key exchange", ("kex_algo_list",)),
)
"""Word in paramiko's message, what it is about, and where the server's offers stand."""

PARAMIKO_LOG = "etcdkeep.paramiko"
logging.getLogger(PARAMIKO_LOG).setLevel(logging.CRITICAL)  # it logs a traceback for what our errors say in a sentence

Dial = Callable[[], "socket.socket | _Forwarded"]


@dataclass(frozen=True)
class NodeTarget:
    """
    A host that we log in to.

    :param host_keys: Lines ``[host ]algorithm base64``; lines with a host in front count for that host only.
    :param weak_algorithms: Old ciphers and MACs that may be used with it.
    :param setting: Section of the configuration that it is from, for messages.
    :param password: For a server that asks for one, beside the key or in its place; sent after the host key was checked.
    """

    host: str
    port: int
    user: str
    host_keys: tuple[str, ...]
    weak_algorithms: tuple[str, ...] = ()
    setting: str = "ssh"
    password: str = field(default="", repr=False)
    options: SshOptions = NO_OPTIONS

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.user}@{self.host}" + ("" if self.port == 22 else f":{self.port}")

    def connect_s(self, usual_s: float) -> float:
        """Return how long each step of connecting may take, in seconds."""
        return self.options.connect_s or usual_s


Jump = tuple[NodeTarget, bytes]


@contextmanager
def connected(
    target: NodeTarget, private_key: bytes, jump: Jump | None, connect_s: float
) -> Iterator[paramiko.Transport]:
    """
    Log in to `target`, through the jump host when there is one.

    :param private_key: Without passphrase; empty for a login by password alone.
    :raises HostKeyUnknown: when no key is configured for a hop.
    :raises ServerUntrusted: when a hop shows none of its configured keys.
    :raises AccessDenied: when a key is unusable or refused, or the jump host forbids forwarding.
    :raises Unreachable: when a hop does not answer.
    """
    with ExitStack() as stack:
        dial = stack.enter_context(reach(target, jump, connect_s))
        yield stack.enter_context(_logged_in(target, private_key, dial, connect_s))


@contextmanager
def reach(target: NodeTarget, jump: Jump | None, connect_s: float) -> Iterator[Dial]:
    """Give a function that opens one more connection to `target`, directly or from the jump host."""
    if jump is None:
        yield lambda: _tcp(target, connect_s)
        return
    hop, key = jump
    with _logged_in(hop, key, lambda: _tcp(hop, connect_s), connect_s) as transport:
        yield lambda: _forwarded(transport, hop, target, connect_s)


def offered_key(target: NodeTarget, dial: Dial, connect_s: float, algorithm: str | None = None) -> HostKey | None:
    """
    Return a host key the server shows, of one algorithm or of its choice; None when it has none of that algorithm.

    The server has proved that it holds the key, but not that it is the right server.
    """
    disabled = set(target.options.disabled.get("keys", ()))
    if algorithm and disabled.issuperset(SIGNATURES.get(algorithm, (algorithm,))):
        return None
    try:
        with _negotiated(target, dial, connect_s, (algorithm,) if algorithm else ALGORITHMS) as transport:
            return _shown_key(transport)
    except paramiko.ssh_exception.IncompatiblePeer:
        return None


@contextmanager
def _logged_in(target: NodeTarget, private_key: bytes, dial: Dial, connect_s: float) -> Iterator[paramiko.Transport]:
    key = load_private_key(private_key, target.name) if private_key or not target.password else None
    with ExitStack() as stack:
        try:
            transport = stack.enter_context(_session(target, key, dial, connect_s))
        except _KeyRefused:
            if not target.password:
                raise
            # anew, since some servers end a connection on which paramiko begins a login for the second time
            transport = stack.enter_context(_session(target, None, dial, connect_s))
        yield transport


@contextmanager
def _session(
    target: NodeTarget, key: paramiko.PKey | None, dial: Dial, connect_s: float
) -> Iterator[paramiko.Transport]:
    """Yield a transport that is logged in by the key, or without one by the password."""
    trusted = keys_for(target.host_keys, target.host, target.port)
    if not trusted:
        raise _unknown(target, offered_key(target, dial, connect_s))
    try:
        with _negotiated(target, dial, connect_s, tuple({known.algorithm: None for known in trusted})) as transport:
            shown = _shown_key(transport)
            if shown.blob not in {known.blob for known in trusted}:
                raise _changed(target, shown, trusted)
            _authenticate(transport, target, key)
            transport.set_keepalive(target.options.keepalive_s)
            yield transport
    except paramiko.ssh_exception.IncompatiblePeer as err:
        raise _changed(target, offered_key(target, dial, connect_s), trusted) from err


@contextmanager
def _negotiated(
    target: NodeTarget, dial: Dial, connect_s: float, algorithms: tuple[str, ...]
) -> Iterator[paramiko.Transport]:
    """Yield a transport that has exchanged keys but not logged in."""
    connect_s = target.connect_s(connect_s)
    transport = _Transport(cast("socket.socket", dial()), disabled_algorithms=dict(target.options.disabled))
    transport.set_log_channel(PARAMIKO_LOG)
    try:
        _choose_algorithms(transport.get_security_options(), target, algorithms)
        transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = connect_s
        try:
            transport.start_client(timeout=connect_s)
        except paramiko.ssh_exception.IncompatiblePeer as err:
            if "host key" in str(err):
                raise
            raise AccessDenied(f"SSH to {target.name}: {transport.why_incompatible(str(err), target)}") from err
        except (paramiko.SSHException, EOFError, OSError) as err:
            raise Unreachable(
                f"SSH to {target.name}: no SSH session: {_reason(err)}. Is an SSH server on that port?"
            ) from err
        if not transport.initial_kex_done:  # paramiko returns at its time limit as if all were well
            raise Unreachable(
                f"SSH to {target.name}: no SSH session within {connect_s:g} s. Is an SSH server on that port?"
            )
        yield transport
    finally:
        transport.close()


def _choose_algorithms(
    options: paramiko.transport.SecurityOptions, target: NodeTarget, host_keys: tuple[str, ...]
) -> None:
    """Offer what is safe, less what the site does not want, and nothing else."""
    chosen, weak = target.options, target.weak_algorithms
    names = tuple(name for algorithm in host_keys for name in SIGNATURES.get(algorithm, (algorithm,)))
    ciphers = chosen.chosen_ciphers(offered(CIPHERS, WEAK_CIPHERS, weak, options.ciphers), target.setting)
    options.key_types = chosen.without_disabled("keys", names)
    options.ciphers = chosen.without_disabled("ciphers", ciphers)
    options.digests = chosen.without_disabled("macs", offered(MACS, WEAK_MACS, weak, options.digests))
    options.kex = chosen.without_disabled("kex", [name for name in options.kex if not name.endswith("sha1")])
    if chosen.compress:
        options.compression = chosen.without_disabled("compression", ("zlib@openssh.com", "none"))


class _KeyRefused(AccessDenied):
    """The server does not take our key; a password may be another matter."""


def _authenticate(transport: paramiko.Transport, target: NodeTarget, key: paramiko.PKey | None) -> None:
    """Log in by the key, and by the password where there is no key or the server wants both."""
    further: list[str] = []
    try:
        if key is not None:
            further = _by_key(transport, target, key)
        if target.password and (key is None or further):
            further = _by_password(transport, target)
    except (paramiko.SSHException, EOFError, OSError) as err:
        raise Unreachable(f"SSH to {target.name}: the connection broke during the login: {_reason(err)}.") from err
    if further:
        given = " and ".join(name for name, has in (("key", key), ("password", target.password)) if has)
        raise AccessDenied(
            f"SSH to {target.name}: the server requires more than the {given} ({', '.join(further)}); allow the login by {given} alone."
        )


def _by_key(transport: paramiko.Transport, target: NodeTarget, key: paramiko.PKey) -> list[str]:
    try:
        return list(transport.auth_publickey(target.user, key))
    except paramiko.AuthenticationException as err:
        raise _KeyRefused(
            f"SSH to {target.name}: the server refused the key {key.fingerprint} ({key.get_name()}): {_reason(err)}. "
            "Check the user's name and that its authorized_keys holds this key."
        ) from err


def _by_password(transport: paramiko.Transport, target: NodeTarget) -> list[str]:
    try:
        return list(transport.auth_password(target.user, target.password))
    except paramiko.AuthenticationException as err:
        allowed = getattr(err, "allowed_types", None)
        takes = f"; it takes {', '.join(allowed)}" if allowed else ""
        raise AccessDenied(
            f"SSH to {target.name}: the server refused the password{takes}. Check the user's name and the password in "
            f"{target.options.source}, and PasswordAuthentication in its sshd_config."
        ) from err


def _tcp(target: NodeTarget, connect_s: float) -> socket.socket:
    try:
        connection = socket.create_connection((target.host, target.port), timeout=target.connect_s(connect_s))
    except OSError as err:
        raise Unreachable(
            f"SSH to {target.name}: no connection: {_reason(err)}. Is the host up, and reachable from here?"
        ) from err
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # with the keepalives, this ends half-open connections; Linux only
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_S * 1000)
    return connection


class _Transport(paramiko.Transport):
    """Keeps what the server offers, which paramiko only logs when there is nothing in common."""

    _offers: Mapping[str, list[str]] = MappingProxyType({})

    def _really_parse_kex_init(self, *args: Any, **fields: Any) -> Any:
        parsed = super()._really_parse_kex_init(*args, **fields)  # type: ignore[misc]
        self._offers = {name: list(value) for name, value in parsed.items() if isinstance(value, list)}
        return parsed

    def why_incompatible(self, said: str, target: NodeTarget) -> str:
        """Return the sentence for a failed negotiation, to follow the server's name."""
        for word, kind, lists in INCOMPATIBLE:
            if word in said:
                theirs = dict.fromkeys(name for each in lists for name in self._offers.get(each, ()))
                return nothing_in_common(kind, tuple(name for name in theirs if name), target.setting)
        return f"no algorithms in common: {said}. Update its SSH server."


class _Forwarded:
    """A channel of the jump host's connection, which may be gone by the time the channel is closed."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def close(self) -> None:
        with suppress(EOFError, OSError, paramiko.SSHException):
            self._channel.close()


def _forwarded(transport: paramiko.Transport, hop: NodeTarget, target: NodeTarget, connect_s: float) -> _Forwarded:
    way = f"SSH to {target.name} through the jump host {hop.name}"
    try:
        where, limit_s = (target.host, target.port), target.connect_s(connect_s)
        return _Forwarded(transport.open_channel("direct-tcpip", where, ("127.0.0.1", 0), timeout=limit_s))
    except paramiko.ChannelException as err:
        if err.code == PROHIBITED:
            raise AccessDenied(
                f"{way}: the jump host forbids forwarding to {target.host}:{target.port}; "
                "set AllowTcpForwarding (and PermitOpen) in its sshd_config."
            ) from err
        raise Unreachable(f"{way}: the jump host cannot reach {target.host}:{target.port}: {err.text}.") from err
    except (paramiko.SSHException, EOFError, OSError) as err:
        raise Unreachable(
            f"{way}: the jump host does not connect to {target.host}:{target.port}: {_reason(err)}."
        ) from err


def _shown_key(transport: paramiko.Transport) -> HostKey:
    key = transport.get_remote_server_key()
    return HostKey(key.get_name(), key.asbytes())


def _unknown(target: NodeTarget, shown: HostKey | None) -> EtcdkeepError:
    if shown is None:
        return _no_key(target)
    line = shown.line(target.host, target.port)
    return HostKeyUnknown(
        f"SSH to {target.name}: its host key is not in the configuration. The host shows {shown.algorithm} {shown.fingerprint}. "
        f"Compare that on the host itself (ssh-keygen -lf /etc/ssh/ssh_host_…_key.pub), then add this line to its host_keys:\n{line}",
        line=line,
        fingerprint=shown.fingerprint,
    )


def _changed(target: NodeTarget, shown: HostKey | None, trusted: tuple[HostKey, ...]) -> EtcdkeepError:
    if shown is None:
        return _no_key(target)
    expected = ", ".join(f"{known.algorithm} {known.fingerprint}" for known in trusted)
    return ServerUntrusted(
        f"SSH to {target.name}: the host shows the host key {shown.algorithm} {shown.fingerprint}, the configuration expects {expected}. "
        "Either the host was reinstalled or somebody is in between; nothing was sent to it. "
        f"Check on the host itself. If the new key is right, replace its line in host_keys:\n{shown.line(target.host, target.port)}"
    )


def _no_key(target: NodeTarget) -> EtcdkeepError:
    return AccessDenied(
        f"SSH to {target.name}: the server has no host key of a usable type ({', '.join(ALGORITHMS)}).\n"
        "Give it one: ssh-keygen -A on the host, and HostKeyAlgorithms in its sshd_config."
    )


def load_private_key(text: bytes, user: str) -> paramiko.PKey:
    """
    Return an SSH key from PEM (PKCS#1, PKCS#8, SEC 1) or OpenSSH format, without passphrase, however it is wrapped.

    :raises AccessDenied: when it cannot be used; the message holds nothing of the key.
    """
    try:
        text = normalise_private_key(text)
    except PemError as err:
        raise AccessDenied(f"the SSH key for {user} {err}.") from None
    load = serialization.load_ssh_private_key if b"OPENSSH PRIVATE KEY" in text else serialization.load_pem_private_key
    key = load(text, password=None)
    kind: type[paramiko.PKey]
    match key:
        case RSAPrivateKey():
            kind = paramiko.RSAKey
        case EllipticCurvePrivateKey():
            kind = paramiko.ECDSAKey
        case Ed25519PrivateKey():
            kind = paramiko.Ed25519Key
        case _:
            raise AccessDenied(
                f"the SSH key for {user} is of type {type(key).__name__.lstrip('_')}; expected RSA, ECDSA or Ed25519."
            )
    try:
        plain = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        return kind.from_private_key(StringIO(plain.decode()))
    except (paramiko.SSHException, ValueError, UnsupportedAlgorithm):
        raise AccessDenied(
            f"the SSH key for {user} is of a kind that SSH does not use ({type(key).__name__})."
        ) from None


def _reason(err: BaseException) -> str:
    return (str(err) or type(err).__name__).rstrip(".")
