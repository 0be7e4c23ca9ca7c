"""
From a kubeconfig to an API client, with the client's private key in memory only.

The client library writes keys that stand inside a kubeconfig into temporary files, which outlive a killed worker, and
keeps one process-wide default cluster. Neither happens here.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import certifi
import yaml
from cryptography import x509
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import ConfigException
from kubernetes.config.kube_config import KubeConfigLoader

from etcdkeep.errors import ConfigError

if TYPE_CHECKING:
    from datetime import datetime


class ClusterConfiguration(Configuration):  # type: ignore[misc]  # the client library is untyped
    """
    The client library's configuration, with the TLS side ready-made.

    :param tls: What both REST calls and exec connect with.
    :param client_certificate: The client's public certificate (PEM), to tell when it expires.
    """

    tls: ssl.SSLContext | None = None
    client_certificate: bytes | None = None


def open_kubeconfig(source: bytes | Path | Mapping[str, Any], context: str | None = None) -> ApiClient:
    """
    Return a client for one context of a kubeconfig: its text, its path or its parsed content.

    Relative paths inside are relative to the kubeconfig's own directory, or to the working directory where it has none.

    :raises ConfigError: when it is no usable kubeconfig.
    """
    base = source.parent if isinstance(source, Path) else Path()
    try:
        content = _parse(source)
        cluster, user = _select(content, context)
        inline = _take_inline(cluster, user)
        configuration = ClusterConfiguration()
        loader = KubeConfigLoader(content, active_context=context, config_base_path=str(base))
        loader.load_and_set(configuration)
        if proxy := cluster.get("proxy-url"):
            configuration.proxy = proxy
        configuration.client_certificate = inline.get("client-certificate") or _read(configuration.cert_file)
        configuration.tls = tls_context(
            configuration,
            authority=inline.get("certificate-authority"),
            certificate=inline.get("client-certificate"),
            key=inline.get("client-key"),
        )
    except (
        ConfigException,
        yaml.YAMLError,
        OSError,
        ssl.SSLError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
    ) as err:
        raise ConfigError(
            f"kubeconfig {_name(source)} cannot be used: {_safe_reason(err)}. Try it with kubectl."
        ) from None
    client = ApiClient(configuration)
    client.user_agent = "etcdkeep"
    client.rest_client.pool_manager.connection_pool_kw["ssl_context"] = configuration.tls
    return client


def tls_context(
    configuration: Configuration,
    *,
    authority: bytes | None = None,
    certificate: bytes | None = None,
    key: bytes | None = None,
) -> ssl.SSLContext:
    """
    Return the TLS settings of a configuration, with `authority`, `certificate` and `key` (PEM) before its files.

    :raises OSError: when a file cannot be read.
    :raises ssl.SSLError: when a certificate or key is none, or they do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif authority:
        context.load_verify_locations(cadata=authority.decode())
    else:
        context.load_verify_locations(configuration.ssl_ca_cert or certifi.where())
    if configuration.assert_hostname is False:
        context.check_hostname = False
    if certificate or configuration.cert_file:
        with (
            _readable(certificate, configuration.cert_file) as chain,
            _readable(key, configuration.key_file or configuration.cert_file) as private,
        ):
            context.load_cert_chain(chain, private, password=_no_password)
    return context


def certificate_expiry(pem: bytes) -> datetime:
    """
    Return when the first certificate of a PEM file ends.

    :raises ValueError: when there is none.
    """
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc


def _parse(source: bytes | Path | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(source, Mapping):
        return deepcopy(dict(source))
    content = yaml.safe_load(source.read_bytes() if isinstance(source, Path) else source)
    if not isinstance(content, dict):
        raise ValueError("it is not a YAML mapping")
    return content


def _select(content: dict[str, Any], context: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    name = context or content.get("current-context")
    chosen = _named(content, "contexts", name)["context"]
    user = _named(content, "users", chosen["user"])["user"] if chosen.get("user") else {}
    return _named(content, "clusters", chosen["cluster"])["cluster"], user or {}


def _named(content: dict[str, Any], section: str, name: str | None) -> dict[str, Any]:
    for entry in content.get(section) or ():
        if entry.get("name") == name:
            found: dict[str, Any] = entry
            return found
    known = ", ".join(repr(entry.get("name")) for entry in content.get(section) or ()) or "nothing"
    raise ValueError(f"{section} has no entry {name!r}, only {known}")


def _take_inline(cluster: dict[str, Any], user: dict[str, Any]) -> dict[str, bytes]:
    """Take the embedded PEM texts out, so that the loader has nothing to write to disk."""
    taken = {}
    for section, field in ((cluster, "certificate-authority"), (user, "client-certificate"), (user, "client-key")):
        if text := section.pop(f"{field}-data", None):
            section.pop(field, None)
            taken[field] = b64decode(text)
    return taken


@contextmanager
def _readable(data: bytes | None, path: str) -> Iterator[str]:
    """Give a path from which `data` can be read, without a file where the system allows it: OpenSSL takes only paths."""
    if data is None:
        yield path
    elif hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("etcdkeep")
        try:
            os.write(descriptor, data)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            yield file.name


def _no_password() -> str:
    """Stand in for OpenSSL's own prompt on the terminal, on which a task would wait for ever."""
    raise ValueError("its client key is encrypted; a plain one is needed")


def _read(path: str | None) -> bytes | None:
    return Path(path).read_bytes() if path else None


def _name(source: bytes | Path | Mapping[str, Any]) -> str:
    return str(source) if isinstance(source, Path) else "(given as text)"


def _safe_reason(err: Exception) -> str:
    """Say what is wrong without quoting the kubeconfig: YAML errors show the line they stumbled over."""
    if isinstance(err, yaml.YAMLError):
        mark = getattr(err, "problem_mark", None)
        return f"not YAML (line {mark.line + 1})" if mark else "not YAML"
    if isinstance(err, KeyError | TypeError | AttributeError):
        return (
            f"a part of it is missing or of the wrong type ({type(err).__name__}: {err})"
            if isinstance(err, KeyError)
            else "a part of it is of the wrong type"
        )
    return str(err)
