"""Asking a control-plane node what a restore must know of it. Reads only; what cannot be read is said, not raised."""

from __future__ import annotations

import logging
import posixpath
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from etcdkeep.control_plane import SUDO, read_file_argv
from etcdkeep.errors import CommandFailed, CommandMissing, ConfigError, NotFound
from etcdkeep.pki import ca_fingerprint
from etcdkeep.ports import CommandRunner, StreamLimits
from etcdkeep.restore import facts as read
from etcdkeep.restore import node_commands as commands
from etcdkeep.restore.facts import NodeFacts, PathFacts
from etcdkeep.restore.owner import static_pod_runs_as
from etcdkeep.restore.tools import IMAGES_ARGV, Runtime, Tool, candidates, describe_tool, parse_images, tool_argv
from etcdkeep.static_pod import ApiserverStaticPod, EtcdStaticPod, apiserver_static_pod, etcd_static_pod

if TYPE_CHECKING:
    from collections.abc import Callable

    from etcdkeep.config import Cluster
    from etcdkeep.manifest import Manifest

log = logging.getLogger(__name__)

T = TypeVar("T")
PROBE_S = 60.0


def restore_nodes(cluster: Cluster, manifest: Manifest) -> dict[str, str]:
    """
    Say which nodes a restore is about, as name → address, from the set and the configuration alone.

    :raises NotFound: when a node's address is in neither.
    """
    nodes: dict[str, str] = {}
    for member in manifest.members:
        address = cluster.ssh.addresses.get(member.node) or member.address
        if address is None:
            raise NotFound(
                f"the address of node {member.node!r} stands neither in the backup nor in the configuration; "
                f"set ssh.addresses.{member.node} of cluster {cluster.name!r}."
            )
        nodes.setdefault(member.node, address)
    return nodes


def gather_node(runner: CommandRunner, cluster: Cluster, node: str, address: str) -> NodeFacts:
    """
    Look one node over.

    :raises Unreachable: and the other errors of a connection; a failed probe raises nothing.
    """
    return _Gathering(runner, cluster).node(node, address)


class _Gathering:
    def __init__(self, runner: CommandRunner, cluster: Cluster) -> None:
        self._runner = runner
        self._layout = cluster.control_plane
        self._problems: list[str] = []
        self._tool_problems: list[str] = []

    def node(self, node: str, address: str) -> NodeFacts:
        layout = self._layout
        etcd = self._manifest("etcd", etcd_static_pod)
        asked = partial(static_pod_runs_as, container=layout.container)
        runs_as = self._manifest("etcd", asked) if etcd else None
        apiserver = self._manifest("kube-apiserver", apiserver_static_pod)
        data = self._path(etcd.data_dir if etcd else layout.data_dir)
        member = self._path(posixpath.join(data.path, "member"))
        pki = self._path(layout.pki_dir)
        manifests_dir = self._path(layout.manifests_dir)
        mountinfo = self._text(("cat", "/proc/self/mountinfo")) or ""
        ours = {each.path for each in (data, member, pki, manifests_dir)}
        mounts = tuple(point for point in read.parse_mount_points(mountinfo) if point in ours)
        labelled = data.label is not None
        status = self._etcd_status(etcd, apiserver)
        bases = {read.run_base(each.path, mounts) for each in (data, pki, manifests_dir)}
        return NodeFacts(
            node=node,
            address=address,
            etcd=etcd,
            apiserver=apiserver,
            manifests=tuple((self._text((*SUDO, "ls", manifests_dir.path)) or "").split()),
            data=data,
            member=member,
            pki=pki,
            manifests_dir=manifests_dir,
            mount_points=mounts,
            free_bytes=self._parsed(
                ("df", "-P", "-k", data.path if data.exists else posixpath.dirname(data.path)), read.parse_df
            ),
            memory_bytes=self._parsed(("cat", "/proc/meminfo"), read.parse_meminfo),
            kubelet_running=self._kubelet(),
            running=self._running(),
            curl=self._text(("curl", "--version")) is not None,
            tools=self._tools(etcd.image if etcd else None, labelled=labelled),
            ca_sha256=self._ca(),
            status=status,
            etcd_healthy=bool(
                etcd and apiserver and self._parsed(commands.etcd_health_argv(etcd, apiserver), read.parse_healthy)
            ),
            ready=bool(apiserver and self._text(commands.ready_argv(apiserver)) == "ok"),
            earlier=self._earlier(sorted(bases)),
            problems=tuple(self._problems),
            tool_problems=tuple(self._tool_problems),
            etcd_runs_as=runs_as,
        )

    def _text(self, argv: tuple[str, ...]) -> str | None:
        try:
            return self._runner.run(argv, StreamLimits(PROBE_S)).stdout.decode(errors="replace")
        except (CommandFailed, CommandMissing) as err:
            log.debug("%s: %s", self._runner.where, err)
            return None

    def _parsed(self, argv: tuple[str, ...], parse: Callable[[str], T]) -> T | None:
        text = self._text(argv)
        return None if text is None else parse(text)

    def _manifest(self, name: str, parse: Callable[[bytes, str], T]) -> T | None:
        path = posixpath.join(self._layout.manifests_dir, f"{name}.yaml")
        try:
            return parse(self._runner.run(read_file_argv(path), StreamLimits(PROBE_S)).stdout, path)
        except CommandFailed:
            self._problems.append(f"{path} is not there")
        except ConfigError as err:
            self._problems.append(str(err))
        return None

    def _path(self, path: str) -> PathFacts:
        real = (self._text((*SUDO, "readlink", "-f", path)) or path).strip() or path
        stat = read.parse_stat(self._text((*SUDO, "stat", "-c", "%u:%g %a", real)) or "")
        if stat is None:
            return PathFacts(real)
        return PathFacts(real, *stat, read.parse_label(self._text((*SUDO, "stat", "-c", "%C", real)) or ""))

    def _kubelet(self) -> bool | None:
        try:
            self._runner.run((*SUDO, *self._layout.kubelet.running), StreamLimits(PROBE_S))
        except CommandMissing:
            return None
        except CommandFailed:
            return False
        return True

    def _running(self) -> tuple[str, ...] | None:
        argv = commands.containers_argv(self._layout, self._layout.static_pods, "--output", "json")
        try:
            return self._parsed(argv, read.parse_container_names)
        except CommandFailed as err:
            self._problems.append(str(err))
            return None

    def _etcd_status(self, etcd: EtcdStaticPod | None, apiserver: ApiserverStaticPod | None) -> read.EtcdStatus | None:
        if etcd is None or apiserver is None:
            return None
        try:
            return self._parsed(commands.etcd_status_argv(etcd, apiserver), read.parse_etcd_status)
        except CommandFailed as err:
            self._problems.append(str(err))
            return None

    def _ca(self) -> str | None:
        path = posixpath.join(self._layout.pki_dir, "ca.crt")
        try:
            return ca_fingerprint(self._runner.run(read_file_argv(path), StreamLimits(PROBE_S)).stdout)
        except CommandFailed:
            self._problems.append(f"{path} is not there")
        except ConfigError as err:
            self._problems.append(f"{path}: {err}")
        return None

    def _tools(self, etcd_image: str | None, *, labelled: bool) -> tuple[Tool, ...]:
        images, wanted = self._images(), self._layout.restore_image
        asked = candidates(images, wanted, etcd_image)
        useful = {tool.runtime for tool in asked}
        self._tool_problems += [f"{name} has no image {wanted or etcd_image}" for name in images if name not in useful]
        found: list[Tool] = []
        for tool in asked:
            usage = self._ask(tool, "snapshot", "restore", "--help")
            described = usage and describe_tool(tool, self._ask(tool, "version") or "", usage)
            if described:
                found.append(replace(described, labelled=labelled))
        return tuple(found)

    def _images(self) -> dict[Runtime, dict[str, str]]:
        """Return the images of the runtimes that are there and answer."""
        images = {}
        for runtime, argv in IMAGES_ARGV.items():
            try:
                listed = self._runner.run(argv, StreamLimits(PROBE_S))
            except CommandMissing:
                continue
            except CommandFailed as err:
                self._tool_problems.append(f"{runtime} is there and does not answer: {err.stderr_tail.strip() or err}")
                continue
            images[runtime] = parse_images(listed.stdout.decode(errors="replace"))
        return images

    def _ask(self, tool: Tool, *args: str) -> str | None:
        """Run the tool; its container has a name of its own, for somebody else may be looking at this node too."""
        return self._text(tool_argv(tool, args, name=f"etcdkeep-probe-{uuid4().hex[:12]}"))

    def _earlier(self, bases: list[str]) -> tuple[read.EarlierRun, ...]:
        present = [base for base in bases if self._text((*SUDO, "test", "-d", base)) is not None]
        if not present:
            return ()
        argv = (*SUDO, "find", *present, "-mindepth", "1", "-maxdepth", "2", "-printf", r"%y\t%p\t%l\n")
        return read.parse_earlier_runs(self._text(argv) or "")
