"""The commands that a restore runs on a control-plane node, as argv: what is asked before, during and after."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from etcdkeep.control_plane.node_archive import SUDO

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etcdkeep.config.profiles import ControlPlane
    from etcdkeep.control_plane.static_pod import ApiserverStaticPod, EtcdStaticPod

ANSWER_S = 5
STOP_GRACE_S = 2
"""kube-apiserver takes its own 30 seconds otherwise; its work is in etcd."""


def curl_argv(url: str, ca: str | None, cert: str | None, key: str | None, *more: str) -> tuple[str, ...]:
    """
    Return the call that asks a server of this node, with a client certificate of this node.

    :param ca: None to leave the server's name unchecked, as the kubelet's own probes do.
    """
    trust = ("--cacert", ca) if ca else ("--insecure",)
    client = ("--cert", cert, "--key", key) if cert and key else ()
    return (*SUDO, "curl", "--silent", "--show-error", "--max-time", str(ANSWER_S), *trust, *client, *more, url)


def etcd_status_argv(etcd: EtcdStaticPod, apiserver: ApiserverStaticPod) -> tuple[str, ...]:
    """Return the call that asks the node's member for ids, version and revision."""
    files = apiserver.etcd_ca, apiserver.etcd_cert, apiserver.etcd_key
    return curl_argv(f"{etcd.client_url}/v3/maintenance/status", *files, "--data", "{}")


def etcd_health_argv(etcd: EtcdStaticPod, apiserver: ApiserverStaticPod) -> tuple[str, ...]:
    """Return the call that asks the node's member whether it can commit."""
    return curl_argv(f"{etcd.client_url}/health", apiserver.etcd_ca, apiserver.etcd_cert, apiserver.etcd_key)


def etcd_range_argv(
    etcd: EtcdStaticPod, apiserver: ApiserverStaticPod, key: str, end: str, *, count_only: bool
) -> tuple[str, ...]:
    """
    Return the call that lists the keys of a range, or counts them.

    :param key: Base64, as is `end`.
    """
    wanted = '"count_only":true' if count_only else '"keys_only":true'
    body = f'{{"key":"{key}","range_end":"{end}",{wanted}}}'
    files = apiserver.etcd_ca, apiserver.etcd_cert, apiserver.etcd_key
    return curl_argv(f"{etcd.client_url}/v3/kv/range", *files, "--data", body)


def ready_argv(apiserver: ApiserverStaticPod) -> tuple[str, ...]:
    """Return the call that prints ``ok`` when the node's API server is ready."""
    return curl_argv(f"{apiserver.url}/readyz", None, apiserver.client_cert, apiserver.client_key)


def containers_argv(control_plane: ControlPlane, names: Sequence[str], *options: str) -> tuple[str, ...]:
    """
    Return the call that lists running containers of the control plane.

    crictl takes a name as a regular expression, and other pods may have a container of the same name.
    """
    label = f"io.kubernetes.pod.namespace={control_plane.namespace}"
    pattern = f"^({'|'.join(names)})$"
    return (*SUDO, *control_plane.crictl, "ps", "--label", label, "--name", pattern, *options)


def stop_containers_argv(control_plane: ControlPlane) -> tuple[str, ...]:
    """Return the call that stops the control plane's containers, all at once; no error when none runs."""
    return (*SUDO, "sh", "-c", _stopping(control_plane))


def remove_containers_argv(control_plane: ControlPlane) -> tuple[str, ...]:
    """
    Return the call that stops and removes the control plane's containers, as the kubelet does when a manifest is gone.

    Left to the kubelet alone, kube-apiserver takes its 30 seconds of grace; and one that finds an exited container of a
    static pod that comes back starts it only after a back-off, of up to five minutes where etcd has crashed for long.
    The kubelet may remove one in the meantime, between the list and the call: then those that are left are stopped, and what is
    left after that is asked by :func:`gone_argv`.
    """
    remove = shlex.join((*control_plane.crictl, "rm"))
    removing = f"{_listing(control_plane, '--all')} | xargs -r -n 1 -P 8 {remove}"
    script = f"stop() {{ {_stopping(control_plane)}; }}; {{ stop || stop; }} && {{ {removing} || true; }}"
    return (*SUDO, "sh", "-c", script)


def gone_argv(control_plane: ControlPlane) -> tuple[str, ...]:
    """Return the call that prints nothing once the parked pods' containers are removed, and their sandboxes stopped."""
    where = ("--namespace", f"^{control_plane.namespace}$", "--name", f"^({'|'.join(control_plane.static_pods)})-")
    sandboxes = shlex.join((*control_plane.crictl, "pods", "--quiet", "--state", "Ready", *where))
    return (*SUDO, "sh", "-c", f"{_listing(control_plane, '--all')} && {sandboxes}")


def etcd_log_argv(control_plane: ControlPlane) -> tuple[str, ...]:
    """Return the call that prints the end of the newest etcd container's log, running or not; nothing when there is none."""
    newest = shlex.join(containers_argv(control_plane, [control_plane.container], "--all", "--quiet")[len(SUDO) :])
    logs = shlex.join((*control_plane.crictl, "logs", "--tail", "50"))
    return (*SUDO, "sh", "-c", f"{newest} | head -n 1 | xargs -r {logs} 2>&1")


def _listing(control_plane: ControlPlane, *options: str) -> str:
    return shlex.join(containers_argv(control_plane, control_plane.static_pods, "--quiet", *options)[len(SUDO) :])


def _stopping(control_plane: ControlPlane) -> str:
    stop = shlex.join((*control_plane.crictl, "stop", "--timeout", str(STOP_GRACE_S)))
    return f"{_listing(control_plane)} | xargs -r -n 1 -P 8 {stop}"
