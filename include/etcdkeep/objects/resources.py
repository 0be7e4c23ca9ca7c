"""
The kinds that Kubernetes itself brings: their names, short names and scope, and what a person may call any kind.

Custom kinds name themselves, by their keys and values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING

from etcdkeep.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

_BUILT_IN = """
configmaps ConfigMap ns cm
endpoints Endpoints ns ep
events Event ns ev
limitranges LimitRange ns limits
namespaces Namespace - ns
nodes Node - no
persistentvolumeclaims PersistentVolumeClaim ns pvc
persistentvolumes PersistentVolume - pv
pods Pod ns po
podtemplates PodTemplate ns
replicationcontrollers ReplicationController ns rc
resourcequotas ResourceQuota ns quota
secrets Secret ns
serviceaccounts ServiceAccount ns sa
services Service ns svc
mutatingadmissionpolicies.admissionregistration.k8s.io MutatingAdmissionPolicy -
mutatingadmissionpolicybindings.admissionregistration.k8s.io MutatingAdmissionPolicyBinding -
mutatingwebhookconfigurations.admissionregistration.k8s.io MutatingWebhookConfiguration -
validatingadmissionpolicies.admissionregistration.k8s.io ValidatingAdmissionPolicy -
validatingadmissionpolicybindings.admissionregistration.k8s.io ValidatingAdmissionPolicyBinding -
validatingwebhookconfigurations.admissionregistration.k8s.io ValidatingWebhookConfiguration -
customresourcedefinitions.apiextensions.k8s.io CustomResourceDefinition - crd crds
apiservices.apiregistration.k8s.io APIService -
controllerrevisions.apps ControllerRevision ns
daemonsets.apps DaemonSet ns ds
deployments.apps Deployment ns deploy
replicasets.apps ReplicaSet ns rs
statefulsets.apps StatefulSet ns sts
horizontalpodautoscalers.autoscaling HorizontalPodAutoscaler ns hpa
cronjobs.batch CronJob ns cj
jobs.batch Job ns
certificatesigningrequests.certificates.k8s.io CertificateSigningRequest - csr
clustertrustbundles.certificates.k8s.io ClusterTrustBundle -
podcertificaterequests.certificates.k8s.io PodCertificateRequest ns
leases.coordination.k8s.io Lease ns
leasecandidates.coordination.k8s.io LeaseCandidate ns
endpointslices.discovery.k8s.io EndpointSlice ns
flowschemas.flowcontrol.apiserver.k8s.io FlowSchema -
prioritylevelconfigurations.flowcontrol.apiserver.k8s.io PriorityLevelConfiguration -
storageversions.internal.apiserver.k8s.io StorageVersion -
ingressclasses.networking.k8s.io IngressClass -
ingresses.networking.k8s.io Ingress ns ing
ipaddresses.networking.k8s.io IPAddress - ip
networkpolicies.networking.k8s.io NetworkPolicy ns netpol
servicecidrs.networking.k8s.io ServiceCIDR -
runtimeclasses.node.k8s.io RuntimeClass -
poddisruptionbudgets.policy PodDisruptionBudget ns pdb
podsecuritypolicies.policy PodSecurityPolicy - psp
clusterrolebindings.rbac.authorization.k8s.io ClusterRoleBinding -
clusterroles.rbac.authorization.k8s.io ClusterRole -
rolebindings.rbac.authorization.k8s.io RoleBinding ns
roles.rbac.authorization.k8s.io Role ns
deviceclasses.resource.k8s.io DeviceClass -
devicetaintrules.resource.k8s.io DeviceTaintRule -
podschedulingcontexts.resource.k8s.io PodSchedulingContext ns
resourceclaims.resource.k8s.io ResourceClaim ns
resourceclaimtemplates.resource.k8s.io ResourceClaimTemplate ns
resourcepoolstatusrequests.resource.k8s.io ResourcePoolStatusRequest -
resourceslices.resource.k8s.io ResourceSlice -
podgroups.scheduling.k8s.io PodGroup ns
priorityclasses.scheduling.k8s.io PriorityClass - pc
workloads.scheduling.k8s.io Workload ns
csidrivers.storage.k8s.io CSIDriver -
csinodes.storage.k8s.io CSINode -
csistoragecapacities.storage.k8s.io CSIStorageCapacity ns
storageclasses.storage.k8s.io StorageClass - sc
volumeattachments.storage.k8s.io VolumeAttachment -
volumeattributesclasses.storage.k8s.io VolumeAttributesClass - vac
storageversionmigrations.storagemigration.k8s.io StorageVersionMigration -
"""
_VERSION = re.compile(r"(?<=[a-z0-9])\.v\d+(?:(?:alpha|beta)\d+)?(?=\.|$)")
"""kubectl takes a version behind the name: ``deployments.v1.apps``, ``pods.v1.``"""
_ALSO_IN = {"events": ("events.k8s.io",)}
"""Groups that show the same stored objects."""


@dataclass(frozen=True, order=True)
class Resource:
    """
    One kind of object, as the API and a person name it.

    :param plural: ``deployments``.
    :param group: ``apps``; empty for the core group.
    :param kind: ``Deployment``; empty where only the key tells of it.
    """

    group: str
    plural: str
    kind: str

    @property
    def names(self) -> tuple[str, str, str]:
        """Group, plural and kind."""
        return self.group, self.plural, self.kind

    @property
    def full_name(self) -> str:
        """``deployments.apps``, ``pods``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


@dataclass(frozen=True)
class BuiltIn:
    """
    A kind of Kubernetes' own.

    :param short_names: As ``kubectl`` takes them.
    """

    resource: Resource
    namespaced: bool
    short_names: tuple[str, ...]


@cache
def built_in() -> dict[str, BuiltIn]:
    """Return the built-in kinds by plural; no two of them share one."""
    return {each.resource.plural: each for each in map(_built_in, _BUILT_IN.split("\n")[1:-1])}


def resolve(term: str, known: Iterable[Resource]) -> tuple[Resource, ...]:
    """
    Say which kind a person means by a kind, plural, singular or short name, alone or with ``.group``, in any case.

    A name that is both of Kubernetes itself and of a custom kind means the former, as in kubectl.

    :param known: The kinds that there are, besides the built-in ones.
    :return: The same kind more than once where it is stored in several groups; never empty.
    :raises NotFound: when there is no such kind, or several of different groups.
    """
    every = {*known, *(each.resource for each in built_in().values())}
    wanted = term.lower()
    matches = {resource for resource in every if wanted in _names(resource)}
    if not matches:
        wanted = _VERSION.sub("", wanted, count=1).rstrip(".")
        matches = {resource for resource in every if wanted in _names(resource)}
    own = {resource for resource in matches if resource.plural in built_in() and _is_built_in(resource)}
    if own and "." not in wanted:
        matches = own
    if not matches:
        near = get_close_matches(wanted, {name for resource in every for name in _names(resource)}, 3)
        raise NotFound(f"the backup or snapshot has no kind {term!r}" + (f"; near: {', '.join(near)}" if near else ""))
    if len({same_objects(resource) for resource in matches}) > 1:
        names = ", ".join(sorted(resource.full_name for resource in matches))
        raise NotFound(f"kind {term!r} is ambiguous; give one of {names}")
    return tuple(sorted(matches))


def _built_in(line: str) -> BuiltIn:
    name, kind, scope, *short_names = line.split()
    plural, _, group = name.partition(".")
    return BuiltIn(Resource(group, plural, kind), scope == "ns", tuple(short_names))


def _names(resource: Resource) -> set[str]:
    known = built_in().get(resource.plural) if _is_built_in(resource) else None
    names = {resource.plural, resource.kind.lower(), *(known.short_names if known else ())} - {""}
    groups = {resource.group, *(_ALSO_IN.get(resource.plural, ()) if known else ())} - {""}
    return names | {f"{name}.{group}".lower() for name in names for group in groups}


def _is_built_in(resource: Resource) -> bool:
    """Whether it is of Kubernetes itself, in whatever group that version stored it (``extensions``, ``policy``)."""
    known = built_in().get(resource.plural)
    return known is not None and (
        resource.group in (known.resource.group, "extensions", *_ALSO_IN.get(resource.plural, ()))
    )


def same_objects(resource: Resource) -> str:
    """Return one name for resources that show the same stored objects: ``events`` and ``events.events.k8s.io``."""
    return resource.plural if _is_built_in(resource) else resource.full_name
