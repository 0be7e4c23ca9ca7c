"""Whether a node can restore the snapshot: its etcd tool, the versions, disk and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcdkeep.restore.found.tools import Tool, best_tool, image_version
from etcdkeep.restore.judge.finding import Finding, final, problem, warning
from etcdkeep.restore.judge.words import cannot_raise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.restore.found.nodes import NodeFacts
    from etcdkeep.restore.options import Options
    from etcdkeep.sets.manifest import Manifest

SPACE_FACTOR = 2
WAL_BYTES = 64 * 2**20
"""What etcd preallocates for the write-ahead log of a new member."""
MEMORY_RESERVE_BYTES = 256 * 2**20


def tool_of(manifest: Manifest, node: NodeFacts, options: Options) -> Tool | None:
    """Return the etcd tool of a node that fits best; None when it has none."""
    version = _live_etcd(node) or manifest.versions.get("etcd", "")
    return best_tool(node.tools, version, bump=options.bump_revision)


def judge_tool_exists(manifest: Manifest, node: NodeFacts, options: Options) -> Iterator[Finding]:
    """Yield that a node has no etcd tool which can restore, where one is needed."""
    if "etcd" in options.what and tool_of(manifest, node, options) is None:
        words = "neither etcdutl nor etcdctl on the node, nor an image with them (control_plane.restore_image)"
        lacks = (f"node {node.node}: nothing found that can restore: {words}", *node.tool_problems)
        yield final("; ".join(lacks))


def judge_versions(manifest: Manifest, node: NodeFacts, options: Options) -> Iterator[Finding]:
    """Yield where versions differ: of the cluster since the backup, of the tool from its etcd; and a tool that is too old."""
    where, etcd = f"node {node.node}: ", _live_etcd(node)
    live = {"kubernetes": image_version(node.apiserver.image) if node.apiserver else "", "etcd": etcd}
    for program, version in live.items():
        then = manifest.versions.get(program, "").lstrip("v")
        if version and then and _minor(version) != _minor(then):
            yield problem(
                f"{where}{program} is {version} now, at the backup it was {then}; a restore across minor versions may not work"
            )
    tool = tool_of(manifest, node, options) if "etcd" in options.what else None
    if tool and options.bump_revision and not tool.bumps:
        yield cannot_raise(where, tool)
    if tool and etcd and tool.version and _minor(tool.version) != _minor(etcd):
        yield warning(f"{where}{tool.words} restores for etcd {etcd}")


def judge_space(manifest: Manifest, node: NodeFacts) -> Iterator[Finding]:
    """Yield what a node lacks of disk and memory."""
    where = f"node {node.node}: "
    artifact = manifest.artifact("etcd")
    size = artifact.plaintext.size_bytes if artifact else 0
    needed = SPACE_FACTOR * size + size + WAL_BYTES
    if node.free_bytes is None:
        yield warning(f"{where}its free space is unknown; {needed} bytes are needed beside {node.data.path}")
    elif node.free_bytes < needed:
        yield final(
            f"{where}{node.free_bytes} bytes are free beside {node.data.path}, {needed} are needed (the snapshot, twice its data, and 64 MiB of write-ahead log)"
        )
    if node.memory_bytes is not None and node.memory_bytes < size + MEMORY_RESERVE_BYTES:
        yield warning(
            f"{where}{node.memory_bytes} bytes of memory are available; restoring takes about {size + MEMORY_RESERVE_BYTES}"
        )


def _live_etcd(node: NodeFacts) -> str:
    return image_version(node.etcd.image) if node.etcd else ""


def _minor(version: str) -> tuple[str, ...]:
    return tuple(version.split(".")[:2])
