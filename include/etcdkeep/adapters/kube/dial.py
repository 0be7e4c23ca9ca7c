"""
Connections to an API server, directly or through a proxy: the same for REST calls and for exec.

Every wait has an end, the look-up of a name included. No message shows a proxy's password.
"""

from __future__ import annotations

import socket
from base64 import b64encode
from threading import Thread, Timer
from time import monotonic
from typing import TYPE_CHECKING
from urllib.request import getproxies_environment

from requests.utils import should_bypass_proxies

from etcdkeep.errors import ConfigError
from etcdkeep.kubeconfig.proxy import Proxy, parse_proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_HEAD_BYTES = 64 * 1024
REFUSALS = {401, 403, 407}
SOCKS_REPLIES = {
    1: "general failure",
    2: "its rules do not allow it",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "time to live expired",
    7: "command not supported",
    8: "address type not supported",
}
SOCKS_NO_AUTHENTICATION, SOCKS_PASSWORD, SOCKS_NONE_ACCEPTABLE = 0, 2, 0xFF


class ProxyFailed(OSError):
    """
    The proxy did not bring us to the server.

    :param refused: It will say the same the next time.
    """

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""Seconds of quiet before the first sign of life, seconds between the next ones, and how many may go unanswered."""


def environment_proxy(host: str, url: str) -> Proxy | None:
    """
    Return the proxy of the environment (HTTPS_PROXY, NO_PROXY), which counts where a kubeconfig names none.

    :raises ConfigError: when the variable holds no usable URL.
    """
    scheme = url.partition(":")[0]
    found = getproxies_environment()
    proxy = found.get(scheme)
    if not proxy or _is_loopback(host) or should_bypass_proxies(url, no_proxy=found.get("no")):
        return None
    try:
        return parse_proxy(proxy if "://" in proxy else f"http://{proxy}")
    except ValueError as err:
        raise ConfigError(f"environment variable {scheme.upper()}_PROXY {err}.") from None


def dial(host: str, port: int, proxy: Proxy | None, timeout_s: float) -> socket.socket:
    """
    Connect to a server.

    :raises ProxyFailed: when the proxy cannot be reached, or does not connect us.
    :raises OSError: when the server cannot be reached.
    """
    ends = monotonic() + timeout_s
    if proxy is None:
        return _connect(host, port, ends)
    try:
        wire = _connect(proxy.host, proxy.port, ends)
    except OSError as err:
        raise ProxyFailed(f"proxy {proxy} cannot be reached: {err}") from err
    try:
        (_tunnel_http if proxy.scheme == "http" else _tunnel_socks)(wire, proxy, host, port, ends)
    except ProxyFailed:
        wire.close()
        raise
    except (OSError, EOFError) as err:
        wire.close()
        raise ProxyFailed(
            f"proxy {proxy} did not connect to {host}:{port}: {str(err) or 'it closed the connection'}"
        ) from err
    return wire


def keep_alive(wire: socket.socket) -> None:
    """Have the kernel send a sign of life on a quiet connection, so that no firewall forgets it, and end a dead one."""
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):  # macOS lacks one
            wire.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def cut_after(wire: socket.socket, timeout_s: float) -> Timer:
    """Return a running timer that ends every wait on a connection; cancel it when all has come."""
    timer = Timer(timeout_s, _cut, (wire,))
    timer.daemon = True
    timer.start()
    return timer


def _cut(wire: socket.socket) -> None:
    try:
        # the plain socket's own method: SSLSocket.shutdown drops the TLS state under the reader's hands
        socket.socket.shutdown(wire, socket.SHUT_RDWR)
    except OSError:
        return


def _connect(host: str, port: int, ends: float) -> socket.socket:
    addresses = _look_up(host, port, ends)
    failure = OSError(f"{host} has no address")
    for index, (family, address) in enumerate(addresses):
        wire = socket.socket(family, socket.SOCK_STREAM)
        try:
            wire.settimeout(_left_s(ends) / (len(addresses) - index))
            wire.connect(address)
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wire.settimeout(_left_s(ends))
        except OSError as err:
            wire.close()
            failure = err
        else:
            return wire
    raise failure


def _look_up(host: str, port: int, ends: float) -> list[tuple[int, tuple[object, ...]]]:
    """Return a host's addresses; the system's own look-up has no limit in time, so it runs aside."""
    answer: list[tuple[int, tuple[object, ...]]] = []
    failure: list[OSError] = []

    def ask() -> None:
        try:
            answer.extend((each[0], each[4]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as err:
            failure.append(OSError(f"name {host!r} cannot be resolved: {err}"))

    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_left_s(ends))
    if failure:
        raise failure[0]
    if asking.is_alive():
        raise TimeoutError(f"name {host!r} was not resolved in time")
    return answer


def _left_s(ends: float) -> float:
    left = ends - monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _tunnel_http(wire: socket.socket, proxy: Proxy, host: str, port: int, ends: float) -> None:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    head = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", "User-Agent: etcdkeep", "Proxy-Connection: Keep-Alive"]
    if proxy.user or proxy.password:
        head.append(f"Proxy-Authorization: Basic {b64encode(f'{proxy.user}:{proxy.password}'.encode()).decode()}")
    wire.settimeout(_left_s(ends))
    wire.sendall("\r\n".join((*head, "", "")).encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        wire.settimeout(_left_s(ends))
        more = wire.recv(4096)
        if not more or len(answer) > MAX_HEAD_BYTES:
            raise EOFError("its answer ended too early" if answer else "")
        answer += more
    code = _http_code(answer)
    if code is None:
        raise ProxyFailed(f"proxy {proxy} does not answer as an HTTP proxy; check proxy-url")
    if not 200 <= code < 300:
        raise ProxyFailed(f"proxy {proxy} refuses a tunnel to {target}: {_http_reason(code)}", refused=code in REFUSALS)


def _http_code(answer: bytes) -> int | None:
    version, _, rest = answer.partition(b"\r\n")[0].partition(b" ")
    code = rest[:3]
    return int(code) if version.startswith(b"HTTP/") and code.isdigit() and len(code) == 3 else None


def _http_reason(code: int) -> str:
    """Say what an HTTP status means; the proxy's own words may repeat what it was sent."""
    if code == 407:
        return "HTTP 407: it does not accept the user and password; correct them in proxy-url"
    return f"HTTP {code}" + ("; allow it there" if code in REFUSALS else "")


def _tunnel_socks(wire: socket.socket, proxy: Proxy, host: str, port: int, ends: float) -> None:
    """Speak SOCKS 5 (RFC 1928 and 1929); names are resolved by the proxy, as client-go does."""
    receive = _receiver(wire, ends)
    methods = [SOCKS_NO_AUTHENTICATION, *([SOCKS_PASSWORD] if proxy.user or proxy.password else [])]
    wire.sendall(bytes((5, len(methods), *methods)))
    version, method = receive(2)
    if version != 5:
        raise ProxyFailed(f"proxy {proxy} does not speak SOCKS 5; check proxy-url")
    if method == SOCKS_NONE_ACCEPTABLE or method not in methods:
        raise ProxyFailed(f"proxy {proxy} wants a user and password; add them to proxy-url", refused=True)
    if method == SOCKS_PASSWORD:
        user, password = proxy.user.encode(), proxy.password.encode()
        wire.sendall(bytes((1, len(user))) + user + bytes((len(password),)) + password)
        if receive(2)[1] != 0:
            raise ProxyFailed(
                f"proxy {proxy} does not accept the user and password; correct them in proxy-url", refused=True
            )
    wire.sendall(bytes((5, 1, 0)) + _socks_address(host) + port.to_bytes(2, "big"))
    _, reply, _, kind = receive(4)
    receive({1: 4, 4: 16}.get(kind) or receive(1)[0])
    receive(2)
    if reply:
        said = SOCKS_REPLIES.get(reply, f"reply {reply}")
        raise ProxyFailed(f"proxy {proxy} refuses a connection to {host}:{port}: {said}", refused=reply == 2)


def _socks_address(host: str) -> bytes:
    for kind, family in ((1, socket.AF_INET), (4, socket.AF_INET6)):
        try:
            return bytes((kind,)) + socket.inet_pton(family, host)
        except OSError:
            continue
    name = host.encode("idna") if not host.isascii() else host.encode()
    if len(name) > 255:
        raise ProxyFailed(f"name {host!r} is too long for a SOCKS proxy", refused=True)
    return bytes((3, len(name))) + name


def _receiver(wire: socket.socket, ends: float) -> Callable[[int], Sequence[int]]:
    def receive(size: int) -> bytes:
        data = b""
        while len(data) < size:
            wire.settimeout(_left_s(ends))
            more = wire.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    return receive


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host.startswith("127.") or host == "::1"
