"""A snapshot against a running cluster: what is read of its API, and what counts as a difference."""

from __future__ import annotations

import copy
import tempfile

import pytest

from etcdkeep.errors import AccessDenied
from etcdkeep.objects.decoding.decode import decode
from etcdkeep.objects.entries import entries
from etcdkeep.objects.labels import parse_selector
from etcdkeep.objects.live_cluster import LiveCluster, served_kinds
from etcdkeep.objects.selection import Selection, select
from etcdkeep.snapshot import open_snapshot
from tests.object_snapshots import recorded_snapshot
from tests.objects_api import AGGREGATED, ObjectsApi, recorded_objects

EVERYTHING = Selection()


def changes(api, selection=EVERYTHING):
    with tempfile.TemporaryFile() as file:
        file.write(recorded_snapshot())
        file.flush()
        with open_snapshot(file.fileno()) as snapshot:

            def decoded(entry):
                value = snapshot.value_at(entry.value_start, entry.size_bytes)
                return decode(entry.key_bytes, value, mod_revision=entry.revision).json

            live = LiveCluster(api, decoded)
            stored = select(entries(snapshot), selection)
            found = [
                (each.what, each.resource.full_name, each.namespace, each.name)
                for each in live.compare(served_kinds(api), stored, selection)
                if each.name != AGGREGATED
            ]
            return found, live


def test_cluster_that_is_as_it_was_has_no_change():
    found, live = changes(ObjectsApi(recorded_objects()))
    assert (found, live.notices, live.failures) == ([], [], [])


def named(objects, kind):
    return next(each for _, each in objects if each["kind"] == kind)


def test_every_kind_of_change():
    objects = recorded_objects()
    changed, recreated, removed, rewritten = (
        named(objects, kind) for kind in ("Node", "Deployment", "Ingress", "CronJob")
    )
    changed["metadata"]["labels"]["new"] = "label"
    changed["metadata"]["resourceVersion"] = "9999"
    recreated["metadata"]["uid"] = "another"
    rewritten["metadata"]["resourceVersion"] = "9999"
    added = copy.deepcopy(named(objects, "ServiceAccount"))
    added["metadata"] |= {"name": "new", "namespace": "shop"}
    key = next(key for key, each in objects if each["kind"] == "ServiceAccount")
    found, _ = changes(ObjectsApi([*((k, each) for k, each in objects if each is not removed), (key, added)]))
    assert sorted(found) == sorted([
        ("changed", "nodes", "", changed["metadata"]["name"]),
        ("recreated", "deployments.apps", "shop", recreated["metadata"]["name"]),
        ("removed", "ingresses.networking.k8s.io", "shop", removed["metadata"]["name"]),
        ("added", "serviceaccounts", "shop", "new"),
    ])  # fmt: skip


def test_same_revision_of_another_timeline_is_a_change():
    objects = recorded_objects()
    node = named(objects, "Node")
    node["spec"]["unschedulable"] = True
    node["metadata"]["managedFields"][0]["time"] = "2027-01-01T00:00:00Z"
    found, _ = changes(ObjectsApi(objects))
    assert found == [("changed", "nodes", "", node["metadata"]["name"])]


def test_kind_that_may_not_be_listed_is_told_and_not_taken_for_removed():
    api = ObjectsApi(recorded_objects())
    api.refused.add("/api/v1/pods")
    found, live = changes(api)
    assert found == []
    assert [type(each) for each in live.failures] == [AccessDenied]


def test_kind_that_is_served_no_more_is_removed():
    objects = [(key, each) for key, each in recorded_objects() if each["kind"] != "Cluster"]
    found, live = changes(ObjectsApi(objects))
    assert {(what, kind) for what, kind, _, _ in found} == {("removed", "clusters.cluster.k8s.io")}
    assert live.notices == ["clusters.cluster.k8s.io: the cluster does not serve this kind"]


@pytest.mark.parametrize(("label", "expected"), [("new=yes", 1), ("new=no", 0)])
def test_added_objects_are_chosen_by_their_labels(label, expected):
    objects = recorded_objects()
    key, account = next((key, each) for key, each in objects if each["kind"] == "ServiceAccount")
    added = copy.deepcopy(account)
    added["metadata"] |= {"name": "new", "labels": {"new": "yes"}}
    selection = Selection(labels=parse_selector(label))
    found, _ = changes(ObjectsApi([*objects, (key, added)]), selection)
    assert len(found) == expected
