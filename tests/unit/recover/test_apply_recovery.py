"""Applying an approved plan: what is written and what is not, and a worker that is killed at any point."""

from __future__ import annotations

import copy

import pytest

from etcdkeep.errors import LiveChanged, NotServed, ObjectRefused, Unreachable
from etcdkeep.recover.applying import apply_plan
from tests.live_api import LiveApi, config_map, definition, named, owned_by
from tests.shop import (
    DEPLOYMENT,
    PASSWORD,
    SETTINGS,
    SETTINGS_PATH,
    SHOP,
    WIDGET,
    WIDGETS,
    live,
)

WIDGET_PATH = "/apis/shop.example.com/v1/namespaces/shop/widgets/gear"
SECRET_PATH = "/api/v1/namespaces/shop/secrets/gear"
NAMESPACE_OF_ALL = (SHOP, SETTINGS, DEPLOYMENT, WIDGETS, WIDGET, PASSWORD)


class Killed(BaseException):
    """The worker is gone."""


def no_pause(seconds):
    """Wait for nothing."""


def applied(api, plan):
    return apply_plan(api, plan, pause=no_pause)


def outcomes(report):
    return {each.label: each.outcome for each in report.objects}


def why(report, label):
    return next(each.why for each in report.objects if each.label == label)


def test_a_deleted_namespace_is_back_whole(plan):
    api = LiveApi()
    report = applied(api, plan(api, *NAMESPACE_OF_ALL))
    assert set(outcomes(report).values()) == {"created"}
    assert api.get(SETTINGS_PATH)["data"] == {"color": "blue"}
    managers = {entry["manager"] for entry in api.get(SETTINGS_PATH)["metadata"]["managedFields"]}
    assert managers == {"etcdkeep"}


def test_what_is_owned_names_its_owner_as_it_lives_now(plan):
    api = LiveApi()
    applied(api, plan(api, *NAMESPACE_OF_ALL))
    (owner,) = api.get(SECRET_PATH)["metadata"]["ownerReferences"]
    assert owner["uid"] == api.get(WIDGET_PATH)["metadata"]["uid"] != WIDGET["metadata"]["uid"]


def test_without_its_owner_it_is_not_made_for_the_garbage_collector(plan):
    api = LiveApi()
    found = plan(api, *NAMESPACE_OF_ALL)

    def refuse(path, dry_run):
        if path == WIDGET_PATH:
            raise ObjectRefused("no")

    api.before_apply = refuse
    report = applied(api, found)
    assert outcomes(report)["Secret shop/gear"] == "refused"
    assert SECRET_PATH not in api.objects
    assert report.failures(found)[0] == "Widget shop/gear: no"


@pytest.mark.parametrize("after", range(6))
def test_a_killed_worker_is_followed_by_one_that_ends_in_the_same_report(plan, after):
    api = LiveApi()
    found = plan(api, *NAMESPACE_OF_ALL)
    undisturbed = applied(copy.deepcopy(api), found)
    seen = []

    def kill(path, dry_run):
        if len(seen) == after:
            raise Killed
        seen.append(path)

    api.before_apply = kill
    with pytest.raises(Killed):
        applied(api, found)
    api.before_apply = lambda path, dry_run: None
    assert applied(api, found) == undisturbed
    assert sorted(api.applied) == sorted(each.path for each in found.objects)
    assert applied(api, found) == undisturbed


def test_a_killed_overwrite_is_the_same_too(plan):
    api = LiveApi(SHOP, live(SETTINGS, data={"color": "red"}))
    found = plan(api, SHOP, SETTINGS, overwrite=True)
    first, second = applied(api, found), applied(api, found)
    assert first == second
    assert outcomes(first) == {"ConfigMap shop/settings": "overwritten"}
    assert api.applied == [SETTINGS_PATH]
    assert api.get(SETTINGS_PATH)["data"] == {"color": "blue"}


def test_passing_trouble_is_passed_on(plan):
    api = LiveApi(SHOP)
    found = plan(api, SHOP, SETTINGS)

    def fail(path, dry_run):
        raise Unreachable("no answer")

    api.before_apply = fail
    with pytest.raises(Unreachable):
        applied(api, found)


def test_what_differs_is_not_touched_without_overwriting(plan):
    api = LiveApi(SHOP, live(SETTINGS, data={"color": "red"}))
    report = applied(api, plan(api, SHOP, SETTINGS))
    assert outcomes(report) == {"ConfigMap shop/settings": "left"}
    assert api.applied == []
    assert api.get(SETTINGS_PATH)["data"] == {"color": "red"}


@pytest.mark.parametrize("data", [{"color": "green"}, {"color": "red", "size": "9"}], ids=["other-value", "more"])
def test_what_was_changed_since_it_was_shown_is_not_overwritten(plan, data):
    api = LiveApi(SHOP, live(SETTINGS, data={"color": "red"}))
    found = plan(api, SHOP, SETTINGS, overwrite=True)
    api.change(SETTINGS_PATH, data=data)
    report = applied(api, found)
    assert outcomes(report) == {"ConfigMap shop/settings": "refused"}
    assert "changed after the plan was made" in why(report, "ConfigMap shop/settings")
    assert api.get(SETTINGS_PATH)["data"] == data
    assert len(report.failures(found)) == 1


def test_a_status_that_moves_on_is_no_change(plan):
    api = LiveApi(SHOP, live(DEPLOYMENT, spec={**DEPLOYMENT["spec"], "replicas": 5}))
    found = plan(api, SHOP, DEPLOYMENT, overwrite=True)
    api.change(api.path(DEPLOYMENT), status={"replicas": 5})
    assert outcomes(applied(api, found)) == {"Deployment shop/web": "overwritten"}
    assert api.get(api.path(DEPLOYMENT))["spec"]["replicas"] == 2


def test_a_change_between_the_last_look_and_the_write_is_met_by_the_precondition(plan):
    api = LiveApi(SHOP, live(SETTINGS, data={"color": "red"}))
    found = plan(api, SHOP, SETTINGS, overwrite=True)
    api.before_apply = lambda path, dry_run: api.change(SETTINGS_PATH, data={"color": "green"})
    assert outcomes(applied(api, found)) == {"ConfigMap shop/settings": "refused"}
    assert api.get(SETTINGS_PATH)["data"] == {"color": "green"}


def test_what_was_deleted_or_made_anew_since_is_not_overwritten(plan):
    api = LiveApi(SHOP, live(SETTINGS, data={"color": "red"}))
    found = plan(api, SHOP, SETTINGS, overwrite=True)
    was = api.objects.pop(SETTINGS_PATH)
    assert outcomes(applied(api, found)) == {"ConfigMap shop/settings": "refused"}
    api.objects[SETTINGS_PATH] = {**was, "metadata": {**was["metadata"], "uid": "another"}}
    assert outcomes(applied(api, found)) == {"ConfigMap shop/settings": "refused"}
    assert api.applied == []


@pytest.mark.parametrize(
    ("data", "outcome"), [({"color": "red"}, "refused"), ({"color": "blue"}, "unchanged")], ids=["other", "same"]
)
def test_what_somebody_made_since_is_not_overwritten(plan, data, outcome):
    api = LiveApi(SHOP)
    found = plan(api, SHOP, SETTINGS)
    api.put(live(SETTINGS, data=data))
    assert outcomes(applied(api, found)) == {"ConfigMap shop/settings": outcome}
    assert api.applied == []


def test_another_recovery_that_made_it_otherwise_since_is_not_overwritten(plan):
    api = LiveApi(SHOP)
    earlier, later = plan(api, SHOP, SETTINGS), plan(api, SHOP, config_map("settings", color="green"))
    applied(api, earlier)
    assert outcomes(applied(api, later)) == {"ConfigMap shop/settings": "refused"}
    assert api.get(SETTINGS_PATH)["data"] == {"color": "blue"}


def test_what_an_earlier_try_made_and_somebody_changed_since_counts_as_made(plan):
    api = LiveApi(SHOP)
    found = plan(api, SHOP, config_map("settings", color="blue", size="9"))
    applied(api, found)
    api.change(SETTINGS_PATH, data={"color": "green", "size": "9"})
    report = applied(api, found)
    assert outcomes(report) == {"ConfigMap shop/settings": "created"}
    assert api.get(SETTINGS_PATH)["data"]["color"] == "green"


def test_the_default_service_account_is_added_to_the_one_that_the_cluster_made(plan):
    account = named("ServiceAccount", "default", "shop", imagePullSecrets=[{"name": "registry"}])
    api = LiveApi()
    found = plan(api, SHOP, account)

    def make(path, dry_run):
        if path.endswith("/namespaces/shop"):
            api.before_apply = lambda path, dry_run: None
            api.put(SHOP)
            api.put(
                named("ServiceAccount", "default", "shop", metadata={"uid": "made-by-the-cluster"}),
                "kube-controller-manager",
            )

    api.before_apply = make
    assert outcomes(applied(api, found))["ServiceAccount shop/default"] == "created"
    assert api.get("/api/v1/namespaces/shop/serviceaccounts/default")["imagePullSecrets"] == [{"name": "registry"}]


@pytest.mark.parametrize(
    ("content", "outcome"),
    [
        pytest.param(named("ServiceAccount", "default", "shop"), "created", id="default-account"),
        pytest.param(SETTINGS, "unchanged", id="same"),
        pytest.param(config_map("settings", color="red"), "refused", id="other"),
    ],
)
def test_what_is_made_in_the_very_moment_is_looked_at_again(plan, content, outcome):
    stored = content if content["kind"] == "ServiceAccount" else SETTINGS
    api = LiveApi(SHOP)
    found = plan(api, SHOP, stored)

    def make(path, dry_run):
        api.before_apply = lambda path, dry_run: None
        api.put(live(content), "kube-controller-manager")
        raise LiveChanged("already exists")

    api.before_apply = make
    assert list(outcomes(applied(api, found)).values()) == [outcome]


def test_one_that_is_refused_leaves_the_others(plan):
    api = LiveApi(SHOP)
    found = plan(api, SHOP, SETTINGS, config_map("other"))

    def refuse(path, dry_run):
        if path == SETTINGS_PATH:
            raise ObjectRefused("denied by quota", by_admission=True)

    api.before_apply = refuse
    report = applied(api, found)
    assert outcomes(report) == {"ConfigMap shop/other": "created", "ConfigMap shop/settings": "refused"}
    assert report.failures(found) == ("ConfigMap shop/settings: denied by quota",)
    assert report.counts == {"created": 1, "refused": 1}


def test_a_kind_of_its_own_is_waited_for(plan):
    api = LiveApi(SHOP)
    found = plan(api, SHOP, WIDGETS, WIDGET)
    waited = []

    def slow(path, dry_run):
        if path == WIDGET_PATH and len(waited) < 3:
            raise NotServed("the server could not find the requested resource")

    api.before_apply = slow
    report = apply_plan(api, found, pause=waited.append)
    assert set(outcomes(report).values()) == {"created"}
    assert waited == [1.0, 1.0, 1.0]


def test_a_kind_that_nobody_defines_is_not_waited_for(plan):
    api = LiveApi(SHOP, WIDGETS)
    found = plan(api, SHOP, WIDGETS, WIDGET)
    del api.objects["/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.shop.example.com"]
    waited = []
    report = apply_plan(api, found, pause=waited.append)
    assert outcomes(report) == {"Widget shop/gear": "refused"}
    assert waited == []


def test_a_definition_that_is_never_established_is_refused(plan):
    api = LiveApi(SHOP)
    found = plan(api, SHOP, definition("widgets", "Widget"), WIDGET)
    get = api.get

    def never(path):
        content = get(path)
        return {**content, "status": {}} if path.startswith("/apis/apiextensions.k8s.io/v1/custom") else content

    api.get = never
    report = applied(api, found)
    assert "does not serve its kind within 60 s" in why(report, "CustomResourceDefinition widgets.shop.example.com")


def test_nothing_is_ever_deleted(plan):
    api = LiveApi(SHOP, config_map("mine", "shop"), live(SETTINGS, data={"color": "red", "size": "9"}))
    before = set(api.objects)
    applied(api, plan(api, *NAMESPACE_OF_ALL, overwrite=True))
    assert before <= set(api.objects)
    assert api.get(SETTINGS_PATH)["data"] == {"color": "blue", "size": "9"}
    assert not hasattr(api, "delete")


def test_a_circle_of_owners_is_refused_not_orphaned(plan):
    one = named("Widget", "one", "shop", "shop.example.com/v1")
    two = named("Widget", "two", "shop", "shop.example.com/v1", metadata=owned_by(one))
    one["metadata"] |= owned_by(two)
    api = LiveApi(SHOP, WIDGETS)
    assert set(outcomes(applied(api, plan(api, SHOP, one, two))).values()) == {"refused"}
