"""Bringing the snapshot out: whole and as etcd wrote it, or not at all."""

from __future__ import annotations

import hashlib
from io import BytesIO
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdkeep import naming
from etcdkeep.backup.copy_out import checked, container_process_argv, parse_container_process
from etcdkeep.errors import (
    AccessDenied,
    CommandFailed,
    MembersUnfit,
    NotFound,
    SnapshotDamaged,
    StreamCut,
    StreamStalled,
    Unreachable,
)
from etcdkeep.sealing.digest import Hasher
from etcdkeep.sealing.seal import unseal
from tests.builders import BACKUP_ID

CUT = StreamCut("no exit status received")
STALLED = StreamStalled("no byte for 30 s")
FIRST = "cat /tmp/etcdkeep"
IMAGE = bytes(range(256)) * 4
WHOLE = IMAGE + hashlib.sha256(IMAGE).digest()


def chunks(data, *cuts):
    edges = sorted({0, *(cut % (len(data) + 1) for cut in cuts), len(data)})
    return [data[start:end] for start, end in pairwise(edges)]


def opened(site):
    """Return the plaintext of the sealed snapshot in the spool."""
    spool, plain = site.spool(BACKUP_ID), BytesIO()
    with spool.store.open(spool.prefix + naming.ETCD_ARTIFACT) as stored:
        unseal(stored, plain, site.identities(), size_limit=2**30)
    return plain.getvalue()


@given(st.lists(st.integers(min_value=0), max_size=6))
def test_a_sound_stream_passes_unchanged_however_it_is_chunked(cuts):
    assert b"".join(checked(chunks(WHOLE, *cuts), len(IMAGE), "pod", Hasher())) == WHOLE


@given(st.integers(0, len(WHOLE) - 1), st.integers(min_value=0))
def test_a_stream_cut_at_any_byte_is_told(length, cut):
    with pytest.raises(StreamCut, match=f"{length} of {len(WHOLE)} bytes arrived"):
        list(checked(chunks(WHOLE[:length], cut), len(IMAGE), "pod", Hasher()))


@given(st.binary(min_size=1, max_size=100), st.integers(min_value=0))
def test_a_longer_stream_is_given_up(more, cut):
    with pytest.raises(SnapshotDamaged, match="more than the 1056 bytes"):
        list(checked(chunks(WHOLE + more, cut), len(IMAGE), "pod", Hasher()))


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255), st.integers(min_value=0))
def test_one_altered_byte_anywhere_is_seen(position, flip, cut):
    data = bytearray(WHOLE)
    data[position] ^= flip
    with pytest.raises(SnapshotDamaged, match="bytes were altered in the pod or on the way"):
        list(checked(chunks(bytes(data), cut), len(IMAGE), "pod", Hasher()))


def test_an_empty_image_is_a_stream_like_any_other():
    assert b"".join(checked([hashlib.sha256(b"").digest()], 0, "pod", Hasher())) == hashlib.sha256(b"").digest()


def test_the_copy_is_sealed_whole(site):
    discovery = site.discover()
    copied = site.copy_out(discovery, site.save(discovery))
    assert opened(site) == site.members[0].database
    assert copied.artifact.plaintext.sha256 == hashlib.sha256(site.members[0].database).hexdigest()
    assert copied.artifact.recipients == site.cluster.age_recipients


def test_a_second_call_copies_nothing_and_answers_the_same(site):
    discovery = site.discover()
    saved = site.save(discovery)
    copied = site.copy_out(discovery, saved)
    site.kube.calls.clear()
    assert site.copy_out(discovery, saved, attempt=2) == copied
    assert site.kube.calls == []


TROUBLE = [
    pytest.param({"error": CUT}, id="cut-at-once"),
    pytest.param({"error": CUT, "after": 5000}, id="cut-midway"),
    pytest.param({"error": STALLED, "after": 5000}, id="stalled"),
    pytest.param({"error": Unreachable("503")}, id="unreachable"),
    pytest.param({"transform": lambda data: data[:-1]}, id="one-byte-short"),
    pytest.param({"transform": lambda data: data + b"\0"}, id="one-byte-long"),
    pytest.param({"transform": lambda data: data[:9] + b"?" + data[10:]}, id="altered"),
    pytest.param({"transform": lambda data: data.replace(b"\xff", b"?")}, id="decoded-as-text"),
]


@pytest.mark.parametrize("fault", TROUBLE)
@pytest.mark.parametrize("count", [1, 3])
def test_once_trouble_another_snapshot_is_taken_elsewhere_where_there_is_one(make_site, fault, count):
    site = make_site(count)
    discovery = site.discover()
    saved = site.save(discovery)
    site.kube.faults.add(FIRST, **fault)
    copied = site.copy_out(discovery, saved)
    assert opened(site) == site.members[0].database
    assert copied.saved.path != saved.path
    assert copied.saved.pod == ("etcd-cp-2" if count == 3 else saved.pod)


@pytest.mark.parametrize("fault", TROUBLE)
def test_twice_trouble_is_told_and_leaves_no_artifact(site, fault):
    discovery = site.discover()
    saved = site.save(discovery)
    site.kube.faults.add(FIRST, at=0, **fault)
    with pytest.raises((StreamCut, StreamStalled, Unreachable, SnapshotDamaged)):
        site.copy_out(discovery, saved)
    assert list(site.spool(BACKUP_ID).store.list()) == []
    site.kube.faults.clear()
    assert opened(site) if site.copy_out(discovery, saved, attempt=2) else False


def test_a_restarted_pod_has_lost_the_file_and_gives_a_new_one(site):
    discovery = site.discover()
    saved = site.save(discovery)
    site.members[0].restart()
    copied = site.copy_out(discovery, saved)
    assert copied.saved.path == f"/tmp/etcdkeep-{BACKUP_ID}-copy_out-1.db"
    assert opened(site) == site.members[0].database


def test_a_pod_that_keeps_restarting_is_passing_trouble(site):
    discovery = site.discover()
    saved = site.save(discovery)
    site.kube.faults.add(FIRST, at=0, before=site.members[0].restart)
    with pytest.raises(MembersUnfit, match="could not be copied out either"):
        site.copy_out(discovery, saved)


def test_refused_permissions_are_not_tried_elsewhere(make_site):
    site = make_site(3)
    discovery = site.discover()
    saved = site.save(discovery)
    site.kube.faults.add(FIRST, AccessDenied("pods/exec is forbidden"))
    with pytest.raises(AccessDenied):
        site.copy_out(discovery, saved)


def test_the_remains_of_a_killed_try_are_written_anew(site):
    discovery = site.discover()
    saved = site.save(discovery)
    spool = site.spool(BACKUP_ID)
    with spool.store.create(spool.prefix + naming.ETCD_ARTIFACT) as stored:
        stored.write(b"half")
    site.copy_out(discovery, saved)
    assert opened(site) == site.members[0].database


def node_site(make_site, count=1):
    site = make_site(count, copy_out="node", control_plane={"crictl": ["/opt/bin/crictl"]})
    for member in site.members:
        member.programs -= {"cat", "df", "rm"}
    return site


def test_the_file_of_a_distroless_container_is_read_through_its_node(make_site):
    site = node_site(make_site)
    site.node_faults.add("crictl", at=0)
    discovery = site.discover()
    saved = site.save(discovery)
    site.copy_out(discovery, saved)
    assert opened(site) == site.members[0].database
    site.clean_up(discovery)
    assert site.leftovers() == []


@pytest.mark.parametrize(
    ("match", "error", "expected"),
    [
        pytest.param("cat /proc", CUT, StreamCut, id="cut"),
        pytest.param("crictl", CommandFailed("no such container", exit_code=1), MembersUnfit, id="container-gone"),
    ],
)
def test_trouble_on_the_node_is_told(make_site, match, error, expected):
    site = node_site(make_site)
    discovery = site.discover()
    saved = site.save(discovery)
    site.node_faults.add(match, error, at=0)
    with pytest.raises(expected):
        site.copy_out(discovery, saved)


@pytest.mark.parametrize(
    ("runtime_id", "argv"),
    [
        ("containerd://4f2a", "sudo -n /opt/bin/crictl inspect -o json 4f2a"),
        ("cri-o://4f2a", "sudo -n /opt/bin/crictl inspect -o json 4f2a"),
        ("docker://4f2a", "sudo -n docker inspect 4f2a"),
    ],
)
def test_each_runtime_is_asked_in_its_way(runtime_id, argv):
    assert " ".join(container_process_argv(runtime_id, ("/opt/bin/crictl",))) == argv


@pytest.mark.parametrize(
    ("output", "process"), [(b'{"info":{"pid":4711}}', 4711), (b'[{"State":{"Pid":4711}}]', 4711), (b'{"info":{"pid":"7"}}', 7)]
)  # fmt: skip
def test_a_container_s_process_is_read(output, process):
    assert parse_container_process(output) == process


@pytest.mark.parametrize(
    "output", [b"", b"[]", b"{}", b"null", b'[{"State":{"Pid":0}}]', b'{"info":{"pid":-1}}', b'{"info":null}']
)
def test_a_stopped_container_has_none(output):
    with pytest.raises(NotFound):
        parse_container_process(output)


def test_a_pod_whose_container_does_not_run_is_told(make_site):
    site = node_site(make_site)
    discovery = site.discover()
    saved = site.save(discovery)
    pods = site.kube._pods()
    pods[0]["status"]["containerStatuses"] = None
    site.kube._pods = lambda: pods
    with pytest.raises(MembersUnfit, match="container 'etcd' is not running"):
        site.copy_out(discovery, saved)
