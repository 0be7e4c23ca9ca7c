"""
The program that turns a snapshot into a data directory: found on the node, never assumed.

It is etcdutl or etcdctl (which lost ``snapshot restore`` in 3.6), on the node itself or in an image that is already
there, run by docker, nerdctl or ctr. Nothing is pulled: docker is given an image's id, which it takes for no name in a
registry (``--pull`` came with 20.10, and older ones are about), nerdctl is told so, ctr never does.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from etcdkeep.control_plane.node_archive import SUDO

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Runtime = Literal["node", "docker", "nerdctl", "ctr"]

PROGRAMS = ("etcdutl", "etcdctl")
ENVIRONMENT = "ETCDCTL_API=3"
IMAGES_ARGV: dict[Runtime, tuple[str, ...]] = {
    "docker": (*SUDO, "docker", "image", "ls", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"),
    "nerdctl": (*SUDO, "nerdctl", "--namespace", "k8s.io", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"),
    "ctr": (*SUDO, "ctr", "--namespace", "k8s.io", "images", "ls", "-q"),
}
"""Per runtime, the call that lists the images on the node, for :func:`parse_images`."""

NOTE_PID = 'echo $$ > "$1"; shift; exec "$@"'
SEE_PID = 'pid=$(cat "$1" 2>/dev/null) && grep -lsF -e "$2" "/proc/$pid/cmdline"; true'
"""A number alone may be another process's by now: its command line has to name the folder."""
KILL_PID = 'kill -9 "$(cat "$1")" || true'


@dataclass(frozen=True)
class Tool:
    """
    One way to restore a snapshot.

    :param image: For the container runtimes: its name.
    :param image_id: Docker's own name for it, which stands for these bytes and no others.
    :param version: As the program prints it; empty until it was asked.
    :param bumps: Whether it has ``--bump-revision`` and ``--mark-compacted``.
    :param labelled: Whether the host labels files (SELinux), which containers must be let through.
    """

    runtime: Runtime
    program: str
    image: str = ""
    version: str = ""
    bumps: bool = False
    labelled: bool = False
    prefix: tuple[str, ...] = SUDO
    image_id: str = ""

    @property
    def words(self) -> str:
        """The tool for people."""
        where = "on the node" if self.runtime == "node" else f"in {self.image} by {self.runtime}"
        return f"{self.program} {self.version} {where}".replace("  ", " ")


@dataclass(frozen=True)
class MemberFlags:
    """What a restored member is told of itself and of the new cluster."""

    name: str
    peer_urls: str
    initial_cluster: str
    token: str


def parse_images(output: str) -> dict[str, str]:
    """Read a listing of images, ``name [id]`` a line, as name → id; the id is empty where none is listed."""
    lines = (line.split() for line in output.splitlines())
    return {name: "".join(image_id) for name, *image_id in (words for words in lines if words)}


def candidates(
    images: Mapping[Runtime, Mapping[str, str]], restore_image: str | None, etcd_image: str | None
) -> tuple[Tool, ...]:
    """
    Say what is worth asking on a node.

    :param images: Per runtime that is there, the images it has, as name → id.
    :param restore_image: The profile's; ``{version}`` in it stands for any tag.
    :param etcd_image: The one that the node's etcd runs from.
    """
    found = [Tool("node", program) for program in PROGRAMS]
    for runtime, present in images.items():
        for image in _matching(present, restore_image, etcd_image):
            found += [Tool(runtime, program, image, image_id=present[image]) for program in PROGRAMS]
    return tuple(found)


def tool_argv(
    tool: Tool, args: Sequence[str], *, folder: str | None = None, name: str = "etcdkeep-probe"
) -> tuple[str, ...]:
    """
    Build a call of the tool.

    :param folder: The one folder of the node that a container sees, at the same path; without a container, the process
        is noted there.
    :param name: By which a broken-off call is found again: the container's, or of the note.
    """
    command = (tool.program, *args)
    match tool.runtime:
        case "node":
            noting = ("sh", "-c", NOTE_PID, "sh", _note(folder, name)) if folder else ()
            return (*tool.prefix, *noting, "env", ENVIRONMENT, *command)
        case "ctr":
            mount = ("--mount", f"type=bind,src={folder},dst={folder},options=rbind:rw") if folder else ()
            options = ("--rm", "--user", "0:0", "--env", ENVIRONMENT, *mount)
            return (*SUDO, "ctr", "--namespace", "k8s.io", "run", *options, tool.image, name, *command)
        case _:
            volume = ("-v", f"{folder}:{folder}") if folder else ()
            label = ("--security-opt", "label=disable") if tool.labelled else ()
            pull = ("--pull", "never") if tool.runtime == "nerdctl" else ()
            options = ("--rm", "--name", name, *pull, "--network", "none", "--user", "0:0", *label, *volume)
            return (*_engine(tool), "run", *options, "--env", ENVIRONMENT, tool.image_id or tool.image, *command)


def remains_argv(tool: Tool, folder: str, name: str) -> tuple[str, ...]:
    """Return the call that prints something while a call of an earlier, broken-off try still runs, or its container is left."""
    match tool.runtime:
        case "node":
            return (*tool.prefix, "sh", "-c", SEE_PID, "sh", _note(folder, name), folder)
        case "ctr":
            return (*SUDO, "ctr", "--namespace", "k8s.io", "containers", "ls", "-q", f"id=={name}")
        case _:
            return (*_engine(tool), "ps", "--all", "--quiet", "--filter", f"name=^{name}$")


def remove_remains_argv(tool: Tool, folder: str, name: str) -> tuple[str, ...]:
    """Return the call that ends it and removes its container; no error when it ended by itself meanwhile."""
    match tool.runtime:
        case "node":
            return (*tool.prefix, "sh", "-c", KILL_PID, "sh", _note(folder, name))
        case "ctr":
            script = 'ctr -n k8s.io tasks kill -s SIGKILL "$1"; ctr -n k8s.io tasks rm -f "$1"; ctr -n k8s.io containers rm "$1"'
            return (*SUDO, "sh", "-c", script, "sh", name)
        case _:
            client = shlex.join(_engine(tool)[len(SUDO) :])
            return (*SUDO, "sh", "-c", f'{client} rm --force "$1" || true', "sh", name)


def restore_args(snapshot: str, target: str, member: MemberFlags, bump_revision: int) -> tuple[str, ...]:
    """
    Return the arguments that restore a snapshot into a directory that is not there yet.

    The snapshot's own hash is always checked.

    :param bump_revision: 0 for none; only for a tool that `bumps`.
    """
    bump = (f"--bump-revision={bump_revision}", "--mark-compacted") if bump_revision else ()
    return (
        "snapshot",
        "restore",
        snapshot,
        f"--name={member.name}",
        f"--initial-cluster={member.initial_cluster}",
        f"--initial-advertise-peer-urls={member.peer_urls}",
        f"--initial-cluster-token={member.token}",
        f"--data-dir={target}",
        *bump,
    )


def status_args(database: str) -> tuple[str, ...]:
    """Return the arguments that describe a database file."""
    return ("snapshot", "status", database, "--write-out=json")


def describe_tool(tool: Tool, version_output: str, help_output: str) -> Tool | None:
    """Complete a candidate with what it said of itself; None when it cannot restore."""
    if "--data-dir" not in help_output or "--initial-cluster-token" not in help_output:
        return None
    version = re.search(r"version:\s*(\d\S*)", version_output)
    bumps = "--bump-revision" in help_output and "--mark-compacted" in help_output
    return replace(tool, version=version[1] if version else "", bumps=bumps)


def best_tool(tools: Iterable[Tool], etcd_version: str, *, bump: bool) -> Tool | None:
    """
    Choose: one that can bump when that is wanted, then one of the etcd's own minor version, then the order of asking.

    :param etcd_version: Such as ``3.5.16``; empty when unknown.
    """
    wanted = _minor(etcd_version)

    def rank(tool: Tool) -> tuple[bool, bool]:
        return bump and not tool.bumps, bool(wanted) and _minor(tool.version) != wanted

    return min(tools, key=rank, default=None)


def image_version(image: str) -> str:
    """Return the version that an etcd image's tag names, such as ``3.5.16``; empty when it names none."""
    match = re.search(r":v?(\d+\.\d+\.\d+)", image)
    return match[1] if match else ""


def _minor(version: str) -> str:
    match = re.match(r"v?(\d+\.\d+)", version)
    return match[1] if match else ""


def _note(folder: str, name: str) -> str:
    return f"{folder}/{name}.pid"


def _engine(tool: Tool) -> tuple[str, ...]:
    return (*SUDO, "nerdctl", "--namespace", "k8s.io") if tool.runtime == "nerdctl" else (*SUDO, "docker")


def _matching(present: Iterable[str], restore_image: str | None, etcd_image: str | None) -> list[str]:
    if restore_image is None:
        return [image for image in present if image == etcd_image]
    wanted = re.compile(re.escape(restore_image).replace(re.escape("{version}"), r"[\w.-]+"))
    tagged = sorted((image for image in present if wanted.fullmatch(image)), reverse=True)
    return tagged + [image for image in present if image == etcd_image and image not in tagged]
