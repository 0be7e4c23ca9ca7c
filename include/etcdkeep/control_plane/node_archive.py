"""
What of a control-plane node travels in the set, and the commands that read it.

Two commands per node, both reading only: ``find`` lists what is there, ``tar`` streams exactly that. They work with the
GNU programs and with BusyBox. In the archive the PKI folder is ``pki/``, the manifests are ``manifests/``, the
administrator's kubeconfig is ``admin.conf``, and everything else keeps its full path without the leading slash.
Symlinks are followed, since on some nodes ``/etc/kubernetes/pki`` is one; sockets and dangling links are left out.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etcdkeep.control_plane.static_pod import apiserver_files
from etcdkeep.errors import AccessDenied, CommandFailed, EtcdkeepError, NotFound, PermanentError, TransientError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etcdkeep.config.profiles import ControlPlane

SUDO = ("sudo", "-n")
NOT_FOUND = ("No such file or directory", "Not a directory")
"""ENOENT and ENOTDIR under LC_ALL=C, in which every command over SSH runs."""
COMMAND_LINE_LIMIT_BYTES = 120 * 1024
"""sshd hands the command to a shell as one argument, and Linux ends those at 128 KiB."""

UNREADABLE = re.compile(
    r"^(\S*/)?find: .*: (Permission denied|Operation not permitted|Input/output error|Stale file handle)$"
)


@dataclass(frozen=True)
class NodePath:
    """
    A file or folder of the node that is to travel.

    :param path: On the node, absolute.
    :param name: In the archive.
    :param required: Whether a node without it cannot be backed up.
    """

    path: str
    name: str
    required: bool = False

    def covers(self, path: str) -> bool:
        """Say whether `path` is this one or below it."""
        return path == self.path or path.startswith(self.path.rstrip("/") + "/")


@dataclass(frozen=True)
class NodeListing:
    """
    What is really there.

    :param members: Every folder and file that goes into the archive, in the order found.
    :param missing: Paths that were wanted and are not on the node.
    """

    members: tuple[NodePath, ...]
    missing: tuple[str, ...]


def read_file_argv(path: str) -> tuple[str, ...]:
    """Build the command that prints one file of the node."""
    return (*SUDO, "cat", path)


def says_absent(failure: CommandFailed) -> bool:
    """Say whether a command failed because what it was asked for does not exist; no other failure shows that."""
    return failure.exit_code == 1 and any(reason in failure.stderr_tail for reason in NOT_FOUND)


def node_archive_paths(
    control_plane: ControlPlane,
    apiserver_manifest: bytes | None,
    extra_paths: Sequence[str] = (),
    named: Sequence[str] = (),
) -> tuple[NodePath, ...]:
    """
    Say what of a node travels: PKI, manifests, admin.conf, and the files elsewhere that the control plane needs.

    :param apiserver_manifest: ``kube-apiserver.yaml`` of the node; its flags name files outside the PKI folder, above
        all the encryption configuration.
    :param extra_paths: Files and folders the cluster's configuration adds; the node must have them.
    :param named: Files that were found on the node because something names them (:mod:`etcdkeep.control_plane.named_files`).
    :raises ConfigError: when the manifest cannot be read.
    """
    paths = [
        NodePath(posixpath.normpath(control_plane.pki_dir), "pki", required=True),
        NodePath(posixpath.normpath(control_plane.manifests_dir), "manifests", required=True),
        NodePath(posixpath.normpath(control_plane.admin_conf), "admin.conf"),
    ]
    source = posixpath.join(control_plane.manifests_dir, "kube-apiserver.yaml")
    from_manifest = apiserver_files(apiserver_manifest, source) if apiserver_manifest is not None else ()
    wanted = [(path, True) for path in extra_paths]
    wanted += [(path, False) for path in (*control_plane.optional_paths, *from_manifest, *named)]
    for path, required in wanted:
        path = posixpath.normpath(path)
        if required or not any(known.covers(path) for known in paths):
            paths.append(NodePath(path, path.lstrip("/"), required))
    return tuple(paths)


def list_node_argv(paths: Sequence[NodePath]) -> tuple[str, ...]:
    """
    Build the command that lists the folders and files below `paths`, each ended by a NUL.

    A path that is not there makes ``find`` end with 1, like a refused sudo would. The outer ``find`` visits one folder
    and runs the inner one for it: the inner one's exit code is dropped, sudo's is not.
    """
    inner = ("find", "-L", *(path.path for path in paths), "(", "-type", "f", "-o", "-type", "d", ")", "-print0")
    return (*SUDO, "find", "/", "-prune", "-exec", *inner, ";")


def read_listing(paths: Sequence[NodePath], output: bytes, where: str, said: str = "") -> NodeListing:
    """
    Read what :func:`list_node_argv` printed.

    :param where: The node, for messages.
    :param said: What it printed to standard error.
    :raises AccessDenied: when something of it could not be read, so that it is not known what is there.
    :raises NotFound: when a required path is not on the node.
    """
    if unread := [line for line in said.splitlines() if UNREADABLE.search(line)]:
        raise AccessDenied(
            f"{where}: not everything below {', '.join(path.path for path in paths)} can be read: {'; '.join(unread[:5])}\n"
            "Let root read it there, or remove it from extra_paths or control_plane.optional_paths."
        )
    members: dict[str, NodePath] = {}
    missing: list[str] = []
    for entry in output.split(b"\0"):
        path = posixpath.normpath(entry.decode(errors="backslashreplace"))
        root = next((each for each in paths if each.covers(path)), None)
        if root is None or path.encode() != posixpath.normpath(entry):
            missing += [path] if entry else []
            continue
        members.setdefault(path, NodePath(path, root.name + path.removeprefix(root.path)))
    absent = [path for path in paths if path.path not in members]
    if required := [path.path for path in absent if path.required]:
        raise NotFound(
            f"{where} has no {', '.join(required)}; correct control_plane.pki_dir, control_plane.manifests_dir or "
            "extra_paths of this cluster"
        )
    return NodeListing(tuple(members.values()), (*missing, *(path.path for path in absent)))


def tar_argv(paths: Sequence[NodePath], listing: NodeListing) -> tuple[str, ...]:
    """
    Build the command that streams the listed files as one tar, modes and numeric owners kept.

    Folders that have other names on the node than in the archive are renamed by ``--transform``, which only GNU tar
    has; with the usual names BusyBox does too.

    :raises PermanentError: when there are more files than one command line holds.
    """
    base = next((posixpath.dirname(path.path) for path in paths if posixpath.basename(path.path) == path.name), "/")
    renames = (
        f"--transform=s,^{_pattern(path.path.lstrip('/'))}\\(/\\|$\\),{path.name}\\1,"
        for path in paths
        if path.path not in (posixpath.join(base, path.name), "/" + path.name)
    )
    names = (
        member.name if member.path == posixpath.join(base, member.name) else member.path for member in listing.members
    )
    argv = (*SUDO, "tar", "-h", "--no-recursion", "--numeric-owner", *renames, "-C", base, "-cf", "-", *names)
    size_bytes = sum(len(item.encode()) + 3 for item in argv)
    if size_bytes > COMMAND_LINE_LIMIT_BYTES:
        raise PermanentError(
            f"{len(listing.members)} files make a tar command of {size_bytes} bytes, and a node allows {COMMAND_LINE_LIMIT_BYTES}; name fewer or smaller folders in extra_paths or optional_paths"
        )
    return argv


def explain_tar_failure(failure: CommandFailed, where: str) -> EtcdkeepError:
    """
    Return the error to raise for a failed tar: transient when a file changed or went away while it was read.

    Exit code 1 is GNU tar's "some files differ"; sudo refuses with the same code, so the words decide.
    """
    said = [line for line in failure.stderr_tail.splitlines() if re.match(r"(\S*/)?tar:(?! removing)", line, re.I)]
    if said and (failure.exit_code == 1 or "No such file" in failure.stderr_tail):
        return TransientError(
            f"{where}: files changed while tar read them ({said[0]}); the same call may succeed later"
        )
    return failure


def _pattern(text: str) -> str:
    """Escape `text` for the left side of tar's ``s,…,…,``."""
    return re.sub(r"([\\.\[\]*^$,])", r"\\\1", text)
