"""
The API server's files outside the PKI folder: those of the set against those of the node, and which are put back.

Above all the encryption configuration: an API server whose keys are not those of the snapshot cannot read it. Only digests
and fingerprints of keys are kept here, never a key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from etcdkeep.control_plane.encryption import EncryptionConfiguration, find_encryption_configurations

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from etcdkeep.restore.options import Options


@dataclass(frozen=True)
class ArchivedConfig:
    """
    A file of a node archive.

    :param keys: What :func:`key_names` says of it; empty for what is no encryption configuration.
    """

    sha256: str
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class ApiserverFile:
    """
    A file that the node's API server names.

    :param path: As its manifest has it, mapped to the host; `real` with links resolved.
    :param sha256: None when it is not there.
    :param movable: Whether a rename between it and the PKI's folder stays on one file system.
    :param encryption: Whether it is the encryption configuration; `keys` are its keys then.
    :param archived: Its name in the node's archive; empty when the set has none of it.
    """

    path: str
    real: str
    sha256: str | None
    label: str | None = None
    movable: bool = True
    encryption: bool = False
    keys: tuple[str, ...] = ()
    archived: str = ""
    then: ArchivedConfig | None = None

    @property
    def differs(self) -> bool:
        """Whether the set has it, and with another content than the node."""
        return self.then is not None and self.then.sha256 != self.sha256

    @property
    def lost_keys(self) -> tuple[str, ...]:
        """The keys of the set that the node has not."""
        return tuple(key for key in (self.then.keys if self.then else ()) if key not in self.keys)

    @property
    def newer_keys(self) -> tuple[str, ...]:
        """The keys of the node that the set has not."""
        return tuple(key for key in self.keys if self.then and key not in self.then.keys)


def key_names(configuration: EncryptionConfiguration) -> tuple[str, ...]:
    """Return the keys of a configuration for people: provider, name, and a fingerprint, since a name may come twice."""
    names = []
    for provider in configuration.providers:
        if provider.kind == "kms":
            names.append(f"kms {provider.kms_name!r}")
        names += [
            f"{provider.kind} {key.name!r} ({hashlib.sha256(key.secret).hexdigest()[:8]})" for key in provider.keys
        ]
    return tuple(dict.fromkeys(names))


def archived_files(files: Mapping[str, bytes]) -> dict[str, ArchivedConfig]:
    """Describe the files of a node archive that lie outside the PKI."""
    found = {path: data for path, data in files.items() if not path.startswith("pki/")}
    encryption = find_encryption_configurations(found)
    return {
        path: ArchivedConfig(
            hashlib.sha256(data).hexdigest(),
            key_names(known) if isinstance(known := encryption.get(path), EncryptionConfiguration) else (),
        )
        for path, data in found.items()
    }


def match(config: Iterable[ApiserverFile], archived: Mapping[str, ArchivedConfig]) -> tuple[ApiserverFile, ...]:
    """
    Find each file of the node in its archive: by its path, the encryption configuration else by what it is.

    A configuration that was renamed when its keys were exchanged is put where the node's manifest looks for it.
    """
    matched = []
    for file in config:
        name = file.path.lstrip("/")
        if name not in archived and file.encryption:
            sealed = [path for path, each in archived.items() if each.keys]
            name = sealed[0] if len(sealed) == 1 else name
        matched.append(replace(file, archived=name, then=archived[name]) if name in archived else file)
    return tuple(matched)


def put_back(file: ApiserverFile, options: Options) -> bool:
    """
    Say whether a restore puts the set's file in place.

    The encryption configuration goes with etcd's data: without these, values that were sealed with newer keys stay.
    """
    if not file.differs or not {"pki", "config"} & set(options.what):
        return False
    return not (file.encryption and file.sha256) or bool({"etcd", "config"} & set(options.what))
