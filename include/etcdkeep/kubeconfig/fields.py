"""The entries and fields of a kubeconfig, read with their types checked; what is unknown is refused by name."""

from __future__ import annotations

import binascii
import difflib
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class KubeconfigProblem(Exception):
    """What is wrong with a kubeconfig, as a sentence without the full stop."""


@dataclass(frozen=True)
class Material:
    """
    A certificate or key: embedded, or in a file.

    :param what: For messages: ``client-key of user 'admin'``.
    """

    what: str
    data: bytes | None = field(default=None, repr=False)
    path: Path | None = None


@dataclass(frozen=True)
class KubeconfigSection:
    """
    One entry of a kubeconfig, its fields read with their types checked.

    :param where: For messages: ``user 'admin'``.
    """

    where: str
    fields: Mapping[str, Any] = field(repr=False)

    def text(self, name: str) -> str:
        """Return a text, or nothing where it is not set."""
        value = self.fields.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise KubeconfigProblem(f"{name} of {self.where} is of the wrong type; expected text (use quotes)")
        return value

    def flag(self, name: str) -> bool:
        """Return a truth value."""
        value = self.fields.get(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise KubeconfigProblem(f"{name} of {self.where} is of the wrong type; expected true or false")

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts."""
        values = self.fields.get(name) or ()
        if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
            raise KubeconfigProblem(f"{name} of {self.where} is of the wrong type; expected a list of texts")
        return tuple(values)

    def material(self, name: str, folder: Path | None) -> Material | None:
        """Return a certificate or key; what is embedded counts before a file."""
        what = f"{name} of {self.where}"
        if data := self.text(f"{name}-data"):
            try:
                return Material(what, b64decode("".join(data.split()), validate=True))
            except (binascii.Error, ValueError):
                raise KubeconfigProblem(f"{name}-data of {self.where} is not base64") from None
        path = self.path(name, folder)
        return None if path is None else Material(what, path=path)

    def path(self, name: str, folder: Path | None) -> Path | None:
        """Return a file's path, absolute."""
        text = self.text(name)
        return resolve_path(text, folder, f"{name} of {self.where}") if text else None


def resolve_path(text: str, folder: Path | None, what: str) -> Path:
    """
    Return a path as kubectl does: relative to the folder of the kubeconfig.

    :raises KubeconfigProblem: for a relative path in a kubeconfig that stands in no file.
    """
    path = Path(text)
    if path.is_absolute():
        return path
    if folder is None:
        raise KubeconfigProblem(
            f"{what} is a relative path, and this kubeconfig is not in a file. Give the whole path, or embed the content: its field "
            "ends in -data (a token: `token`)"
        )
    return (folder / path).absolute()


def named_section(
    content: Mapping[str, Any], section: str, name: object, key: str, known: frozenset[str]
) -> KubeconfigSection:
    """
    Return the one entry of a list that has this name.

    :param section: The list: ``contexts``, ``clusters`` or ``users``.
    :param key: What an entry holds beside its name: ``context``, ``cluster`` or ``user``.
    :raises KubeconfigProblem: when it is not there, is there twice, or has an unknown field.
    """
    entries = content.get(section) or ()
    if not isinstance(entries, list | tuple) or not all(isinstance(entry, Mapping) for entry in entries):
        raise KubeconfigProblem(f"{section} is of the wrong type; expected a list of named entries")
    found = [entry for entry in entries if entry.get("name") == name and name]
    if not found:
        raise KubeconfigProblem(
            f"{section} has no entry {name!r}, only {', '.join(entry_names(content, section)) or 'nothing'}"
        )
    if len(found) > 1:
        raise KubeconfigProblem(f"{section} has {len(found)} entries named {name!r}")
    return section_of(found[0].get(key) or {}, f"{key} {name!r}", known)


def entry_names(content: Mapping[str, Any], section: str) -> list[str]:
    """Return the names in a list, quoted for a message."""
    entries = content.get(section)
    return [repr(each.get("name")) for each in entries or () if isinstance(each, Mapping)] if entries else []


def section_of(value: Any, where: str, known: frozenset[str] | None) -> KubeconfigSection:
    """
    Return a mapping as a section.

    :param known: Its fields; None where any name may stand.
    :raises KubeconfigProblem: when it is no mapping, or has a field that is not known.
    """
    if not isinstance(value, Mapping):
        raise KubeconfigProblem(f"{where} is of the wrong type; expected a mapping")
    for name in value:
        if not isinstance(name, str):
            raise KubeconfigProblem(f"{where} has a field whose name is not text")
        if known is None or name in known:
            continue
        if name == "auth-provider":
            raise KubeconfigProblem(
                f"auth-provider of {where} is not supported. Use an exec plugin (such as gke-gcloud-auth-plugin) or a token"
            )
        near = difflib.get_close_matches(name.lower(), {each.lower(): each for each in known}, 1)
        meant = next((each for each in known if near and each.lower() == near[0]), None)
        raise KubeconfigProblem(
            f"{where} has the unknown field {name!r}" + (f"; did you mean {meant!r}?" if meant else "")
        )
    return KubeconfigSection(where, value)
