"""The setting `copies`: what is accepted, what is refused with its place, and what holds in a copy."""

from __future__ import annotations

import pytest

from etcdkeep.config.loading import parse_config
from tests.builders import make_cluster, make_entry, make_file


def problems(**settings):
    return parse_config(make_file(make_entry(**settings)), "test").problems


def test_copies_of_every_kind():
    places = ["s3://copies/etcd", "gs://copies/etcd", "file:///srv/copies"]
    cluster = make_cluster(copies=[{"repository": place} for place in places])
    assert [copy.repository for copy in cluster.copies] == places


@pytest.mark.parametrize(
    ("copies", "expected"),
    [
        (["s3://here/etcd"], "copies[0].repository: s3://here/etcd is, or is in, another repository"),
        (["s3://here/etcd/deeper"], "copies[0].repository"),
        (["s3://here"], "copies[0].repository"),
        (["s3://there/x", "s3://there/x/"], "copies[1].repository"),
    ],
)
def test_a_copy_needs_a_place_of_its_own(copies, expected):
    [problem] = problems(repository="s3://here/etcd", copies=[{"repository": each} for each in copies])
    assert expected in problem


def test_a_neighbour_with_a_longer_name_is_another_place():
    assert problems(repository="s3://here/etcd", copies=[{"repository": "s3://here/etcd-copy"}]) == ()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"copies": [{"repository": "file:///srv/copies", "connection": "aws"}]},
            "copies[0].connection: only for buckets",
        ),
        ({"copies": [{"repository": "ftp://copies"}]}, "copies[0].repository: String should match"),
        ({"copies": [{"repository": "s3://copies", "recipients": []}]}, "copies[0].recipients: unknown key"),
        ({"repository": "s3://one/b", "spool": "gs://two/b", "repository_connection": "c"}, "one kind of bucket"),
        ({"repository": "file:///srv/b", "repository_connection": "c"}, "only for buckets (gs://, s3://)"),
    ],
)
def test_mistakes_are_named_at_their_place(settings, expected):
    [problem] = problems(**settings)
    assert expected in problem


def test_what_holds_in_a_copy():
    of_copy = {
        "repository": "s3://copies/etcd",
        "connection": "aws",
        "retention": {"monthly": 24},
        "immutable_days": 90,
    }
    cluster = make_cluster(
        retention={"daily": 7}, immutable_days=30, copies=[of_copy, {"repository": "s3://third/etcd"}]
    )
    own, like_first = (cluster.at_copy(copy) for copy in cluster.copies)
    assert (own.retention.monthly, own.retention.daily, own.immutable_days) == (24, None, 90)
    assert (own.repository, own.repository_connection, own.spool_url) == (
        "s3://copies/etcd",
        "aws",
        "s3://copies/etcd/.spool",
    )
    assert (like_first.retention, like_first.immutable_days) == (cluster.retention, 30)
    assert own.copies == ()
