"""What the set and the configuration say of a node's etcd member, where the node's own manifest does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcdkeep.control_plane.pod_spec import Downward
from etcdkeep.control_plane.static_pod import KnownMember
from etcdkeep.naming import split_address

if TYPE_CHECKING:
    from etcdkeep.config.models import Cluster
    from etcdkeep.sets.manifest import Member


def known_member(cluster: Cluster, node: str, address: str, member: Member | None, serving: str = "") -> KnownMember:
    """
    Return what stands in for what a node's manifests do not tell.

    :param address: Of the node, as ``host`` or ``host:port``.
    :param member: As the set has it.
    :param serving: Address at which the node's API server says that it serves.
    """
    host, _ = split_address(address, cluster.ssh.port)
    host_ips = (member.host_ips if member else ()) or ((serving,) if serving else ()) or (host,)
    return KnownMember(
        container=cluster.control_plane.container,
        downward=Downward(node, host_ips, member.pod_ips if member else ()),
        name=member.name if member else node,
        peer_urls=",".join(member.peer_urls) if member else f"https://{host}:2380",
        data_dir=cluster.control_plane.data_dir,
        client_url=cluster.control_plane.endpoint,
    )
