"""What single kinds need before they can be made anew."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from etcdkeep.recover.draft import Draft, Surroundings

    Rule = Callable[[Draft, Surroundings], None]

SERVICE_ACCOUNT_TOKEN = "kubernetes.io/service-account-token"  # noqa: S105 - a type of Secret
_TOKEN_SECRET = re.compile(r".+-(token|dockercfg)-[a-z0-9]{5}")
_TOKEN_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
_CONTAINERS = ("initContainers", "containers")
_OF_A_JOB = ("controller-uid", "batch.kubernetes.io/controller-uid", "job-name", "batch.kubernetes.io/job-name")
_OF_BINDING = (
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.kubernetes.io/selected-node",
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/storage-provisioner",
)


def _pod(draft: Draft, _: Surroundings) -> None:
    for name in ("nodeName", "ephemeralContainers", "priority", "preemptionPolicy"):
        draft.drop("spec", name)
    spec = draft.spec
    if spec.get("runtimeClassName"):
        draft.drop("spec", "overhead")
    tokens = {volume["name"] for volume in spec.get("volumes") or () if _holds_token(volume, spec)}
    draft.dropped += (f"spec.volumes ({name})" for name in sorted(tokens))
    _take_named(spec, "volumes", tokens)
    for container in _containers(spec):
        _take_named(container, "volumeMounts", tokens)


def _take_named(holder: dict[str, Any], field: str, names: set[str]) -> None:
    """Take items of those names out of a list, and the list with the last of them."""
    if holder.get(field):
        holder[field] = [each for each in holder[field] if each["name"] not in names]
        if not holder[field]:
            del holder[field]


def _holds_token(volume: dict[str, Any], spec: dict[str, Any]) -> bool:
    """Whether a volume is the one that the API server itself puts into every pod."""
    name = volume["name"]
    if volume.get("projected") and name.startswith("kube-api-access-"):
        return True
    mounts = [mount for each in _containers(spec) for mount in each.get("volumeMounts") or () if mount["name"] == name]
    is_token = bool(volume.get("secret")) and bool(_TOKEN_SECRET.fullmatch(str(volume["secret"].get("secretName"))))
    return is_token and bool(mounts) and all(mount["mountPath"] == _TOKEN_MOUNT for mount in mounts)


def _containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for field in _CONTAINERS for each in spec.get(field) or ()]


def _service(draft: Draft, _: Surroundings) -> None:
    if draft.spec.get("clusterIP") != "None":
        draft.drop("spec", "clusterIP")
        draft.drop("spec", "clusterIPs")


def drop_node_ports(draft: Draft) -> None:
    """Leave the choice of node ports to the cluster: for a Service whose own ones are taken."""
    draft.drop("spec", "healthCheckNodePort")
    for port in draft.spec.get("ports") or ():
        if port.pop("nodePort", None):
            draft.dropped.append(f"spec.ports.nodePort ({port.get('name') or port.get('port')})")


def _claim(draft: Draft, surroundings: Surroundings) -> None:
    draft.drop_annotations(*_OF_BINDING)
    name = draft.spec.get("volumeName")
    if not name:
        return
    volume = surroundings.volume(name)
    claimed = ((volume or {}).get("spec") or {}).get("claimRef") or {}
    if volume is None or (claimed.get("namespace"), claimed.get("name")) != (draft.namespace, draft.name):
        draft.drop("spec", "volumeName")
        draft.warnings.append(
            f"the data of volume {name} is not in etcd: a new, empty volume is bound instead. Restore the data from the storage's own backup."
        )
    elif claimed.get("uid"):
        draft.warnings.append(
            f"volume {name} still exists with its data, but is bound to the deleted claim: after this claim is created, release the volume with `kubectl patch pv {name} --type json -p "
            """'[{"op":"remove","path":"/spec/claimRef/uid"},{"op":"remove","path":"/spec/claimRef/resourceVersion"}]'`."""
        )


def _volume(draft: Draft, _: Surroundings) -> None:
    draft.drop_annotations("pv.kubernetes.io/bound-by-controller")
    for name in ("uid", "resourceVersion"):
        draft.drop("spec", "claimRef", name)
    if draft.spec.get("persistentVolumeReclaimPolicy") == "Delete":
        draft.warnings.append(
            "its reclaim policy is Delete: the storage behind it may have been deleted with the old volume."
        )


def _job(draft: Draft, _: Surroundings) -> None:
    _clean_templates(draft)
    draft.drop_annotations("batch.kubernetes.io/job-tracking")
    draft.warnings.append("a recreated Job runs from its start.")
    spec = draft.spec
    if spec.get("manualSelector"):
        return
    draft.drop("spec", "selector")
    for path in (("metadata",), ("spec", "template", "metadata")):
        for name in _OF_A_JOB:
            draft.drop(*path, "labels", name)


def _service_account(draft: Draft, _: Surroundings) -> None:
    for field in ("secrets", "imagePullSecrets"):
        listed = draft.manifest.get(field) or []
        made = [each for each in listed if _TOKEN_SECRET.fullmatch(str(each.get("name")))]
        draft.dropped += (f"{field} ({each['name']})" for each in made)
        kept = [each for each in listed if each not in made]
        if kept:
            draft.manifest[field] = kept
        else:
            draft.manifest.pop(field, None)


def _secret(draft: Draft, _: Surroundings) -> None:
    if draft.manifest.get("type") != SERVICE_ACCOUNT_TOKEN:
        return
    draft.drop_annotations("kubernetes.io/service-account.uid")
    for name in ("token", "ca.crt", "namespace"):
        draft.drop("data", name)
    if not draft.manifest.get("data"):
        draft.manifest.pop("data", None)
    draft.warnings.append("the cluster writes a new token into it. Update everything that uses the old token.")


def _namespace(draft: Draft, _: Surroundings) -> None:
    draft.drop("spec", "finalizers")
    if not draft.manifest.get("spec"):
        draft.manifest.pop("spec", None)


def _deployment(draft: Draft, _: Surroundings) -> None:
    _clean_templates(draft)
    draft.drop_annotations("deprecated.daemonset.template.generation", prefix="deployment.kubernetes.io/")


def _templates(draft: Draft, _: Surroundings) -> None:
    _clean_templates(draft)


def _clean_templates(draft: Draft) -> None:
    """Take the empty fields out that old API servers wrote into the templates of pods and claims."""
    for inner in _templates_of(draft.manifest):
        metadata = inner.get("metadata")
        if isinstance(metadata, dict) and metadata.get("creationTimestamp", "") is None:
            del metadata["creationTimestamp"]
        if inner.get("kind") == "PersistentVolumeClaim" and inner.pop("status", None):
            draft.dropped.append("spec.volumeClaimTemplates.status")


def _templates_of(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    spec = manifest.get("spec") or {}
    for holder in (manifest, spec, (spec.get("jobTemplate") or {}).get("spec") or {}):
        if isinstance(holder.get("template"), dict):
            yield holder["template"]
    if isinstance(spec.get("jobTemplate"), dict):
        yield spec["jobTemplate"]
    yield from spec.get("volumeClaimTemplates") or ()


def _cluster_role(draft: Draft, _: Surroundings) -> None:
    if draft.manifest.get("aggregationRule"):
        draft.drop("rules")


def _autoscaler(draft: Draft, _: Surroundings) -> None:
    draft.drop_annotations(
        "autoscaling.alpha.kubernetes.io/conditions", "autoscaling.alpha.kubernetes.io/current-metrics"
    )


def _endpoints(draft: Draft, _: Surroundings) -> None:
    draft.drop_annotations("endpoints.kubernetes.io/last-change-trigger-time")


def _definition(draft: Draft, _: Surroundings) -> None:
    """Say in the words of v1 what only the old version of CRDs could say of all fields at once."""
    spec = draft.spec
    if not spec.get("preserveUnknownFields"):
        return
    draft.drop("spec", "preserveUnknownFields")
    for version in spec.get("versions") or ():
        schema = version.setdefault("schema", {}).setdefault("openAPIV3Schema", {"type": "object"})
        _keep_unknown_fields(schema)
    draft.warnings.append(
        "it kept fields that its schema does not name. v1 has no single setting for that: each object in its schema now has "
        "x-kubernetes-preserve-unknown-fields."
    )


def _keep_unknown_fields(schema: Any) -> None:
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object" and not isinstance(schema.get("additionalProperties"), dict):
        schema["x-kubernetes-preserve-unknown-fields"] = True
    inner = [*(schema.get("properties") or {}).values(), schema.get("additionalProperties"), schema.get("items")]
    for each in inner:
        _keep_unknown_fields(each)


def _webhooks(draft: Draft, _: Surroundings) -> None:
    draft.warnings.append(
        "after that the API server calls it for every matching request: the service behind it must run."
    )


RULES: dict[tuple[str, str], Rule] = {
    ("", "Endpoints"): _endpoints,
    ("", "Namespace"): _namespace,
    ("", "PersistentVolume"): _volume,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "Pod"): _pod,
    ("", "PodTemplate"): _templates,
    ("", "ReplicationController"): _templates,
    ("", "Secret"): _secret,
    ("", "Service"): _service,
    ("", "ServiceAccount"): _service_account,
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): _webhooks,
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): _webhooks,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _definition,
    ("apps", "DaemonSet"): _deployment,
    ("apps", "Deployment"): _deployment,
    ("apps", "ReplicaSet"): _deployment,
    ("apps", "StatefulSet"): _templates,
    ("autoscaling", "HorizontalPodAutoscaler"): _autoscaler,
    ("batch", "CronJob"): _templates,
    ("batch", "Job"): _job,
    ("rbac.authorization.k8s.io", "ClusterRole"): _cluster_role,
}
