"""
Reads an Airflow connection of type `ssh`.

The provider's SSHHook reads the same fields, and is not let near a node: it takes ``~/.ssh/config``, every ``known_hosts``
of the user and the agent into account, offers weak ciphers, and checks a jump host no further than its own user does. So
the fields are read here, and opened by our own dialler, which checks host keys at every hop.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from typing import TYPE_CHECKING

from etcdkeep.config.host_keys import parse_host_key
from etcdkeep.config.ssh_login import ALGORITHM_KINDS, KEEPALIVE_S, SshLogin, SshOptions
from etcdkeep.control_plane.pem import PemError, normalise_private_key
from etcdkeep.errors import ConfigError, SecretUnavailable
from etcdkeep.site.credentials import read_secret_file
from etcdkeep_airflow.connection_fields import Fields, file_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow.sdk import Connection

HONOURED = (
    "private_key",
    "key_file",
    "private_key_passphrase",
    "host_key",
    "conn_timeout",
    "keepalive_interval",
    "ciphers",
    "disabled_algorithms",
    "compress",
)
CHECKED = "Host keys are always checked: give host_key, or host_keys in the cluster's entry, and remove it."
REFUSED = {
    "no_host_key_check": CHECKED,
    "ignore_hostkey_verification": CHECKED,
    "allow_host_key_change": CHECKED,
    "look_for_keys": "Nothing is read from ~/.ssh: give private_key or key_file, and remove it.",
    "cmd_timeout": "Each kind of work has its own limit: set limits.command_s and limits.stall_s in the cluster's entry, and remove it.",
    "known_hosts": "Put its lines into host_key, or into host_keys in the cluster's entry, and remove it.",
    "passphrase": "Call it private_key_passphrase.",
    "host_proxy_cmd": "Set ssh.jump in the cluster's entry, and remove it.",
}
HOST_KEY_CURE = "Give lines such as `python -m etcdkeep trust` prints: '[hosts ]algorithm base64', without @cert-authority or @revoked."
HARMLESS = {
    "no_host_key_check": False,
    "ignore_hostkey_verification": False,
    "allow_host_key_change": False,
    "look_for_keys": False,
}


def read_ssh_connection(connection: Connection) -> SshLogin:
    """
    Read a connection.

    :raises ConfigError: naming the connection, the field and what to do.
    :raises SecretUnavailable: when its key file cannot be read here.
    """
    fields = Fields(connection, "ssh", HONOURED, REFUSED, columns=("host", "login", "password", "port"))
    fields.refuse(harmless=HARMLESS)
    key = _key(fields.name, fields.text)
    password = (connection.password or "").strip()
    if not connection.login:
        raise fields.wrong("login", "is missing", "Set it: the user's name on the host.")
    if not key and not password:
        raise ConfigError(f"{fields.name} holds no key and no password. Give private_key, key_file or a password.")
    return SshLogin(
        source=fields.name,
        user=connection.login,
        host=connection.host or "",
        port=connection.port or 22,
        key=key,
        password=password,
        host_keys=_host_keys(fields),
        options=_options(fields),
    )


def read_ssh_key(connection: Connection) -> bytes:
    """
    Return the private key alone, of a connection of any type; its password is none. Without a passphrase it is as it stands there.

    :raises ConfigError: when its passphrase does not open it.
    :raises SecretUnavailable: when it holds none, or its key file cannot be read here.
    """
    name = f"Airflow connection {connection.conn_id!r}"
    key = _key(name, connection.extra_dejson.get, as_it_is=True)
    if key:
        return key
    also = " Its password is not one: a password logs in by ssh.connection." if connection.password else ""
    raise SecretUnavailable(f"{name} holds no key: expected extra `private_key` or `key_file`.{also}")


def _key(name: str, value: Callable[[str], str | None], *, as_it_is: bool = False) -> bytes:
    """
    Return the key as OpenSSH reads it, without passphrase; empty when there is none.

    :param value: Field of the extra → what it holds.
    :param as_it_is: Whether a key that needs no passphrase is returned unread.
    """
    text, file, passphrase = (value(each) for each in ("private_key", "key_file", "private_key_passphrase"))
    if text and file:
        raise ConfigError(f"{name} gives private_key and key_file. Remove one of them.")
    as_it_is = as_it_is and not passphrase
    if text and as_it_is:
        return text.encode()
    if text:
        return _normalised(f"{name}: its private_key", text.encode(), passphrase)
    if not file:
        if passphrase:
            raise ConfigError(f"{name} gives private_key_passphrase, and no key. Give private_key or key_file.")
        return b""
    file = file_path(name, "key_file", file)
    try:
        raw = read_secret_file(file)
    except SecretUnavailable as err:
        raise SecretUnavailable(f"{name}: its key_file: {err}") from err
    return raw if as_it_is else _normalised(f"{name}: its key_file {file}", raw, passphrase)


def _normalised(what: str, raw: bytes, passphrase: str | None) -> bytes:
    try:
        return normalise_private_key(raw, (passphrase or "").encode())
    except PemError as err:
        raise ConfigError(f"{what} {err}.") from None


def _host_keys(fields: Fields) -> tuple[str, ...]:
    """Return the lines of the field; one without the algorithm's name is taken too, as the provider takes RSA's."""
    lines = [line.strip() for line in (fields.text("host_key") or "").splitlines() if line.strip()]
    found = tuple(line if len(line.split()) > 1 else _named(line) for line in lines)
    for number, line in enumerate(found, 1):
        try:
            parse_host_key(line)
        except ConfigError:  # it quotes the line, which may be a private key that belongs one field further
            raise fields.wrong("host_key", f"is not usable: line {number} is not a host key", HOST_KEY_CURE) from None
    return found


def _named(line: str) -> str:
    """Return a bare key with its algorithm's name, which is its own first field (RFC 4253 §6.6)."""
    try:
        blob = b64decode(line, validate=True)
    except (Base64Error, ValueError):
        return line
    return f"{blob[4 : 4 + int.from_bytes(blob[:4], 'big')].decode(errors='replace')} {line}"


def _options(fields: Fields) -> SshOptions:
    keepalive_s = fields.number("keepalive_interval", least=0, whole=True)
    connect_s = fields.number("conn_timeout", least=0)
    if connect_s == 0:
        raise fields.wrong("conn_timeout", "is 0: nothing can be reached in no time", "Remove it, or give seconds.")
    return SshOptions(
        source=fields.name,
        connect_s=connect_s,
        keepalive_s=KEEPALIVE_S if keepalive_s is None else int(keepalive_s),
        ciphers=fields.texts("ciphers"),
        disabled=_disabled(fields),
        compress=fields.flag("compress"),
    )


def _disabled(fields: Fields) -> Mapping[str, tuple[str, ...]]:
    value = fields.decoded("disabled_algorithms") or {}
    if not isinstance(value, dict):
        raise fields.wrong("disabled_algorithms", f"is not usable: expected an object of {', '.join(ALGORITHM_KINDS)}")
    for kind, names in value.items():
        if kind not in ALGORITHM_KINDS:
            raise fields.wrong(
                "disabled_algorithms", f"has the unknown kind {kind!r}; known are {', '.join(ALGORITHM_KINDS)}"
            )
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise fields.wrong("disabled_algorithms", f"is not usable: expected a list of names as {kind}")
    return {kind: tuple(names) for kind, names in value.items()}
