"""
The way to one API server: address, proxy, TLS and credentials, the same for REST calls and for exec.

The Kubernetes client library is not used: it writes embedded keys into temporary files, goes on without credentials when
a plugin fails, ignores impersonation, and sends no password to a proxy.
"""

from __future__ import annotations

import os
import ssl
from base64 import b64encode
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPException
from threading import Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any

import certifi
import urllib3

from etcdkeep.adapters.kube.dial import cut_after, dial, keep_alive
from etcdkeep.control_plane.pem import BLOCK, read_certificates
from etcdkeep.kubeconfig.exec_credential import Credential, hide_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from socket import socket

    from etcdkeep.kubeconfig.reading import KubeAccess

USER_AGENT = "etcdkeep"
CONNECT_S = 10.0
READ_S = 60.0
CALL_S = 120.0
"""For one whole answer, however slowly it comes."""

RETRIES = urllib3.Retry(1, redirect=False, status=False, backoff_factor=0.5, respect_retry_after_header=False)


class KubeConnection:
    """
    Connects to one API server as one user.

    :param authority: Certificates (PEM) that the server's is checked against; None for those of the system.
    :param credential: Gives the credentials of now; it may run a plugin or read a file.
    :param renew: Makes the next credentials new ones; returns whether there can be others.
    :param keepalive: Whether the kernel keeps quiet connections open and notices dead ones.
    """

    def __init__(
        self,
        access: KubeAccess,
        authority: bytes | None,
        credential: Callable[[], Credential],
        renew: Callable[[], bool] = lambda: False,
        *,
        keepalive: bool = True,
    ) -> None:
        self.access = access
        self._keepalive = keepalive
        self._authority = authority
        self._credential = credential
        self._renew = renew
        self._lock = Lock()
        self._ready: _Ready | None = None

    @property
    def host(self) -> str:
        """The server's URL."""
        return self.access.server

    @property
    def where(self) -> str:
        """The server, and the proxy on the way to it, for messages."""
        return f"{self.host} through proxy {self.access.proxy}" if self.access.proxy else self.host

    @property
    def client_certificate(self) -> bytes | None:
        """The certificate (PEM) that was shown last."""
        return self._ready.credential.certificate if self._ready else None

    def headers(self) -> list[tuple[str, str]]:
        """
        Return what says who asks, a name as often as it has values.

        :raises EtcdkeepError: when there are no credentials now.
        """
        authorization = self._now().credential.authorization
        given = [("Authorization", authorization)] if authorization else []
        return [("User-Agent", USER_AGENT), *given, *self.access.impersonate]

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        timeout_s: float = READ_S,
        retries: urllib3.Retry | bool = RETRIES,
    ) -> urllib3.BaseHTTPResponse:
        """
        Send one request, and return its answer whatever its status.

        :param target: Path and query, without what the server's URL has before them.
        """
        answer = self._request(method, target, headers, body, timeout_s, retries)
        if answer.status == 401 and self.renew():
            answer = self._request(method, target, headers, body, timeout_s, retries)
        return answer

    def renew(self) -> bool:
        """Forget credentials that were not accepted; return whether asking again makes sense."""
        return self._renew()

    def open_socket(self, timeout_s: float) -> socket:
        """Return a connection to the server with TLS done; `timeout_s` is for each of the two."""
        return self._dial(self._now().tls, timeout_s)

    def hide(self, text: str) -> str:
        """Return a text of the server or of a library without our secrets."""
        access = self.access
        secrets = {access.token, access.password, *((access.proxy.password,) if access.proxy else ())}
        if self._ready:
            secrets |= {self._ready.credential.authorization.partition(" ")[2]}
        return hide_secrets(text, secrets)

    def _request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
        retries: urllib3.Retry | bool,
    ) -> urllib3.BaseHTTPResponse:
        sent = urllib3.HTTPHeaderDict()
        for name, value in (*self.headers(), *headers.items()):
            sent.add(name, value.encode().decode("latin-1"))  # the bytes of UTF-8, as client-go sends them
        return self._now().pool.urlopen(
            method,
            f"{self.access.path}{target}",
            body=body,
            headers=sent,
            timeout=urllib3.Timeout(connect=min(CONNECT_S, timeout_s), read=timeout_s),
            retries=retries,
        )

    def _now(self) -> _Ready:
        """Return credentials that are good now, with the TLS settings and connections that belong to them."""
        with self._lock:
            credential = self._credential()
            held = self._ready
            if held is None or (held.credential.certificate, held.credential.key) != (
                credential.certificate,
                credential.key,
            ):
                self._ready = _Ready(credential, *self._prepare(credential))
            elif held.credential != credential:
                self._ready = _Ready(credential, held.tls, held.pool)
            return self._ready  # type: ignore[return-value]

    def _prepare(self, credential: Credential) -> tuple[ssl.SSLContext | None, urllib3.HTTPConnectionPool]:
        tls = (
            tls_context(self._authority, credential.certificate, credential.key, skip_verify=self.access.skip_verify)
            if self.access.encrypted
            else None
        )
        pool = _Pool(self.access.host, self.access.port)
        pool.opener = lambda timeout_s: self._dial(tls, timeout_s)
        return tls, pool

    def _dial(self, tls: ssl.SSLContext | None, timeout_s: float) -> socket:
        wire = dial(self.access.host, self.access.port, self.access.proxy, timeout_s)
        if self._keepalive:
            keep_alive(wire)
        if tls is None:
            return wire
        wire.settimeout(timeout_s)
        try:
            return tls.wrap_socket(wire, server_hostname=self.access.tls_server_name or self.access.host)
        except (OSError, ValueError):
            wire.close()
            raise


@dataclass(frozen=True)
class _Ready:
    credential: Credential = field(repr=False)
    tls: ssl.SSLContext | None
    pool: urllib3.HTTPConnectionPool


class _Connection(urllib3.connection.HTTPConnection):
    """An HTTP connection over a socket of ours, whose answers come within `CALL_S`."""

    opener: Callable[[float], socket]

    def connect(self) -> None:
        timeout_s = self.timeout if isinstance(self.timeout, int | float) else CONNECT_S
        try:
            self.sock = self.opener(timeout_s)
        except ssl.SSLError:
            raise
        except TimeoutError as err:
            raise urllib3.exceptions.ConnectTimeoutError(self, f"no connection within {timeout_s:g} s") from err
        except OSError as err:
            raise urllib3.exceptions.NewConnectionError(self, str(err)) from err

    def getresponse(self) -> Any:
        ends = monotonic() + CALL_S
        timer = cut_after(self.sock, CALL_S)
        try:
            answer = super().getresponse()
        except urllib3.exceptions.TimeoutError:
            raise
        except (HTTPException, urllib3.exceptions.HTTPError) as err:
            if isinstance(err, ConnectionError):
                raise
            # their text quotes the answer, and urllib3 logs it; a server may repeat what it was sent
            raise ConnectionError(f"the answer is incomplete or is not HTTP ({type(err).__name__})") from None
        finally:
            timer.cancel()
        if monotonic() >= ends:
            raise TimeoutError(f"the whole answer did not arrive within {CALL_S:g} s")
        return answer


class _Pool(urllib3.HTTPConnectionPool):
    """Connections of one server, opened in one way."""

    opener: Callable[[float], socket]

    def _new_conn(self) -> _Connection:
        connection = _Connection(self.host, self.port, timeout=self.timeout.connect_timeout, **self.conn_kw)
        connection.opener = self.opener
        return connection


def tls_context(
    authority: bytes | None, certificate: bytes | None, key: bytes | None, *, skip_verify: bool = False
) -> ssl.SSLContext:
    """
    Return the TLS settings for a server and a client's certificate, all in PEM.

    :raises ValueError: when `authority` holds no certificate, or the key is behind a password.
    :raises ssl.SSLError: when a certificate or key is none, or they do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif authority is not None:
        context.load_verify_locations(cadata=certificates_only(authority))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # like Go, which takes an intermediate for an anchor
    else:
        context.load_default_certs()
        context.load_verify_locations(certifi.where())
    if certificate is not None and key is not None:
        with _readable(certificate) as chain, _readable(key) as private:
            context.load_cert_chain(chain, private, password=_no_password)
    return context


def certificates_only(data: bytes) -> str:
    """
    Return the certificates of a PEM file without the comments between them, which OpenSSL would take for ASCII.

    :raises ValueError: when there is none.
    """
    blocks = [block[0].decode("ascii", "replace") for block in BLOCK.finditer(data) if block[1] == b"CERTIFICATE"]
    if not blocks:
        raise ValueError("it holds no PEM certificate")
    return "\n".join((*blocks, ""))


def certificate_expiry(pem: bytes) -> datetime:
    """
    Return when the first certificate of a PEM file ends.

    :raises PemError: when there is none.
    """
    return read_certificates(pem)[0].not_valid_after_utc


def basic_authorization(username: str, password: str) -> str:
    """Return the header's value for a user and password."""
    return f"Basic {b64encode(f'{username}:{password}'.encode()).decode()}"


def now() -> datetime:
    """Return the time that a credential's expiry is compared with."""
    return datetime.now(tz=UTC)


@contextmanager
def _readable(data: bytes) -> Iterator[str]:
    """Give a path from which `data` can be read, without a file on disk: OpenSSL takes only paths."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("etcdkeep")
        try:
            os.write(descriptor, data)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    reader, writer = os.pipe()
    thread = Thread(target=_write_all, args=(writer, data), daemon=True)
    thread.start()
    try:
        yield f"/dev/fd/{reader}"
    finally:
        os.close(reader)
        thread.join()


def _write_all(descriptor: int, data: bytes) -> None:
    with suppress(BrokenPipeError), open(descriptor, "wb") as pipe:
        pipe.write(data)


def _no_password() -> str:
    """Stand in for OpenSSL's own prompt on the terminal, on which a task would wait for ever."""
    raise ValueError("its client key is encrypted; an unencrypted key is needed")
