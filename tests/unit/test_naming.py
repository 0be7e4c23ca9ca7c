"""Names come from the cluster and the run alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdkeep import naming
from etcdkeep.adapters.stores.object_names import check_name
from etcdkeep.errors import SetNameInvalid

WHEN = datetime(2026, 11, 23, 2, 30, tzinfo=UTC)
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001 - made aware by the strategy
    lambda when: when.replace(microsecond=0)
)


def test_an_id_is_the_same_in_every_try_and_another_for_another_run_or_cluster():
    identifier = naming.backup_id("harbor", WHEN, "scheduled__1")
    assert identifier == naming.backup_id("harbor", WHEN.astimezone(timezone(timedelta(hours=5))), "scheduled__1")
    assert identifier.startswith("20261123T023000Z-")
    assert (
        len(
            {identifier, naming.backup_id("harbor", WHEN, "manual__1"), naming.backup_id("skiff", WHEN, "scheduled__1")}
        )
        == 3
    )


@given(TIMES, TIMES, st.text(max_size=30))
def test_ids_sort_by_time_and_give_it_back(one, other, run_id):
    first, second = (naming.backup_id("harbor", when, run_id) for when in (one, other))
    assert naming.is_backup_id(first)
    assert naming.backup_time(first) == one
    assert (first < second) == (one < other) or one == other


@pytest.mark.parametrize("text", ["20261123T023000Z-1f0c9a3e", "20240229T235959Z-00000000"])
def test_what_is_a_backup_id(text):
    assert naming.is_backup_id(text)


@pytest.mark.parametrize(
    "text",
    ["", ".spool", "attempts", "20261123T023000Z", "20261123T023000Z-1F0C9A3E", "20260231T000000Z-00000000", "20261123T023000Z-1f0c9a3e/..", "٢0261123T023000Z-1f0c9a3e"],
)  # fmt: skip
def test_what_is_none(text):
    assert not naming.is_backup_id(text)


def test_a_set_name_is_split():
    assert naming.parse_set_name("harbor/20261123T023000Z-1f0c9a3e") == ("harbor", "20261123T023000Z-1f0c9a3e")


@pytest.mark.parametrize(
    "name",
    ["harbor", "harbor/", "/20261123T023000Z-1f0c9a3e", "../20261123T023000Z-1f0c9a3e", "harbor/../x", "a/b/20261123T023000Z-1f0c9a3e", "harbor/20261123T023000Z-1f0c9a3e\n"],
)  # fmt: skip
def test_anything_else_is_no_set_name(name):
    with pytest.raises(SetNameInvalid, match="is not a backup name; expected CLUSTER/ID"):
        naming.parse_set_name(name)


def test_every_stored_name_is_one_that_stores_take():
    identifier = naming.backup_id("harbor", WHEN, "run/with ../odd\ncharacters")
    prefix = naming.set_prefix("harbor", identifier)
    names = (
        naming.attempt_name("harbor", identifier),
        naming.verification_name("harbor", identifier, WHEN, "etcd"),
        prefix + naming.control_plane_artifact("cp-1", "cp-0"),
        prefix + naming.ETCD_ARTIFACT,
    )
    for name in names:
        assert check_name(name) == name


def test_verifications_sort_by_time():
    names = [
        naming.verification_name("a", "b", WHEN + timedelta(microseconds=step), "x") for step in (0, 1, 10, 999_999)
    ]
    assert names == sorted(names)


def test_the_node_of_the_snapshot_has_the_plain_name():
    assert naming.control_plane_artifact("cp-0", "cp-0") == "control-plane.tar.zst.age"
    assert naming.control_plane_artifact("cp-1", "cp-0") == "control-plane-cp-1.tar.zst.age"


def test_each_try_has_its_own_file_and_cleanup_knows_them_all():
    paths = [
        naming.pod_snapshot("/tmp/", "id", task, attempt)
        for task in ("snapshot", "copy_out")
        for attempt in range(1, 9)
    ]
    assert len(set(paths)) == 16
    assert all(path.startswith("/tmp/etcdkeep-id-") for path in paths)
    left = naming.pod_leftovers("/tmp", "id")
    assert {*paths, *(f"{path}.part" for path in paths), naming.pod_snapshot("/tmp", "id", "snapshot", 99)} <= set(left)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        pytest.param("10.0.0.1", ("10.0.0.1", 22), id="v4"),
        pytest.param("10.0.0.1:2222", ("10.0.0.1", 2222), id="v4-port"),
        pytest.param("cp-0.example.net:22", ("cp-0.example.net", 22), id="name-port"),
        pytest.param("fd00::1", ("fd00::1", 22), id="v6"),
        pytest.param("::ffff:10.0.0.1", ("::ffff:10.0.0.1", 22), id="v6-of-v4"),
        pytest.param("[fd00::1]", ("fd00::1", 22), id="v6-brackets"),
        pytest.param("[fd00::1]:2222", ("fd00::1", 2222), id="v6-port"),
    ],
)
def test_an_address_is_split(address, expected):
    assert naming.split_address(address, 22) == expected


@pytest.mark.parametrize(
    "address", ["", ":22", "host:", "host:ssh", "host:0", "host:65536", "[fd00::1", "user@host", "a b", "[host]:22"]
)
def test_anything_else_is_no_address(address):
    with pytest.raises(ValueError, match="is not an address"):
        naming.split_address(address, 22)
