"""
What static pods and the kubelet name outside the PKI folder: kubeconfigs, policies, configuration, and what those name in turn.

With an external CA a kubeconfig of the controller-manager cannot be made anew, and no API server starts without a policy
file that its manifest names. Paths are followed through the mounts of the container that reads them. Only plain files up to
:data:`LIMIT_BYTES` travel; folders, sockets, programs, data and logs do not.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etcdkeep.control_plane.node_archive import SUDO
from etcdkeep.control_plane.pod_spec import Container, Downward, containers, read_pod
from etcdkeep.errors import ConfigError
from etcdkeep.safe_yaml import read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

LIMIT_BYTES = 1024 * 1024
"""Of one file. Configuration takes a few KiB; what is larger is a program, data or a log."""
LIMIT_FILES = 400
"""That are looked for on one node; their paths must fit into a command line."""
DEPTH = 3
"""A configuration names a kubeconfig, which names a certificate."""

WORD_START = re.compile(r"(?<=[a-z])(?=[A-Z])")
OUTPUT = re.compile(r"(^|[-_])(log|dir|lock|pid|sock|socket|endpoint|address)([-_]|$)", re.IGNORECASE)
"""Settings whose value is written to, or is no file."""
INPUT = re.compile(
    r"(file|config|kubeconfig|certificate|authority|key|cert|ca|policy|conf|bundle|path)$", re.IGNORECASE
)
"""Settings that name a file which is read."""
RELATIVE = re.compile(r"^(certificate-authority|client-certificate|client-key|tokenFile|path|.*-file)$")
"""Settings whose relative path is taken from the folder of the file that holds them."""
NO_FILES = ("/proc/", "/sys/", "/dev/")
FLAG_WITH_PATH = re.compile(r"--([\w-]+)[= ](/[^\s\"',]+)")


@dataclass(frozen=True)
class NamedFile:
    """
    A file of the node that something names.

    :param path: On the node.
    :param by: What names it, and how, for people.
    :param needed: Whether what names it reads it at its start.
    :param inner: Its path as its reader sees it.
    :param container: Its reader's; None for a reader on the node itself.
    """

    path: str
    by: str
    needed: bool
    inner: str
    container: Container | None = None


@dataclass(frozen=True)
class Looked:
    """
    What is on the node of the files that were looked for.

    :param plain: Paths of plain files within the limit.
    :param folders: Paths of folders: what names one names no file.
    :param other: Paths of larger files, sockets.
    """

    plain: frozenset[str]
    folders: frozenset[str]
    other: frozenset[str]


def manifest_files(manifests: Mapping[str, bytes], known: Downward) -> list[NamedFile]:
    """
    Return the files that static pods name: in flags and variables of every container, and as volumes that are one file.

    :param manifests: File name → content of the manifests folder; what is no pod is passed over.
    """
    named: list[NamedFile] = []
    for name, data in sorted(manifests.items()):
        try:
            pod = read_pod(data, name)
        except ConfigError:
            continue
        for container in containers(pod, known, init=True):
            named += _of_container(name, container)
        named += _of_volumes(name, pod)
    return _unique(named)


def kubelet_files(paths: Iterable[str]) -> list[NamedFile]:
    """Return the kubelet's own files."""
    return [NamedFile(posixpath.normpath(path), "the kubelet", needed=False, inner=path) for path in paths]


def files_named_in(file: NamedFile, data: bytes) -> list[NamedFile]:
    """Return the files that a configuration file names; nothing where it is none."""
    folder = posixpath.dirname(file.inner)
    named = []
    for setting, value in _settings(file, data):
        inner = posixpath.normpath(posixpath.join(folder, value))
        host = file.container.host_path(inner) if file.container else inner
        if host:
            absolute = value.startswith("/")
            by = f"{file.path} ({setting})"
            named.append(NamedFile(host, by, absolute and bool(INPUT.search(setting)), inner, file.container))
    return _unique(named)


def look_argv(files: Sequence[NamedFile]) -> tuple[str, ...]:
    """
    Build the command that prints the paths that are there, each ended by a NUL.

    Those of plain files within the limit come twice, those of folders three times.

    The outer ``find`` visits one folder and runs the inner ones for it: their exit codes are dropped, sudo's is not.
    """
    there = ("find", "-L", *(file.path for file in files), "-maxdepth", "0")
    plain = ("-type", "f", "-size", f"-{LIMIT_BYTES + 1}c", "-print0")
    folders = ("-type", "d", "-print0", "-print0")
    return (
        *(*SUDO, "find", "/", "-prune", "(", "-exec", *there, "-print0", ";", "-o", "-prune", ")"),
        *("-exec", *there, *plain, "-o", *folders, ";"),
    )


def read_look(output: bytes) -> Looked:
    """Read what :func:`look_argv` printed."""
    seen = [path.decode(errors="replace") for path in output.split(b"\0") if path]
    plain, folders = (frozenset(path for path in seen if seen.count(path) == times) for times in (2, 3))
    return Looked(plain, folders, frozenset(seen) - plain - folders)


def missing_notes(files: Sequence[NamedFile], looked: Looked) -> list[str]:
    """Return a sentence on each file that should travel and does not."""
    notes = []
    for file in files:
        if not file.needed or file.path in looked.plain | looked.folders:
            continue
        if file.path in looked.other:
            notes.append(
                f"{file.path}, named by {file.by}, is larger than {LIMIT_BYTES} bytes or not a plain file, and is not in the set; if it is needed, add it to extra_paths"
            )
        else:
            notes.append(f"{file.path} does not exist, although {file.by} names it")
    return notes


def _of_container(manifest: str, container: Container) -> Iterator[NamedFile]:
    for flag, values in container.flags.items():
        for value in values:
            for inner in _paths(value):
                yield from _mapped(container, inner, f"{manifest} (--{flag})", flag)
    for variable, value in container.env.items():
        for inner in _paths(value):
            yield from _mapped(container, inner, f"{manifest} ({variable})", variable)


def _mapped(container: Container, inner: str, by: str, setting: str) -> Iterator[NamedFile]:
    host = container.host_path(inner)
    if host and not _is_output(setting) and not host.startswith(NO_FILES):
        yield NamedFile(host, by, bool(INPUT.search(setting)), inner, container)


def _is_output(setting: str) -> bool:
    return bool(OUTPUT.search(WORD_START.sub("-", setting)))


def _paths(value: str) -> list[str]:
    """Return the absolute paths in a value: of one, of several with commas, of ``cert,key:names``."""
    return [part.partition(":")[0] for part in value.split(",") if part.startswith("/")]


def _of_volumes(manifest: str, pod: Mapping[str, Any]) -> Iterator[NamedFile]:
    volumes = pod["spec"].get("volumes")
    for volume in volumes if isinstance(volumes, list) else []:
        host = volume.get("hostPath") if isinstance(volume, dict) else None
        if isinstance(host, dict) and str(host.get("type")) in ("File", "FileOrCreate") and host.get("path"):
            path = posixpath.normpath(str(host["path"]))
            yield NamedFile(path, f"{manifest} (volume {volume.get('name')})", needed=False, inner=path)


def _settings(file: NamedFile, data: bytes) -> Iterator[tuple[str, str]]:
    """Yield (setting, path) from a configuration file: YAML, JSON, or a file of flags."""
    if b"PRIVATE KEY" in data[:4096] or b"\0" in data:
        return
    try:
        document = read_yaml(data, file.path)
    except ConfigError:
        document = None
    if isinstance(document, (dict, list)):
        yield from _walk("", document)
    else:
        for match in FLAG_WITH_PATH.finditer(data.decode(errors="replace")):
            if not _is_output(match[1]) and not match[2].startswith(NO_FILES):
                yield match[1], match[2]


def _walk(setting: str, value: Any) -> Iterator[tuple[str, str]]:
    stack: list[tuple[str, Any]] = [(setting, value)]
    while stack:
        setting, value = stack.pop()
        if isinstance(value, dict):
            stack += [(str(key), each) for key, each in value.items()]
        elif isinstance(value, list):
            stack += [(setting, each) for each in value]
        elif isinstance(value, str) and _names_file(setting, value):
            yield setting, value


def _names_file(setting: str, value: str) -> bool:
    if len(value) > 4096 or any(character.isspace() for character in value):
        return False
    if setting == "command" or _is_output(setting) or value.startswith(NO_FILES):
        return False
    return value.startswith("/") or bool(RELATIVE.match(setting) and value)


def _unique(named: Iterable[NamedFile]) -> list[NamedFile]:
    """Return each path once; needed where anything needs it, and read by a container where one does."""
    found: dict[str, NamedFile] = {}
    for file in named:
        before = found.get(file.path)
        better = before is None or (file.needed, file.container is not None) > (
            before.needed,
            before.container is not None,
        )
        if better and file.path != "/":
            found[file.path] = file
    return list(found.values())
