"""
Encryption at rest: the API server's EncryptionConfiguration, and whether a set holds the keys its snapshot needs.

Values that the API server encrypted start with ``k8s:enc:<provider>:v<n>:<key name>:``. For ``aescbc``, ``aesgcm`` and
``secretbox`` the key itself stands in the configuration file; for ``kms`` the name is the plugin's, and the key is
wherever that plugin keeps it.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from etcdkeep.errors import ConfigError
from etcdkeep.safe_yaml import read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

API_VERSION = "apiserver.config.k8s.io/v1"
KIND = "EncryptionConfiguration"
FORMS = ((API_VERSION, KIND), ("v1", "EncryptionConfig"))
"""The second is what Kubernetes before 1.13 wrote, and still reads."""
KEY_SIZES_BYTES: Mapping[str, tuple[int, ...]] = {"aescbc": (16, 24, 32), "aesgcm": (16, 24, 32), "secretbox": (32,)}


@dataclass(frozen=True)
class EncryptionKey:
    """
    One key of a local provider.

    :param secret: The raw key; kept out of ``repr``.
    """

    name: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class EncryptionProvider:
    """
    One entry of a ``providers`` list; the first of a list encrypts, all of them decrypt.

    :param kind: ``aescbc``, ``aesgcm``, ``secretbox``, ``kms`` or ``identity``.
    :param keys: Of a local provider, in order.
    :param kms_name: The plugin's name, which stands in the values it encrypted.
    :param kms_version: ``v1`` or ``v2``.
    :param kms_endpoint: The plugin's socket, ``unix:///…``.
    """

    kind: str
    keys: tuple[EncryptionKey, ...] = ()
    kms_name: str = ""
    kms_version: str = ""
    kms_endpoint: str = ""

    @property
    def key_names(self) -> tuple[str, ...]:
        """The names that stand in values encrypted by this provider."""
        return (self.kms_name,) if self.kind == "kms" else tuple(key.name for key in self.keys)


@dataclass(frozen=True)
class ResourceEncryption:
    """
    Which resources are encrypted how.

    :param resources: ``secrets``, ``deployments.apps``, ``*.apps``, ``*.`` or ``*.*``.
    """

    resources: tuple[str, ...]
    providers: tuple[EncryptionProvider, ...]


@dataclass(frozen=True)
class EncryptionConfiguration:
    """One EncryptionConfiguration file, rules in the file's order: the first that names a resource holds for it."""

    source: str
    rules: tuple[ResourceEncryption, ...]

    @property
    def providers(self) -> tuple[EncryptionProvider, ...]:
        """Every provider of every rule, in order."""
        return tuple(provider for rule in self.rules for provider in rule.providers)

    def keys(self, kind: str, name: str) -> tuple[EncryptionKey, ...]:
        """Return the keys called `name` of the local provider `kind`; two rules may use one name for two keys."""
        found = (key for provider in self.providers if provider.kind == kind for key in provider.keys)
        return tuple(dict.fromkeys(key for key in found if key.name == name))


@dataclass(frozen=True)
class EncryptionCoverage:
    """
    Whether the keys of a snapshot's encrypted values are in its set.

    :param problems: One sentence for each key that is missing.
    :param notes: What is there and cannot be proved from here.
    """

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def parse_encryption_configuration(data: bytes, source: str) -> EncryptionConfiguration:
    """
    Read an EncryptionConfiguration, YAML or JSON.

    :param source: The file's name, for messages.
    :raises ConfigError: with every problem found; no message holds a key.
    """
    document = read_yaml(data, source)
    if not _is_encryption_configuration(document):
        raise ConfigError(
            f"{source} is not an {KIND} of {API_VERSION}; give the file that kube-apiserver's "
            "--encryption-provider-config names"
        )
    problems: list[str] = []
    rules = tuple(
        _rule(entry, f"resources[{index}]", problems) for index, entry in enumerate(_list(document.get("resources")))
    )
    if not rules:
        problems.append("resources: is empty or missing")
    if problems:
        raise ConfigError(f"{source} cannot be used:", tuple(problems))
    return EncryptionConfiguration(source, rules)


def find_encryption_configurations(files: Mapping[str, bytes]) -> dict[str, EncryptionConfiguration | ConfigError]:
    """
    Find the EncryptionConfiguration files among an archive's files, by content.

    :return: Path → what was read, or the error that says why it cannot be used.
    """
    found: dict[str, EncryptionConfiguration | ConfigError] = {}
    for path, data in sorted(files.items()):
        if b"EncryptionConfig" not in data:
            continue
        try:
            if _is_encryption_configuration(read_yaml(data, path)):
                found[path] = parse_encryption_configuration(data, path)
        except ConfigError as err:
            found[path] = err
    return found


def check_encryption_keys(
    seen: Iterable[tuple[str, str]], files: Mapping[str, bytes], kms_key_paths: Sequence[str]
) -> EncryptionCoverage:
    """
    Say which keys of a snapshot's encrypted values are not in the set.

    :param seen: (provider, key name) pairs of the snapshot's ``k8s:enc:`` values; provider without its version.
    :param files: The node archive's files, by their names in it.
    :param kms_key_paths: Files and folders of the node where the KMS plugin keeps its keys.
    """
    problems: list[str] = []
    notes: list[str] = []
    found = find_encryption_configurations(files)
    usable = [configuration for configuration in found.values() if isinstance(configuration, EncryptionConfiguration)]
    kms_paths = tuple(path.strip("/") for path in kms_key_paths)
    kms_files = [
        path
        for path, data in files.items()
        if data and any(path == kms_path or path.startswith(kms_path + "/") for kms_path in kms_paths)
    ]
    for kind, name in sorted(set(seen)):
        if kind == "kms":
            where = ", ".join(kms_paths) or "any configured path"
            if kms_files:
                notes.append(
                    f"values are encrypted by KMS plugin {name!r}: {len(kms_files)} of its files are in the set ("
                    f"{where}); only the plugin itself can show that they are the right keys"
                )
            else:
                problems.append(
                    f"values are encrypted by KMS plugin {name!r}, and the set holds no file of {where}: a restore "
                    "is unreadable unless that plugin still has its keys; name its key files in control_plane.optional_paths"
                )
        elif not any(configuration.keys(kind, name) for configuration in usable):
            problems.append(
                f"values are encrypted with {kind} key {name!r}, which {_where(usable)}: they cannot be read after a "
                "restore; find the EncryptionConfiguration that holds the key and add that file to extra_paths"
            )
    if problems:
        problems.extend(str(err) for err in found.values() if isinstance(err, ConfigError))
    return EncryptionCoverage(tuple(problems), tuple(notes))


def _where(usable: Sequence[EncryptionConfiguration]) -> str:
    if not usable:
        return "is nowhere in the set: it holds no readable EncryptionConfiguration"
    return "is not in " + ", ".join(configuration.source for configuration in usable)


def _is_encryption_configuration(document: Any) -> bool:
    return isinstance(document, dict) and (document.get("apiVersion"), document.get("kind")) in FORMS


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _rule(entry: Any, where: str, problems: list[str]) -> ResourceEncryption:
    entry = entry if isinstance(entry, dict) else {}
    resources = tuple(str(name) for name in _list(entry.get("resources")))
    if not resources:
        problems.append(f"{where}.resources: is empty or missing")
    listed = _list(entry.get("providers"))
    if not listed:
        problems.append(f"{where}.providers: is empty or missing")
    providers = (_provider(provider, f"{where}.providers[{index}]", problems) for index, provider in enumerate(listed))
    return ResourceEncryption(resources, tuple(provider for provider in providers if provider))


def _provider(entry: Any, where: str, problems: list[str]) -> EncryptionProvider | None:
    if not isinstance(entry, dict) or len(entry) != 1:
        problems.append(f"{where}: must name exactly one provider")
        return None
    ((kind, body),) = entry.items()
    body = body if isinstance(body, dict) else {}
    if kind == "identity":
        return EncryptionProvider(kind)
    if kind == "kms":
        if not body.get("name"):
            problems.append(f"{where}.kms.name: is missing")
        return EncryptionProvider(
            kind,
            kms_name=str(body.get("name", "")),
            kms_version=str(body.get("apiVersion") or "v1"),
            kms_endpoint=str(body.get("endpoint", "")),
        )
    if kind not in KEY_SIZES_BYTES:
        problems.append(f"{where}: provider {kind!r} is unknown")
        return None
    listed = _list(body.get("keys"))
    if not listed:
        problems.append(f"{where}.{kind}.keys: is empty or missing")
    keys = (_key(key, kind, f"{where}.{kind}.keys[{index}]", problems) for index, key in enumerate(listed))
    return EncryptionProvider(kind, tuple(key for key in keys if key))


def _key(entry: Any, kind: str, where: str, problems: list[str]) -> EncryptionKey | None:
    entry = entry if isinstance(entry, dict) else {}
    name, text = entry.get("name"), entry.get("secret")
    if not isinstance(name, str) or not name:
        problems.append(f"{where}.name: is missing")
        return None
    try:
        secret = base64.b64decode("".join(text.split()), validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) not in KEY_SIZES_BYTES[kind]:
        sizes = ", ".join(str(size) for size in KEY_SIZES_BYTES[kind])
        problems.append(f"{where}.secret: must be base64 of {sizes} bytes")
        return None
    return EncryptionKey(name, secret)
