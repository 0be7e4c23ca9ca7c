"""Asking a control-plane node what a restore must know of it. Reads only; what cannot be read is said, not raised."""

from __future__ import annotations

import logging
import posixpath
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from etcdkeep.control_plane.disk_space import df_argv, parse_df
from etcdkeep.control_plane.encryption import parse_encryption_configuration
from etcdkeep.control_plane.node_archive import SUDO, read_file_argv, says_absent
from etcdkeep.control_plane.pki import ca_fingerprint
from etcdkeep.control_plane.static_pod import (
    ApiserverStaticPod,
    EtcdStaticPod,
    KnownMember,
    apiserver_static_pod,
    etcd_config_file,
    etcd_static_pod,
)
from etcdkeep.control_plane.sudo import command_words
from etcdkeep.errors import AccessDenied, CommandFailed, CommandMissing, ConfigError, NotFound
from etcdkeep.ports import CommandRunner, StreamLimits
from etcdkeep.restore import node_commands as commands
from etcdkeep.restore.found import nodes as read
from etcdkeep.restore.found.config_files import ApiserverFile, key_names
from etcdkeep.restore.found.members import address_of, doubtful
from etcdkeep.restore.found.nodes import NodeFacts, PathFacts
from etcdkeep.restore.found.owner import static_pod_runs_as
from etcdkeep.restore.found.tools import IMAGES_ARGV, Runtime, Tool, candidates, describe_tool, parse_images, tool_argv
from etcdkeep.restore.judge.programs import crictl_problem, curl_problem, why_it_failed
from etcdkeep.sets.known_member import known_member

if TYPE_CHECKING:
    from collections.abc import Callable

    from etcdkeep.config.models import Cluster
    from etcdkeep.sets.manifest import Manifest, Member

log = logging.getLogger(__name__)

T = TypeVar("T")
PROBE_S = 60.0


def restore_nodes(cluster: Cluster, manifest: Manifest) -> dict[str, str]:
    """
    Say which nodes a restore is about, as name → address, from the set and the configuration alone.

    :raises NotFound: when a node's address is in neither, and its member was at work at the backup.
    """
    nodes: dict[str, str] = {}
    for member in manifest.members:
        address = address_of(cluster, member)
        if address is not None:
            nodes.setdefault(member.node, address)
        elif not doubtful(member):
            raise NotFound(
                f"the address of node {member.node!r} is neither in the backup nor in the configuration. Set ssh.addresses.{member.node} of cluster {cluster.name!r}."
            )
    return nodes


def gather_node(
    runner: CommandRunner, cluster: Cluster, node: str, address: str, member: Member | None = None
) -> NodeFacts:
    """
    Look one node over.

    :param member: The node's etcd member as the set has it; it tells what the node's manifest does not.
    :raises Unreachable: and the other errors of a connection; a failed probe raises nothing.
    """
    return _Gathering(runner, cluster).node(node, address, member)


class _Gathering:
    def __init__(self, runner: CommandRunner, cluster: Cluster) -> None:
        self._runner = runner
        self._cluster = cluster
        self._layout = cluster.control_plane
        self._problems: list[str] = []
        self._tool_problems: list[str] = []
        self._absent: list[str] = []
        self._unknown: list[str] = []

    def node(self, node: str, address: str, member_then: Member | None) -> NodeFacts:
        layout = self._layout
        known = known_member(self._cluster, node, address, member_then)
        apiserver = self._manifest("kube-apiserver", partial(apiserver_static_pod, known=known.downward))
        if apiserver is not None and member_then is not None and not member_then.host_ips:
            known = known_member(self._cluster, node, address, member_then, apiserver.address)
        etcd = self._manifest("etcd", partial(self._etcd, known))
        asked = partial(static_pod_runs_as, container=layout.container)
        runs_as = self._manifest("etcd", asked) if etcd else None
        data = self._path(etcd.data_dir if etcd else layout.data_dir)
        member = self._path(posixpath.join(data.path, "member"))
        pki = self._path(layout.pki_dir)
        manifests_dir = self._path(layout.manifests_dir)
        mountinfo = self._needed(("cat", "/proc/self/mountinfo"), "its mount points")
        ours = {each.path for each in (data, member, pki, manifests_dir)}
        all_mounts = read.parse_mount_points(mountinfo)
        mounts = tuple(point for point in all_mounts if point in ours)
        labelled = data.label is not None
        status = self._etcd_status(etcd, apiserver)
        bases = {read.run_base(each.path, mounts) for each in (data, pki, manifests_dir)}
        running, crictl_problem = self._running()
        curl_problem = self._curl()
        ca_sha256, ca_problem = self._ca()
        return NodeFacts(
            node=node,
            address=address,
            etcd=etcd,
            apiserver=apiserver,
            manifests=tuple(
                self._needed((*SUDO, "ls", manifests_dir.path), f"the files in {manifests_dir.path}").split()
            ),
            data=data,
            member=member,
            pki=pki,
            manifests_dir=manifests_dir,
            mount_points=mounts,
            free_bytes=self._parsed(df_argv(data.path if data.exists else posixpath.dirname(data.path)), parse_df),
            memory_bytes=self._parsed(("cat", "/proc/meminfo"), read.parse_meminfo),
            kubelet_running=self._kubelet(),
            running=running,
            crictl_problem=crictl_problem,
            curl=not curl_problem,
            curl_problem=curl_problem,
            tools=self._tools(etcd.image if etcd else None, labelled=labelled),
            ca_sha256=ca_sha256,
            ca_problem=ca_problem,
            status=status,
            etcd_healthy=bool(
                etcd and apiserver and self._parsed(commands.etcd_health_argv(etcd, apiserver), read.parse_healthy)
            ),
            ready=bool(apiserver and self._text(commands.ready_argv(apiserver)) == "ok"),
            earlier=self._earlier(sorted(bases)),
            config=self._config(apiserver, read.run_base(pki.path, mounts), all_mounts),
            problems=tuple(self._problems),
            tool_problems=tuple(self._tool_problems),
            absent=tuple(self._absent),
            unknown=tuple(self._unknown),
            etcd_runs_as=runs_as,
        )

    def _config(
        self, apiserver: ApiserverStaticPod | None, base: str, mounts: tuple[str, ...]
    ) -> tuple[ApiserverFile, ...]:
        """Look at the API server's files outside the PKI folder, which a restore of the PKI does not replace."""
        found = []
        for path in apiserver.files if apiserver else ():
            if f"{path}/".startswith(f"{self._layout.pki_dir.rstrip('/')}/"):
                continue
            facts = self._path(path)
            digest = (self._text((*SUDO, "sha256sum", facts.path)) or "").split()
            sealing = apiserver is not None and path == apiserver.encryption_config
            found.append(
                ApiserverFile(
                    path=path,
                    real=facts.path,
                    sha256=digest[0].lstrip("\\") if digest else None,
                    label=facts.label,
                    movable=facts.path not in mounts
                    and read.mount_of(facts.path, mounts) == read.mount_of(base, mounts),
                    encryption=sealing,
                    keys=self._keys(facts.path) if sealing else (),
                )
            )
        return tuple(found)

    def _keys(self, path: str) -> tuple[str, ...]:
        try:
            data = self._runner.run(read_file_argv(path), StreamLimits(PROBE_S)).stdout
            return key_names(parse_encryption_configuration(data, path))
        except (CommandFailed, ConfigError) as err:
            log.debug("%s: %s", self._runner.where, err)
            return ()

    def _text(self, argv: tuple[str, ...]) -> str | None:
        try:
            return self._runner.run(argv, StreamLimits(PROBE_S)).stdout.decode(errors="replace")
        except (CommandFailed, CommandMissing) as err:
            log.debug("%s: %s", self._runner.where, err)
            return None

    def _needed(self, argv: tuple[str, ...], what: str) -> str:
        """Return what a probe printed, empty when its object does not exist; any other failure is noted as not known."""
        try:
            return self._runner.run(argv, StreamLimits(PROBE_S)).stdout.decode(errors="replace")
        except (CommandFailed, CommandMissing) as err:
            if not (isinstance(err, CommandFailed) and says_absent(err)):
                self._unknown.append(f"{what} cannot be read: {why_it_failed(err)}")
            return ""

    def _parsed(self, argv: tuple[str, ...], parse: Callable[[str], T | None]) -> T | None:
        text = self._text(argv)
        return None if text is None else parse(text)

    def _manifest(self, name: str, parse: Callable[[bytes, str], T]) -> T | None:
        path = posixpath.join(self._layout.manifests_dir, f"{name}.yaml")
        try:
            return parse(self._runner.run(read_file_argv(path), StreamLimits(PROBE_S)).stdout, path)
        except (CommandFailed, CommandMissing) as err:
            self._problems.append(self._unread(path, err))
        except ConfigError as err:
            self._problems.append(str(err))
        return None

    def _unread(self, path: str, err: CommandFailed | CommandMissing) -> str:
        """Say why a file was not read; only one that was looked for and not found is called absent."""
        if isinstance(err, CommandFailed) and says_absent(err):
            self._absent.append(path)
            return f"{path} does not exist"
        return f"{path} cannot be read: {why_it_failed(err)}"

    def _etcd(self, known: KnownMember, manifest: bytes, path: str) -> EtcdStaticPod:
        file = etcd_config_file(manifest, path, known)
        config: bytes | None = None
        if file is not None:
            with suppress(CommandFailed):
                config = self._runner.run(read_file_argv(file), StreamLimits(PROBE_S)).stdout
        return etcd_static_pod(manifest, path, known, config)

    def _path(self, path: str) -> PathFacts:
        real = (self._text((*SUDO, "readlink", "-f", path)) or path).strip() or path
        stat = read.parse_stat(self._needed((*SUDO, "stat", "-c", "%u:%g %a", real), real))
        if stat is None:
            return PathFacts(real)
        return PathFacts(real, *stat, read.parse_label(self._text((*SUDO, "stat", "-c", "%C", real)) or ""))

    def _kubelet(self) -> bool | None:
        try:
            self._runner.run((*SUDO, *self._layout.kubelet.running), StreamLimits(PROBE_S))
        except CommandMissing:
            return None
        except CommandFailed as err:
            if words := command_words(err.stderr_tail):  # a stopped kubelet is no reason to complain
                self._problems.append(f"cannot tell whether the kubelet runs: {words}")
                return None
            return False
        return True

    def _running(self) -> tuple[tuple[str, ...] | None, str]:
        """Return the running containers' names, or why crictl did not list them."""
        argv = commands.containers_argv(self._layout, self._layout.static_pods, "--output", "json")
        try:
            output = self._runner.run(argv, StreamLimits(PROBE_S)).stdout.decode(errors="replace")
            return read.parse_container_names(output), ""
        except (CommandFailed, CommandMissing, AccessDenied) as err:
            problem = crictl_problem(err)
        self._problems.append(problem)
        return None, problem

    def _curl(self) -> str:
        """Return why curl cannot be run; empty when it can."""
        try:
            self._runner.run(("curl", "--version"), StreamLimits(PROBE_S))
        except (CommandFailed, CommandMissing) as err:
            return curl_problem(err)
        return ""

    def _etcd_status(self, etcd: EtcdStaticPod | None, apiserver: ApiserverStaticPod | None) -> read.EtcdStatus | None:
        if etcd is None or apiserver is None:
            return None
        try:
            return self._parsed(commands.etcd_status_argv(etcd, apiserver), read.parse_etcd_status)
        except CommandFailed as err:
            self._problems.append(str(err))
            return None

    def _ca(self) -> tuple[str | None, str]:
        """Return the fingerprint of the cluster's CA, or why there is none."""
        path = posixpath.join(self._layout.pki_dir, "ca.crt")
        try:
            return ca_fingerprint(self._runner.run(read_file_argv(path), StreamLimits(PROBE_S)).stdout), ""
        except CommandFailed as err:
            absent = says_absent(err)
            problem = f"{path} does not exist" if absent else f"{path} cannot be read: {why_it_failed(err)}"
        except ConfigError as err:
            problem = f"{path}: {err}"
        self._problems.append(problem)
        return None, problem

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
            except (CommandFailed, AccessDenied) as err:
                self._tool_problems.append(f"{runtime} is installed but does not answer: {why_it_failed(err)}")
                continue
            images[runtime] = parse_images(listed.stdout.decode(errors="replace"))
        return images

    def _ask(self, tool: Tool, *args: str) -> str | None:
        """Run the tool; its container has a name of its own, for somebody else may be looking at this node too."""
        return self._text(tool_argv(tool, args, name=f"etcdkeep-probe-{uuid4().hex[:12]}"))

    def _earlier(self, bases: list[str]) -> tuple[read.EarlierRun, ...]:
        present = [base for base in bases if self._is_folder(base)]
        if not present:
            return ()
        argv = (*SUDO, "find", *present, "-mindepth", "1", "-maxdepth", "2", "-printf", r"%y\t%p\t%l\n")
        return read.parse_earlier_runs(self._needed(argv, f"what earlier restores left in {', '.join(present)}"))

    def _is_folder(self, path: str) -> bool:
        try:
            self._runner.run((*SUDO, "test", "-d", path), StreamLimits(PROBE_S))
        except (CommandFailed, CommandMissing) as err:
            if not isinstance(err, CommandFailed) or err.exit_code != 1 or command_words(err.stderr_tail):
                self._unknown.append(f"{path} cannot be read: {why_it_failed(err)}")
            return False
        return True
