"""The kinds that the API serves, and where each is in etcd."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


@dataclass(frozen=True)
class Resource:
    """
    One resource of the API.

    :param prefix: Where its objects are in etcd, ending in ``/``.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    prefix: str
    short: tuple[str, ...] = ()
    singular: str = ""
    list_kind: str = ""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """As error messages name it: ``deployments.apps``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def custom(self) -> bool:
        return self.singular != ""

    def key(self, namespace: str, name: str = "") -> str:
        """Return the etcd key of an object, or the prefix of all when `name` is empty."""
        return self.prefix + (f"{namespace}/" if self.namespaced and namespace else "") + name


_TABLE = """
v1 bindings Binding ns
v1 configmaps ConfigMap ns cm
v1 endpoints Endpoints ns ep
v1 events Event ns ev
v1 limitranges LimitRange ns limits
v1 namespaces Namespace - ns
v1 nodes Node - no
v1 persistentvolumeclaims PersistentVolumeClaim ns pvc
v1 persistentvolumes PersistentVolume - pv
v1 pods Pod ns po
v1 podtemplates PodTemplate ns
v1 replicationcontrollers ReplicationController ns rc
v1 resourcequotas ResourceQuota ns quota
v1 secrets Secret ns
v1 serviceaccounts ServiceAccount ns sa
v1 services Service ns svc
admissionregistration.k8s.io/v1 mutatingwebhookconfigurations MutatingWebhookConfiguration -
admissionregistration.k8s.io/v1 validatingadmissionpolicies ValidatingAdmissionPolicy -
admissionregistration.k8s.io/v1 validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding -
admissionregistration.k8s.io/v1 validatingwebhookconfigurations ValidatingWebhookConfiguration -
apiextensions.k8s.io/v1 customresourcedefinitions CustomResourceDefinition - crd,crds
apiregistration.k8s.io/v1 apiservices APIService -
apps/v1 controllerrevisions ControllerRevision ns
apps/v1 daemonsets DaemonSet ns ds
apps/v1 deployments Deployment ns deploy
apps/v1 replicasets ReplicaSet ns rs
apps/v1 statefulsets StatefulSet ns sts
autoscaling/v2 horizontalpodautoscalers HorizontalPodAutoscaler ns hpa
batch/v1 cronjobs CronJob ns cj
batch/v1 jobs Job ns
certificates.k8s.io/v1 certificatesigningrequests CertificateSigningRequest - csr
coordination.k8s.io/v1 leases Lease ns
discovery.k8s.io/v1 endpointslices EndpointSlice ns
flowcontrol.apiserver.k8s.io/v1 flowschemas FlowSchema -
flowcontrol.apiserver.k8s.io/v1 prioritylevelconfigurations PriorityLevelConfiguration -
networking.k8s.io/v1 ingressclasses IngressClass -
networking.k8s.io/v1 ingresses Ingress ns ing
networking.k8s.io/v1 networkpolicies NetworkPolicy ns netpol
node.k8s.io/v1 runtimeclasses RuntimeClass -
policy/v1 poddisruptionbudgets PodDisruptionBudget ns pdb
rbac.authorization.k8s.io/v1 clusterrolebindings ClusterRoleBinding -
rbac.authorization.k8s.io/v1 clusterroles ClusterRole -
rbac.authorization.k8s.io/v1 rolebindings RoleBinding ns
rbac.authorization.k8s.io/v1 roles Role ns
scheduling.k8s.io/v1 priorityclasses PriorityClass - pc
storage.k8s.io/v1 csidrivers CSIDriver -
storage.k8s.io/v1 csinodes CSINode -
storage.k8s.io/v1 storageclasses StorageClass - sc
storage.k8s.io/v1 volumeattachments VolumeAttachment -
"""
_PLACES = {
    "nodes": "minions",
    "services": "services/specs",
    "endpoints": "services/endpoints",
    "replicationcontrollers": "controllers",
    "ingresses": "ingress",
    "customresourcedefinitions": "apiextensions.k8s.io/customresourcedefinitions",
    "apiservices": "apiregistration.k8s.io/apiservices",
}
"""Where the key differs from the plural name; as Kubernetes has it."""

SCALABLE = ("deployments", "replicasets", "statefulsets", "replicationcontrollers")


def _built_in(line: str) -> Resource:
    api_version, plural, kind, scope, *short = line.split()
    group, _, version = api_version.rpartition("/")
    place = f"/registry/{_PLACES.get(plural, plural)}/"
    names = tuple(short[0].split(",")) if short else ()
    return Resource(group, version, plural, kind, scope == "ns", place, names)


BUILT_IN = tuple(_built_in(line) for line in _TABLE.strip().splitlines() if " bindings " not in line)
CRDS = next(resource for resource in BUILT_IN if resource.kind == "CustomResourceDefinition")


def custom_resources(definitions: Iterable[dict[str, Any]]) -> list[Resource]:
    """Return the resources that CustomResourceDefinitions declare."""
    resources = []
    for definition in definitions:
        spec = definition["spec"]
        names = spec["names"]
        singular = names.get("singular") or names["kind"].lower()
        prefix = f"/registry/{spec['group']}/{names['plural']}/"
        short = tuple(names.get("shortNames", ()))
        resources += [
            Resource(
                spec["group"], version["name"], names["plural"], names["kind"], spec["scope"] == "Namespaced", prefix,
                short, singular, names.get("listKind", ""),
            )
            for version in spec["versions"]
            if version.get("served", True)
        ]  # fmt: skip
    return resources
