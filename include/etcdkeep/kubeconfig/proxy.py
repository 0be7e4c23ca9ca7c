"""The address of an HTTP or SOCKS proxy. Nothing here shows its password."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

DEFAULT_PORTS = {"http": 80, "socks5": 1080, "socks5h": 1080}


@dataclass(frozen=True)
class Proxy:
    """
    A proxy; as text, its address without user and password.

    :param scheme: One of `DEFAULT_PORTS`.
    """

    scheme: str
    host: str
    port: int
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_proxy(url: str) -> Proxy:
    """
    Read a proxy's URL: ``http://user:password@proxy.example.net:3128``.

    :raises ValueError: worded to follow the field's name; it never quotes the URL.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(_NOT_A_URL) from None
    scheme = parts.scheme.lower()
    if "://" not in url or not host or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(_NOT_A_URL)
    if scheme not in DEFAULT_PORTS:
        raise ValueError(f"has the scheme {scheme!r}, which is not supported; expected {', '.join(DEFAULT_PORTS)}")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if scheme != "http" and max(len(user.encode()), len(password.encode())) > 255:
        raise ValueError("has a user or password of more than 255 bytes, which SOCKS cannot send")
    return Proxy(scheme, host, port or DEFAULT_PORTS[scheme], user, password)


_NOT_A_URL = (
    "is not a proxy's URL; expected scheme://user:password@host:port, with special characters of user and password "
    "percent-encoded"
)
