"""Plans: what is left out, in which order, and what a live object that is there means."""

from __future__ import annotations

import json
import random

import pytest

from etcdkeep.errors import (
    AccessDenied,
    NotApproved,
    NotFound,
    ObjectRefused,
    RequestRefused,
    TransientError,
    ValueDamaged,
    ValueEncrypted,
)
from etcdkeep.objects.labels import parse_selector
from etcdkeep.objects.selection import Selection
from etcdkeep.recover.gather import gather
from etcdkeep.recover.order import in_order
from etcdkeep.recover.plan import parse_plan
from etcdkeep.recover.planning import check_same_cluster
from tests.kubernetes_values import envelope
from tests.live_api import LiveApi, backup_of, config_map, definition, named, owned_by
from tests.shop import DEPLOYMENT, PASSWORD, POD, REPLICAS, SETTINGS, SETTINGS_PATH, SHOP, WIDGET, WIDGETS, live

RBAC = "rbac.authorization.k8s.io/v1"


# --- what is left out --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(named("Event", "e", "shop"), "a past event", id="event"),
        pytest.param(named("Lease", "l", "shop", "coordination.k8s.io/v1"), "a new one", id="lease"),
        pytest.param(config_map("kube-root-ca.crt"), "into every namespace", id="root-certificate"),
        pytest.param(named("Pod", "done", "shop", spec={"containers": []}, status={"phase": "Succeeded"}), "had ended (Succeeded)", id="ended-pod"),
        pytest.param(named("Pod", "etcd-a", "shop", spec={"containers": []}, metadata={"annotations": {"kubernetes.io/config.mirror": "x"}}), "from a file", id="mirror-pod"),
        pytest.param(
            named("Job", "j", "shop", "batch/v1", status={"conditions": [{"type": "Failed", "status": "True"}]}),
            "had ended (Failed), and would run again", id="ended-job",
        ),
        pytest.param(named("Endpoints", "e", "shop", metadata={"labels": {"endpoints.kubernetes.io/managed-by": "x"}}), "with its Service", id="endpoints"),
        pytest.param(
            named("EndpointSlice", "s", "shop", "discovery.k8s.io/v1", metadata={"labels": {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}}),
            "with its Service", id="slice",
        ),
        pytest.param(config_map("a") | {"metadata": {"name": "a", "namespace": "shop", "deletionTimestamp": "x"}}, "being deleted when", id="deleted"),
    ],
)  # fmt: skip
def test_left_out_unless_it_is_wanted_all_the_same(plan, content, why):
    api = LiveApi(SHOP)
    (found,) = plan(api, SHOP, content).objects
    assert found.action == "skip"
    assert why in found.why
    (found,) = plan(api, SHOP, content, include_left_out=True).objects
    assert found.action == "create"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(named("Pod", "alone", "shop", spec={"containers": []}, status={"phase": "Running"}), id="pod-without-owner"),
        pytest.param(named("Endpoints", "outside", "shop", subsets=[]), id="endpoints-by-hand"),
        pytest.param(named("EndpointSlice", "s", "shop", "discovery.k8s.io/v1", metadata={"labels": {"endpointslice.kubernetes.io/managed-by": "me"}}), id="slice-by-hand"),
        pytest.param(named("Job", "j", "shop", "batch/v1", spec={}, status={"conditions": [{"type": "Complete", "status": "False"}]}), id="running-job"),
    ],
)  # fmt: skip
def test_not_left_out(plan, content):
    (found,) = plan(LiveApi(SHOP), SHOP, content).objects
    assert found.action == "create"


def test_pods_of_a_deployment_are_made_by_it(plan, actions, one):
    found = plan(LiveApi(SHOP), SHOP, DEPLOYMENT, REPLICAS, POD)
    assert actions(found) == {
        "Deployment shop/web": "create",
        "ReplicaSet shop/web-1": "skip",
        "Pod shop/web-1-a": "skip",
    }
    assert one(found, "Pod shop/web-1-a").why == "ReplicaSet web-1 makes it"


def test_pods_alone_are_left_to_a_replica_set_that_lives_made_anew(plan):
    api = LiveApi(SHOP, live(REPLICAS))
    (found,) = plan(api, SHOP, REPLICAS, POD, selection=Selection(("shop",), ("pods",))).objects
    assert (found.action, found.why) == ("skip", "ReplicaSet web-1 makes it")


def test_pods_whose_owner_is_nowhere_come_back_alone(plan):
    (found,) = plan(LiveApi(SHOP), SHOP, POD, selection=Selection(("shop",), ("pods",))).objects
    assert found.action == "create"
    assert "metadata.ownerReferences (ReplicaSet web-1)" in found.dropped


def test_what_a_custom_resource_owns_comes_back_behind_it(plan, actions):
    found = plan(LiveApi(SHOP), SHOP, PASSWORD, WIDGET, WIDGETS)
    assert list(actions(found)) == [
        "CustomResourceDefinition widgets.shop.example.com",
        "Widget shop/gear",
        "Secret shop/gear",
    ]


# --- what else is needed -----------------------------------------------------------------------------------------


def test_namespace_and_definition_come_along_when_they_are_gone(plan, actions):
    assert actions(plan(LiveApi(), SHOP, WIDGETS, WIDGET)) == {
        "Namespace shop": "create",
        "CustomResourceDefinition widgets.shop.example.com": "create",
        "Widget shop/gear": "create",
    }


def test_namespace_and_definition_that_live_are_not_touched(plan, actions):
    assert actions(plan(LiveApi(SHOP, WIDGETS), SHOP, WIDGETS, WIDGET)) == {"Widget shop/gear": "create"}


def test_a_namespace_that_is_nowhere_is_told(plan):
    (found,) = plan(LiveApi(), SETTINGS).objects
    assert (found.action, found.why) == ("refuse", "namespace shop exists neither in the cluster nor in the backup.")


def test_a_namespace_on_its_way_out_is_waited_for(plan):
    going = named("Namespace", "shop", metadata={"deletionTimestamp": "2026-11-23T09:00:00Z"})
    with pytest.raises(TransientError, match="namespace shop is being deleted"):
        plan(LiveApi(going), SHOP, SETTINGS)


def test_everything_is_no_recovery():
    with (
        backup_of(SETTINGS) as source,
        pytest.raises(RequestRefused, match="give a namespace, kinds, labels or a name"),
    ):
        gather(source, Selection())


def test_nothing_found_is_told():
    with backup_of(SETTINGS) as source, pytest.raises(RequestRefused, match="holds none of the selected objects"):
        gather(source, Selection(("elsewhere",)))


def test_selectors_go_together(plan, actions):
    labelled = named("ConfigMap", "web-a", "shop", metadata={"labels": {"app": "web"}})
    other = named("ConfigMap", "web-b", "shop", metadata={"labels": {"app": "db"}})
    chosen = Selection(("shop",), ("cm",), "web-*", parse_selector("app=web"))
    assert actions(plan(LiveApi(SHOP), SHOP, labelled, other, SETTINGS, selection=chosen)) == {
        "ConfigMap shop/web-a": "create"
    }


def test_what_cannot_be_read_is_told_and_the_rest_goes_on():
    encrypted = {b"/registry/secrets/shop/db": b"k8s:enc:aescbc:v1:key1:sealed"}
    with backup_of(SHOP, SETTINGS, values=encrypted) as source:
        found = gather(source, Selection(("shop",)))
    assert [draft.label for draft in found.drafts] == ["ConfigMap shop/settings", "Namespace shop"]
    assert [type(err) for err in found.failures] == [ValueEncrypted]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(named("Pod", "odd", "shop", spec={"containers": ["x"], "volumes": [{"name": "v"}]}), id="spec"),
        pytest.param(named("ServiceAccount", "odd", "shop", secrets=["x"]), id="list"),
    ],
)
def test_what_is_not_shaped_like_its_kind_is_refused_alone(plan, actions, content):
    found = plan(LiveApi(SHOP), SHOP, content, SETTINGS)
    assert actions(found)["ConfigMap shop/settings"] == "create"
    assert actions(found)[f"{content['kind']} shop/odd"] == "refuse"


def test_metadata_that_is_not_shaped_like_any_is_told():
    odd = named("ConfigMap", "odd", "shop", metadata={"ownerReferences": ["x"]})
    with backup_of(odd) as source:
        found = gather(source, Selection(("shop",)))
    assert (found.drafts, [type(err) for err in found.failures]) == ([], [ValueDamaged])


def test_a_kind_that_is_not_known_here_is_told():
    unknown = envelope("apps/v9", "Deployment", b"\x0a\x07\x0a\x05later")
    with backup_of(SETTINGS, values={b"/registry/deployments/shop/later": unknown}) as source:
        found = gather(source, Selection(("shop",)))
    assert [draft.label for draft in found.drafts] == ["ConfigMap shop/settings"]
    assert "its kind is unknown here" in str(found.failures[0])


def test_a_definition_that_cannot_be_read_is_told():
    key = b"/registry/apiextensions.k8s.io/customresourcedefinitions/widgets.shop.example.com"
    with backup_of(SHOP, WIDGET, values={key: b"{}"}) as source:
        found = gather(source, Selection(("shop",)))
    assert [draft.label for draft in found.drafts] == ["Widget shop/gear", "Namespace shop"]
    assert [type(err) for err in found.failures] == [ValueDamaged]


# --- order -------------------------------------------------------------------------------------------------------


def test_order(plan):
    kinds = [
        named("Pod", "p", "shop", spec={"containers": []}),
        named("ValidatingWebhookConfiguration", "v", api_version="admissionregistration.k8s.io/v1"),
        named("APIService", "v1.x", api_version="apiregistration.k8s.io/v1", spec={}),
        WIDGET,
        named("Ingress", "i", "shop", "networking.k8s.io/v1", spec={}),
        DEPLOYMENT,
        named("Endpoints", "s", "shop"),
        named("Service", "s", "shop", spec={}),
        named("PersistentVolumeClaim", "c", "shop", spec={}),
        named("PersistentVolume", "c", spec={}),
        named("Secret", "s", "shop"),
        SETTINGS,
        named("NetworkPolicy", "n", "shop", "networking.k8s.io/v1", spec={}),
        named("RoleBinding", "r", "shop", RBAC),
        named("Role", "r", "shop", RBAC),
        named("ServiceAccount", "s", "shop"),
        named("StorageClass", "s", api_version="storage.k8s.io/v1"),
        WIDGETS,
        SHOP,
    ]
    with backup_of(*kinds) as source:
        drafts = gather(source, Selection(name="*")).drafts
    random.Random(7).shuffle(drafts)
    assert [draft.kind for draft in in_order(drafts) if draft.name != "kube-system"] == [
        "Namespace", "CustomResourceDefinition", "StorageClass", "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy",
        "ConfigMap", "Secret", "PersistentVolume", "PersistentVolumeClaim", "Service", "Endpoints", "Deployment", "Pod",
        "Ingress", "Widget", "APIService", "ValidatingWebhookConfiguration",
    ]  # fmt: skip


def test_owners_in_a_circle_do_not_hang(plan, actions):
    one = named("Widget", "one", "shop", "shop.example.com/v1", metadata={"uid": "uid-widget-one"})
    two = named("Widget", "two", "shop", "shop.example.com/v1", metadata=owned_by(one))
    one["metadata"] |= owned_by(two)
    assert set(actions(plan(LiveApi(SHOP, WIDGETS), SHOP, one, two))) == {"Widget shop/one", "Widget shop/two"}


# --- against what lives ------------------------------------------------------------------------------------------


def test_what_is_gone_is_made_anew_and_tried_before(plan, one):
    api = LiveApi(SHOP)
    found = one(plan(api, SHOP, SETTINGS), "ConfigMap shop/settings")
    assert (found.action, found.checked, api.applied) == ("create", "here", [])
    assert json.loads(found.manifest) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings", "namespace": "shop"},
        "data": {"color": "blue"},
    }


def test_without_its_namespace_it_is_tried_in_another(plan, one):
    tried = []
    api = LiveApi()
    api.before_apply = lambda path, dry_run: tried.append((path, dry_run))
    found = plan(api, SHOP, SETTINGS)
    assert one(found, "ConfigMap shop/settings").checked == "elsewhere"
    assert ("/api/v1/namespaces/default/configmaps/settings", True) in tried
    assert api.applied == []


def test_invalid_elsewhere_is_invalid(plan, one):
    api = LiveApi()

    def refuse(path, dry_run):
        if "configmaps" in path:
            raise ObjectRefused("data: Invalid value", fields=("data",))

    api.before_apply = refuse
    found = one(plan(api, SHOP, SETTINGS), "ConfigMap shop/settings")
    assert (found.action, found.why) == ("refuse", "data: Invalid value")


def test_denied_elsewhere_is_only_a_warning(plan, one):
    api = LiveApi()

    def deny(path, dry_run):
        if "configmaps" in path:
            raise ObjectRefused("denied by quota", by_admission=True)

    api.before_apply = deny
    found = one(plan(api, SHOP, SETTINGS), "ConfigMap shop/settings")
    assert (found.action, found.checked) == ("create", "")
    assert "denied by quota" in found.warnings[0]


def test_what_is_the_same_is_unchanged(plan, one):
    api = LiveApi(SHOP, live(SETTINGS))
    assert one(plan(api, SHOP, SETTINGS), "ConfigMap shop/settings").action == "unchanged"


@pytest.mark.parametrize(("overwrite", "action"), [(False, "leave"), (True, "overwrite")])
def test_what_differs_is_left_unless_overwriting_is_wanted(plan, one, overwrite, action):
    api = LiveApi(SHOP, live(SETTINGS, data={"color": "red"}))
    found = one(plan(api, SHOP, SETTINGS, overwrite=overwrite), "ConfigMap shop/settings")
    assert (found.action, found.why) == (action, "it was changed by kubectl")
    assert "-  color: red\n+  color: blue" in found.diff
    assert found.live_uid == "alive"
    assert found.live_digest != found.result_digest


def test_what_only_the_live_one_has_is_named_and_stays(plan, one):
    api = LiveApi(SHOP, live(SETTINGS, data={"color": "blue", "size": "9"}))
    found = one(plan(api, SHOP, SETTINGS, overwrite=True), "ConfigMap shop/settings")
    assert (found.action, found.stays) == ("leave", ("data.size",))


def test_no_value_of_a_secret_is_shown(plan, one):
    stored = named(
        "Secret", "db", "shop", type="Opaque", data={"password": "Y2FuYXJ5LW9sZA==", "user": "Y2FuYXJ5LXVzZXI="}
    )
    stored["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "canary-old"}
    now = live(stored, data={"password": "Y2FuYXJ5LW5ldw==", "user": "Y2FuYXJ5LXVzZXI="})
    found = one(plan(LiveApi(SHOP, now), SHOP, stored, overwrite=True), "Secret shop/db")
    assert found.action == "overwrite"
    assert "password" in found.diff
    assert "canary" not in found.diff
    assert "Y2FuYXJ5" not in found.diff


def test_refusals_of_a_secret_do_not_repeat_its_values(plan, one):
    api = LiveApi(SHOP)

    def refuse(path, dry_run):
        if "secrets" in path:
            raise ObjectRefused('data: Invalid value: "canary"', fields=("data",))

    api.before_apply = refuse
    found = one(plan(api, SHOP, named("Secret", "db", "shop", data={"a": "Y2FuYXJ5"})), "Secret shop/db")
    assert found.action == "refuse"
    assert "canary" not in found.why
    assert "(data)" in found.why


def test_what_is_being_deleted_is_refused(plan, one):
    going = live(SETTINGS)
    going["metadata"]["deletionTimestamp"] = "2026-11-23T09:00:00Z"
    found = one(plan(LiveApi(SHOP, going), SHOP, SETTINGS), "ConfigMap shop/settings")
    assert (found.action, "being deleted" in found.why) == ("refuse", True)


@pytest.mark.parametrize(
    "error", [AccessDenied("no"), ObjectRefused("no"), NotFound("no")], ids=lambda each: type(each).__name__
)
def test_what_the_api_refuses_is_refused_alone(plan, actions, error):
    api = LiveApi(SHOP)

    def refuse(path, dry_run):
        if path.endswith("/settings"):
            raise error

    api.before_apply = refuse
    found = plan(api, SHOP, SETTINGS, config_map("other"))
    assert actions(found) == {"ConfigMap shop/other": "create", "ConfigMap shop/settings": "refuse"}


def test_node_ports_that_are_taken_are_left_to_the_cluster(plan, one):
    service = named("Service", "web", "shop", spec={"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]})
    taken = named("Service", "thief", "default", spec={"ports": [{"port": 80, "nodePort": 30080}]})
    free = one(plan(LiveApi(SHOP), SHOP, service), "Service shop/web")
    assert json.loads(free.manifest)["spec"]["ports"] == [{"port": 80, "nodePort": 30080}]
    found = one(plan(LiveApi(SHOP, taken), SHOP, service), "Service shop/web")
    assert (found.action, found.checked) == ("create", "here")
    assert json.loads(found.manifest)["spec"]["ports"] == [{"port": 80}]
    assert "in use now" in found.warnings[0]


# --- versions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("api_version", "kind", "action", "said"),
    [
        pytest.param("autoscaling/v2beta2", "HorizontalPodAutoscaler", "create", "applied as autoscaling/v2", id="same-fields"),
        pytest.param("networking.k8s.io/v1beta1", "Ingress", "refuse", "has other fields", id="other-fields"),
        pytest.param("policy/v1beta1", "PodSecurityPolicy", "refuse", "does not serve policy/v1beta1 PodSecurityPolicy", id="gone"),
        pytest.param("example.org/v1", "Gone", "refuse", "does not serve example.org/v1 Gone", id="no-definition"),
    ],
)  # fmt: skip
def test_versions_that_are_not_served_any_more(plan, api_version, kind, action, said):
    content = named(kind, "old", "shop", api_version, spec={})
    (found,) = plan(LiveApi(SHOP), SHOP, content).objects
    assert found.action == action
    assert said in "".join((found.why, *found.warnings))


@pytest.mark.parametrize(("strategy", "action"), [("None", "create"), ("Webhook", "refuse")])
def test_a_custom_kind_is_converted_only_where_the_api_server_does_no_more(plan, strategy, action):
    new = definition("widgets", "Widget", conversion={"strategy": strategy})
    old = named("Widget", "gear", "shop", "shop.example.com/v1alpha1", spec={"size": 3})
    (found,) = plan(LiveApi(SHOP, new), SHOP, old).objects
    assert found.action == action
    assert found.api_version == ("shop.example.com/v1" if action == "create" else "shop.example.com/v1alpha1")


# --- the plan itself ---------------------------------------------------------------------------------------------


def test_the_same_state_gives_the_same_plan_and_another_one_another(plan):
    api = LiveApi(SHOP, live(SETTINGS, data={"color": "red"}))
    first, second = (plan(api, SHOP, SETTINGS, overwrite=True) for _ in range(2))
    assert first.digest == second.digest
    assert parse_plan(first.to_bytes(), first.digest) == first
    api.change(SETTINGS_PATH, data={"color": "green"})
    assert plan(api, SHOP, SETTINGS, overwrite=True).digest != first.digest


def test_a_plan_that_was_altered_is_not_read(plan):
    found = plan(LiveApi(SHOP), SHOP, SETTINGS)
    with pytest.raises(NotApproved, match="nothing was applied"):
        parse_plan(found.to_bytes().replace(b"blue", b"pink"), found.digest)


def test_a_backup_of_another_cluster_is_refused():
    api = LiveApi()
    with backup_of(SETTINGS) as source:
        check_same_cluster(api, source)
        api.objects["/api/v1/namespaces/kube-system"]["metadata"]["uid"] = "another"
        with pytest.raises(RequestRefused, match="belongs to another cluster"):
            check_same_cluster(api, source)
