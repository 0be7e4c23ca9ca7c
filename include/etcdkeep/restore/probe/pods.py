"""
Asking for a kubeception control plane, whose etcd runs as pods of an admin cluster: through its API alone. Reads only.

The StatefulSet says more than its pods do, and it exists also when no pod does.
"""

from __future__ import annotations

import logging
import posixpath
import re
from typing import TYPE_CHECKING, Any

from etcdkeep.errors import CommandFailed, CommandMissing, EtcdkeepError, NotFound, RequestRefused, TransientError
from etcdkeep.etcd import etcdctl
from etcdkeep.ports import PodRef, StreamLimits
from etcdkeep.restore.found.nodes import PathFacts, parse_stat, run_base
from etcdkeep.restore.found.pods import DONE_ANNOTATION, RUN_ANNOTATION, MemberPod, PodFacts, hold_annotation
from etcdkeep.restore.found.tools import PROGRAMS, Tool, describe_tool, tool_argv
from etcdkeep.restore.leftovers import find_in_pod

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from etcdkeep.config.models import Cluster
    from etcdkeep.ports import CommandRunner, KubeApi
    from etcdkeep.restore.found.nodes import EarlierRun
    from etcdkeep.sets.manifest import Manifest

log = logging.getLogger(__name__)

PROBE_S = 60.0
ADMISSION_LABEL = "pod-security.kubernetes.io/enforce"
SHELL_PROGRAMS = ("sh", "mv", "head", "dd", "sha256sum", "stat", "readlink", "sleep")
"""What the utility pod's image must have beside the etcd tool."""


def gather_pods(api: KubeApi, cluster: Cluster, manifest: Manifest) -> PodFacts:
    """
    Look a kubeception control plane over; reads only.

    :raises NotFound: when there is no such StatefulSet.
    :raises RequestRefused: when it is not made in a way that can be restored.
    """
    layout, namespace = cluster.control_plane, cluster.namespace
    path = f"/apis/apps/v1/namespaces/{namespace}/statefulsets/{layout.workloads.etcd}"
    statefulset = api.get(path)
    spec, template = statefulset["spec"], statefulset["spec"]["template"]
    annotations = statefulset["metadata"].get("annotations") or {}
    container = _container(template["spec"], layout.container, path)
    claims = [claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates") or ()]
    mount = _data_mount(container, template["spec"], claims, path)
    flags = _flags(container)
    data_dir = posixpath.normpath(flags.get("data-dir") or mount["mountPath"])
    replicas = int(spec.get("replicas", 1)) or len(manifest.members)
    pods = {pod["metadata"]["name"]: pod for pod in api.list(f"/api/v1/namespaces/{namespace}/pods")}
    members = tuple(
        _member(api, cluster, statefulset, container, mount, pods.get(f"{layout.workloads.etcd}-{index}"), index)
        for index in range(replicas)
    )
    image, tool, live = _image(api, cluster, container, pods, members, data_dir)
    namespaced = api.get(f"/api/v1/namespaces/{namespace}")["metadata"]
    budget_path = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets/{layout.workloads.disruption_budget}"
    return PodFacts(
        namespace=namespace,
        statefulset=layout.workloads.etcd,
        replicas=replicas,
        mount=mount["mountPath"],
        data_dir=data_dir,
        sub_path=mount.get("subPath", ""),
        members=members,
        image=image,
        tool=tool,
        live=live,
        template=template["spec"],
        clients=_clients(api, cluster),
        budget=_optional(api, budget_path),
        budget_path=budget_path,
        kube_system_uid=api.get("/api/v1/namespaces/kube-system")["metadata"]["uid"],
        namespace_uid=namespaced["uid"],
        revision=_revision(api, cluster, members),
        unfinished=_unfinished(annotations),
        scaled_to=int(spec.get("replicas", 1)),
        earlier=tuple(_earlier(api, cluster, pods, members, run_base(data_dir, (mount["mountPath"],)))),
        holds=_holds(annotations, members),
        restricted=(namespaced.get("labels") or {}).get(ADMISSION_LABEL) == "restricted",
    )


def _unfinished(annotations: Mapping[str, str]) -> str:
    run = annotations.get(RUN_ANNOTATION, "")
    return "" if annotations.get(DONE_ANNOTATION) == run else run


def _holds(annotations: Mapping[str, str], members: tuple[MemberPod, ...]) -> tuple[tuple[str, str], ...]:
    """Return restore and pod of each annotation of :func:`hold_annotation`."""
    pods = {hold_annotation(member.pod, ""): member.pod for member in members}
    split = (name.rpartition("/") for name in annotations)
    return tuple((run, pods[prefix + slash]) for prefix, slash, run in split if prefix + slash in pods)


def _earlier(
    api: KubeApi, cluster: Cluster, pods: Mapping[str, Any], members: tuple[MemberPod, ...], base: str
) -> Iterator[tuple[str, EarlierRun]]:
    """Yield what restores left on the claims whose etcd runs and has ls and readlink; the annotations tell of the others."""
    for member in members:
        pod = pods.get(member.pod)
        if pod is None or not _runs(pod, cluster.control_plane.container):
            continue
        try:
            found = find_in_pod(_runner(api, cluster, member.pod), base)
        except (CommandMissing, NotFound, TransientError) as err:
            log.info("pod %s: its claim cannot be checked for earlier restores: %s", member.pod, err)
            continue
        yield from ((member.pod, each) for each in found)


def _container(spec: Mapping[str, Any], name: str, path: str) -> dict[str, Any]:
    for container in spec["containers"]:
        if container["name"] == name:
            found: dict[str, Any] = container
            return found
    raise RequestRefused(f"{path} has no container {name!r}; correct control_plane.container.")


def _data_mount(container: Mapping[str, Any], spec: Mapping[str, Any], claims: list[str], path: str) -> dict[str, Any]:
    """Return the mount of the claim in which the data lies."""
    claimed = {volume["name"] for volume in spec.get("volumes") or () if volume.get("persistentVolumeClaim")} | set(
        claims
    )
    mounts = [mount for mount in container.get("volumeMounts") or () if mount["name"] in claimed]
    data_dir = _flags(container).get("data-dir", "")
    fitting = [
        mount for mount in mounts if not data_dir or f"{data_dir}/".startswith(mount["mountPath"].rstrip("/") + "/")
    ]
    if not fitting:
        raise RequestRefused(f"{path}: its data ({data_dir or 'no --data-dir'}) is not on a PersistentVolumeClaim.")
    found: dict[str, Any] = max(fitting, key=lambda mount: len(mount["mountPath"]))
    return found


def _flags(container: Mapping[str, Any]) -> dict[str, str]:
    """Return etcd's settings as etcd reads them: flags with one or two dashes, as one word or two, else ``ETCD_…``."""
    text = " ".join([*(container.get("command") or ()), *(container.get("args") or ())])
    given = {
        each["name"].removeprefix("ETCD_").lower().replace("_", "-"): str(each["value"])
        for each in container.get("env") or ()
        if each["name"].startswith("ETCD_") and each.get("value")
    }
    return given | dict(re.findall(r"(?<!\S)--?([a-z][a-z-]+)(?:=|\s+)[\"']?([^\s\"'-][^\s\"';]*)", text))


def _member(
    api: KubeApi,
    cluster: Cluster,
    statefulset: Mapping[str, Any],
    container: Mapping[str, Any],
    mount: Mapping[str, Any],
    pod: Mapping[str, Any] | None,
    index: int,
) -> MemberPod:
    name = f"{statefulset['metadata']['name']}-{index}"
    known = {"metadata.name": name, "metadata.namespace": cluster.namespace}
    values = {"HOSTNAME": name}
    for variable in container.get("env") or ():
        source = ((variable.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath", "")
        values[variable["name"]] = str(variable.get("value") or known.get(source, ""))
    flags = _flags(container)

    def expand(text: str) -> str:
        return re.sub(r"\$[({]?(\w+)[)}]?", lambda match: values.get(match[1]) or match[0], text)

    service = statefulset["spec"].get("serviceName") or statefulset["metadata"]["name"]
    member = expand(flags.get("name", name))
    template_claims = [claim["metadata"]["name"] for claim in statefulset["spec"].get("volumeClaimTemplates") or ()]
    if mount["name"] in template_claims:
        claim = f"{mount['name']}-{name}"
    else:
        volumes = statefulset["spec"]["template"]["spec"].get("volumes") or ()
        claim = next(each["persistentVolumeClaim"]["claimName"] for each in volumes if each["name"] == mount["name"])
    return MemberPod(
        pod=name,
        name=member if "$" not in member else name,
        peer_urls=_peer_urls(expand(flags.get("initial-advertise-peer-urls", "")), f"https://{name}.{service}:2380"),
        claim=claim,
        node=((pod or {}).get("spec") or {}).get("nodeName", ""),
        healthy=pod is not None and _healthy(api, cluster, name),
    )


def _peer_urls(given: str, usual: str) -> str:
    return given if given and "$" not in given else usual


def _healthy(api: KubeApi, cluster: Cluster, pod: str) -> bool:
    argv = etcdctl.endpoint_health_argv(cluster.control_plane, PROBE_S / 4)
    try:
        _runner(api, cluster, pod).run(argv, StreamLimits(PROBE_S))
    except EtcdkeepError:
        return False
    return True


def _revision(api: KubeApi, cluster: Cluster, members: tuple[MemberPod, ...]) -> int | None:
    revisions = []
    argv = etcdctl.endpoint_status_argv(cluster.control_plane, PROBE_S / 4)
    for member in members:
        if member.healthy:
            output = _runner(api, cluster, member.pod).run(argv, StreamLimits(PROBE_S)).stdout
            revisions.append(etcdctl.parse_endpoint_status(output).revision)
    return max(revisions, default=None)


def _image(
    api: KubeApi,
    cluster: Cluster,
    container: Mapping[str, Any],
    pods: Mapping[str, Any],
    members: tuple[MemberPod, ...],
    data_dir: str,
) -> tuple[str, Tool, PathFacts]:
    """
    Choose the utility pods' image: etcd's own where it has a shell, which a running pod can tell; else the profile's.

    :raises RequestRefused: when the profile's has to be found and no node has it.
    """
    member = posixpath.join(data_dir, "member")
    for each in members:
        pod = pods.get(each.pod)
        if pod is None or not _runs(pod, container["name"]):
            continue
        runner = _runner(api, cluster, each.pod)
        owner = parse_stat(_text(runner, ("stat", "-c", "%u:%g %a", member)) or "")
        live = PathFacts(member, *owner) if owner else PathFacts(member)
        tool = _tool(runner) if all(_text(runner, ("which", name)) for name in SHELL_PROGRAMS) else None
        if tool:
            return container["image"], tool, live
        return _utility_image(api, cluster), Tool("node", "etcdctl", prefix=()), live
    return _utility_image(api, cluster), Tool("node", "etcdctl", prefix=()), PathFacts(member)


def _runs(pod: Mapping[str, Any], container: str) -> bool:
    """Say whether a container can be asked; the phase of a pod that crashes again and again is Running all the same."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return any(each["name"] == container and "running" in (each.get("state") or {}) for each in statuses)


def _tool(runner: CommandRunner) -> Tool | None:
    for program in PROGRAMS:
        tool = Tool("node", program, prefix=())
        usage = _text(runner, tool_argv(tool, ("snapshot", "restore", "--help")))
        described = usage and describe_tool(tool, _text(runner, tool_argv(tool, ("version",))) or "", usage)
        if described:
            return described
    return None


def _utility_image(api: KubeApi, cluster: Cluster) -> str:
    wanted: str | None = cluster.control_plane.restore_image
    if wanted and "{version}" not in wanted:
        return wanted
    if wanted:
        pattern = re.compile(re.escape(wanted).replace(re.escape("{version}"), r"[\w.-]+"))
        nodes = api.list("/api/v1/nodes")
        names = {
            name for node in nodes for image in node["status"].get("images") or () for name in image["names"] or ()
        }
        fitting = sorted(name for name in names if pattern.fullmatch(name))
        if fitting:
            return str(fitting[-1])
    raise RequestRefused(
        f"cluster {cluster.name!r}: no image for the utility pods: etcd's own has no shell or does not run, and no node has "
        f"{wanted or 'another'}. Set control_plane.restore_image to an image with a shell and etcdctl."
    )


def _clients(api: KubeApi, cluster: Cluster) -> dict[str, int]:
    paths = [f"/apis/apps/v1/namespaces/{cluster.namespace}/{name}" for name in cluster.control_plane.workloads.clients]
    found = {path: _optional(api, path) for path in paths}
    return {path: int(each["spec"].get("replicas", 1)) for path, each in found.items() if each is not None}


def _optional(api: KubeApi, path: str) -> dict[str, Any] | None:
    try:
        return api.get(path)
    except NotFound:
        return None


def _runner(api: KubeApi, cluster: Cluster, pod: str) -> CommandRunner:
    return api.exec(PodRef(cluster.namespace, pod, cluster.control_plane.container))


def _text(runner: CommandRunner, argv: tuple[str, ...]) -> str | None:
    try:
        return runner.run(argv, StreamLimits(PROBE_S)).stdout.decode(errors="replace")
    except (CommandFailed, CommandMissing, TransientError):
        return None
