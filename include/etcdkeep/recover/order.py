"""The order in which objects are made: what others need comes first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etcdkeep.objects.resources import built_in
from etcdkeep.recover.draft import group_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from etcdkeep.recover.draft import Draft

_RANKS = (
    ("Namespace",),
    ("CustomResourceDefinition",),
    (
        "PriorityClass",
        "StorageClass",
        "RuntimeClass",
        "IngressClass",
        "VolumeAttributesClass",
        "CSIDriver",
        "DeviceClass",
    ),
    ("ServiceAccount",),
    ("ClusterRole", "Role"),
    ("ClusterRoleBinding", "RoleBinding"),
    ("ResourceQuota", "LimitRange", "NetworkPolicy"),
    ("ConfigMap", "Secret"),
    ("PersistentVolume",),
    ("PersistentVolumeClaim",),
    ("Service",),
    ("Endpoints", "EndpointSlice"),
    ("ReplicationController", "ReplicaSet", "Deployment", "StatefulSet", "DaemonSet", "CronJob", "Job", "Pod"),
    ("HorizontalPodAutoscaler", "PodDisruptionBudget", "Ingress"),
)
"""NetworkPolicies and quotas stand before the pods, so that no pod runs without its limits."""
_LAST = (
    ("APIService",),
    ("ValidatingAdmissionPolicy", "MutatingAdmissionPolicy"),
    ("ValidatingAdmissionPolicyBinding", "MutatingAdmissionPolicyBinding"),
    ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"),
)
"""What may stand in the way of every later request: a webhook whose pods do not run yet."""
_RANK_OF = {kind: rank for rank, kinds in enumerate(_RANKS) for kind in kinds}
_OTHER_BUILT_IN = len(_RANKS)
_CUSTOM = _OTHER_BUILT_IN + 1
_RANK_OF |= {kind: _CUSTOM + 1 + rank for rank, kinds in enumerate(_LAST) for kind in kinds}
BUILT_IN_GROUPS = {each.resource.group for each in built_in().values()} | {"extensions"}


def in_order(drafts: Iterable[Draft]) -> list[Draft]:
    """Return objects in the order to make them in: by kind, and owners before what they own."""
    every = sorted(drafts, key=lambda draft: (rank(draft.manifest), draft.place))
    by_uid = {draft.uid: draft for draft in every if draft.uid}
    done: dict[int, tuple[int, int]] = {}

    def place(draft: Draft, above: frozenset[int]) -> tuple[int, int]:
        """Return rank and depth below owners; a circle of owners, which only a hostile backup has, is cut."""
        if id(draft) not in done:
            owners = (by_uid[uid] for uid in owner_uids(draft.manifest) if uid in by_uid)
            places = [place(owner, above | {id(draft)}) for owner in owners if id(owner) not in above | {id(draft)}]
            own = rank(draft.manifest), 0
            done[id(draft)] = max([own, *((number, depth + 1) for number, depth in places)])
        return done[id(draft)]

    return sorted(every, key=lambda draft: place(draft, frozenset()))


def rank(manifest: Mapping[str, Any]) -> int:
    """Return a kind's place in the order."""
    if group_of(manifest["apiVersion"]) not in BUILT_IN_GROUPS:
        return _CUSTOM
    return _RANK_OF.get(manifest["kind"], _OTHER_BUILT_IN)


def owner_uids(manifest: Mapping[str, Any]) -> list[str]:
    """Return the uids of an object's owners."""
    references = manifest["metadata"].get("ownerReferences")
    return [str(each.get("uid")) for each in references or () if isinstance(each, dict)]
