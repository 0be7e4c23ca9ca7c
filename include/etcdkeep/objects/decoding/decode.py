"""
One stored value to the object that the API server gives for it, field for field, in the version it is stored in.

Nothing is dropped in silence: a kind or a field that the schema does not know is kept as bytes and reported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from etcdkeep.errors import ValueDamaged, ValueEncrypted
from etcdkeep.objects.decoding import free_form, go_json, schema, served
from etcdkeep.objects.decoding.decrypt import ENCRYPTED_MARK
from etcdkeep.objects.decoding.shape import check_shape
from etcdkeep.objects.decoding.unknown_fields import UnknownField, unknown_fields

NEWEST_KUBERNETES_MINOR = 36
MAX_VALUE_BYTES = 8 * 1024 * 1024
"""Far above what an API server takes in one request (3 MiB); keeps a hostile value from filling the memory."""


_PROTOBUF_MARK = b"k8s\x00"


class Decrypter(Protocol):
    """Opens values that are encrypted at rest; :class:`etcdkeep.objects.decoding.decrypt.AtRestDecrypter` is one."""

    def decrypt(self, key: bytes, value: bytes) -> bytes:
        """Return the value in the clear; `key` is the whole key it is stored under."""


@dataclass(frozen=True)
class KubernetesObject:
    """
    An object as the API server gives it.

    :param key: Where it is stored.
    :param namespace: Empty for a cluster-scoped object.
    :param json: The object; numbers of free-form fields may be :class:`~etcdkeep.objects.decoding.exact_json.ExactNumber`.
    :param stored_api_version: Differs from `api_version` where the stored version is served no more (CRDs).
    :param notices: What a reader should know; never a value out of the object.
    :param unknown_fields: What the schema has no name for.
    :param raw: The object's undecoded bytes when its kind is unknown; else None.
    """

    key: bytes
    api_version: str
    kind: str
    namespace: str
    name: str
    json: dict[str, Any] = field(repr=False)
    stored_api_version: str = ""
    notices: tuple[str, ...] = ()
    unknown_fields: tuple[UnknownField, ...] = field(default=(), repr=False)
    raw: bytes | None = field(default=None, repr=False)


def decode(
    key: bytes,
    value: bytes | memoryview,
    *,
    mod_revision: int,
    kubernetes_minor: int = NEWEST_KUBERNETES_MINOR,
    decrypter: Decrypter | None = None,
    any_shape: bool = False,
) -> KubernetesObject:
    """
    Return the object that is stored under a key.

    :param mod_revision: The revision of the record, which the API server shows as the object's resourceVersion.
    :param kubernetes_minor: The server's version, 1.`kubernetes_minor`: what it prints has changed a little over time.
    :param decrypter: For values encrypted at rest.
    :param any_shape: Also a built-in kind stored as JSON whose fields are of other types than the kind's.
    :raises ValueDamaged: when the value is no object.
    :raises ValueEncrypted: when it is encrypted and cannot be decrypted here.
    """
    data = bytes(value)
    try:
        if data.startswith(ENCRYPTED_MARK):
            data = _decrypted(key, data, decrypter)
        if len(data) > MAX_VALUE_BYTES:
            raise ValueDamaged(f"it is {len(data)} bytes long; an API server stores at most a few MiB")
        if data.startswith(_PROTOBUF_MARK):
            return _decode_protobuf(key, data, mod_revision, kubernetes_minor)
        return _decode_free_form(key, data, mod_revision, kubernetes_minor, any_shape=any_shape)
    except ValueEncrypted:
        raise
    except (ValueDamaged, UnicodeDecodeError, RecursionError) as err:
        name = key.decode(errors="replace")
        problem = str(err)
        if isinstance(err, UnicodeDecodeError):  # the protobuf library refuses to hand out such a key
            problem = "a map in it has a key that is not UTF-8"
        elif isinstance(err, RecursionError):
            problem = "it is nested too deeply"
        raise ValueDamaged(f"value of {name!r} at revision {mod_revision} cannot be decoded: {problem}") from err


def _decrypted(key: bytes, data: bytes, decrypter: Decrypter | None) -> bytes:
    if decrypter is None:
        provider = data.split(b":", 3)[2].decode(errors="replace")
        raise ValueEncrypted(
            f"value of {key.decode(errors='replace')!r} is encrypted at rest with {provider}; "
            "give the API server's EncryptionConfiguration"
        )
    return decrypter.decrypt(key, data)


def _decode_protobuf(key: bytes, data: bytes, mod_revision: int, kubernetes_minor: int) -> KubernetesObject:
    envelope = _parse("runtime.Unknown", data[len(_PROTOBUF_MARK) :])
    api_version, kind, raw = envelope.f1.f1, envelope.f1.f2, envelope.f2
    if not isinstance(api_version, str) or not isinstance(kind, str) or not kind:
        raise ValueDamaged("its envelope names no kind")
    name = schema.kinds().get(f"{api_version} {kind}")
    if name is None:
        return _decode_unknown_kind(key, api_version, kind, raw, mod_revision, kubernetes_minor)
    message = _parse(name, raw)
    unknown = unknown_fields(message, name)
    content = {"apiVersion": api_version, "kind": kind, **go_json.to_json(message, name, kubernetes_minor)}
    return _object(key, content, mod_revision, kubernetes_minor, unknown=unknown)


def _decode_unknown_kind(
    key: bytes, api_version: str, kind: str, raw: bytes, mod_revision: int, kubernetes_minor: int
) -> KubernetesObject:
    """Show what every kind has in the same place: its metadata."""
    name = schema.ANY_KIND
    try:
        content = go_json.to_json(_parse(name, raw), name, kubernetes_minor)
    except ValueDamaged:
        content = {}
    if content.get("metadata", {}).get("name", "\0").encode() != key.rpartition(b"/")[2]:
        content = {"metadata": {}}
    content = {"apiVersion": api_version, "kind": kind, **content}
    notice = f"{api_version} {kind} is not in this version's schema: only its metadata is shown, its bytes are kept"
    return _object(key, content, mod_revision, kubernetes_minor, notices=(notice,), raw=raw)


def _parse(name: str, data: bytes) -> Any:
    from google.protobuf.message import DecodeError

    message = schema.message_class(name)()
    try:
        message.ParseFromString(data)
    except DecodeError as err:
        raise ValueDamaged(f"its bytes are not a valid {name}: {err}") from err
    return message


def _decode_free_form(
    key: bytes, data: bytes, mod_revision: int, kubernetes_minor: int, *, any_shape: bool
) -> KubernetesObject:
    if not data.startswith((b"{", free_form.CBOR_MARK)):
        raise ValueDamaged("it holds no Kubernetes object")
    content = free_form.parse(data, "it")
    if not isinstance(content, dict) or not all(isinstance(content.get(name), str) for name in ("apiVersion", "kind")):
        raise ValueDamaged("it has no apiVersion and kind")
    message = schema.kinds().get(f"{content['apiVersion']} {content['kind']}")
    if message is not None and not any_shape:
        check_shape(content, message)
    lone = free_form.lone_surrogates(data)
    notice = f"{lone} character(s) in it are half of a surrogate pair; shown as U+FFFD, as the API server does"
    return _object(key, content, mod_revision, kubernetes_minor, notices=(notice,) if lone else ())


def _object(
    key: bytes,
    stored: dict[str, Any],
    mod_revision: int,
    kubernetes_minor: int,
    *,
    notices: tuple[str, ...] = (),
    unknown: tuple[UnknownField, ...] = (),
    raw: bytes | None = None,
) -> KubernetesObject:
    metadata = stored.get("metadata")
    if not isinstance(metadata, dict):
        raise ValueDamaged("it has no metadata")
    metadata["resourceVersion"] = str(mod_revision)
    try:
        content = served.as_served(stored, kubernetes_minor)
    except (KeyError, TypeError, AttributeError, ValueError) as err:
        raise ValueDamaged(f"it is not shaped like a {stored['kind']}: {type(err).__name__} {err}") from err
    return KubernetesObject(
        key=key,
        api_version=content["apiVersion"],
        kind=content["kind"],
        namespace=str(metadata.get("namespace", "")),
        name=str(metadata.get("name", "")),
        json=content,
        stored_api_version=stored["apiVersion"],
        notices=notices + tuple(str(entry) for entry in unknown),
        unknown_fields=unknown,
        raw=raw,
    )
