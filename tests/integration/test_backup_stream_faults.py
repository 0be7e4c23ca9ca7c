"""Streams that break while a backup runs: the next try makes one good set, or the error says what happened."""

from __future__ import annotations

import pytest

from etcdkeep.errors import SnapshotDamaged, StreamCut, StreamStalled, VerificationFailed
from tests.backup_run import assert_one_good_set

SNAPSHOT = r"^cat .*etcdkeep-"
TAR = r"tar .*-cf"
TRAILER_BYTES = 32


def position(run, where: str) -> int:
    """Return how many bytes of the snapshot still pass."""
    size = run.outputs["snapshot"]["snapshot"]["size_bytes"]
    return {"begin": 0, "middle": size // 2, "trailer": size + TRAILER_BYTES // 2, "last": size + TRAILER_BYTES - 1}[
        where
    ]


STREAM_FAULTS = [
    *(pytest.param("cut", where, StreamCut, "no exit status received", id=f"cut-{where}") for where in ("begin", "middle", "trailer", "last")),
    *(pytest.param("close", where, StreamCut, "the server closed it", id=f"closed-{where}") for where in ("begin", "last")),
    pytest.param("no-status", "begin", StreamCut, "no exit status received", id="whole-without-status"),
    *(pytest.param("truncate", where, StreamStalled, "gave no output for 1.5 s", id=f"short-{where}") for where in ("begin", "middle", "last")),
    pytest.param("stall", "middle", StreamStalled, "gave no output for 1.5 s", id="stalled"),
    pytest.param("corrupt", "middle", SnapshotDamaged, "bytes were altered in the pod or on the way", id="altered-byte"),
    pytest.param("corrupt", "trailer", SnapshotDamaged, "the file's own trailer says", id="altered-trailer"),
]  # fmt: skip


@pytest.mark.parametrize(("action", "where", "error", "said"), STREAM_FAULTS)
def test_a_broken_stream_is_an_error_and_the_next_try_makes_one_good_set(site, start_run, action, where, error, said):
    run = start_run("skiff")
    run.until("snapshot")
    with site.faults.exec_stream(action, match=SNAPSHOT, after=position(run, where)) as fault:
        with pytest.raises(error, match=said) as caught:
            run.task("copy_out")
        assert site.faults.hits(fault.id) == 2, "once for the snapshot, once for the one that was taken anew"
    assert "skiff/kube-etcd-0" in str(caught.value)
    assert run.own_sets() == []
    run.whole()
    assert_one_good_set(run)


@pytest.mark.parametrize(
    ("action", "where", "said"),
    [
        pytest.param("cut", "last", "no exit status received", id="cut-last"),
        pytest.param("truncate", "last", "gave no output for 1.5 s", id="short-last"),
        pytest.param("stall", "begin", "gave no output for 1.5 s", id="stalled"),
        pytest.param("corrupt", "begin", "bytes were altered in the pod or on the way", id="altered-byte"),
    ],
)
def test_one_broken_stream_costs_nothing_but_another_snapshot(site, start_run, action, where, said, caplog):
    run = start_run("skiff")
    run.until("snapshot")
    with site.faults.exec_stream(action, match=SNAPSHOT, after=position(run, where), times=1) as fault:
        run.task("copy_out")
        assert site.faults.hits(fault.id) == 1
    assert said in caplog.text
    assert run.outputs["copy_out"]["saved"]["path"] != run.outputs["snapshot"]["path"]
    run.whole()
    assert_one_good_set(run)


def test_a_pod_that_restarts_mid_way_gives_a_new_snapshot(site, start_run):
    run = start_run("skiff")
    run.until("snapshot")
    with site.faults.exec_stream("restart", match=SNAPSHOT, after=position(run, "middle"), times=1) as fault:
        run.retried("copy_out")
        assert site.faults.hits(fault.id) == 1
    assert "-copy_out-" in run.outputs["copy_out"]["saved"]["path"], "the first file went with the old container"
    run.whole()
    assert_one_good_set(run)


NODE_STREAM_FAULTS = [
    pytest.param("cut", 0, StreamCut, id="cut-begin"),
    pytest.param("cut", 20_000, StreamCut, id="cut-middle"),
    pytest.param("close", 20_000, StreamCut, id="closed-middle"),
    pytest.param("no-status", 0, StreamCut, id="whole-without-status"),
    pytest.param("stall", 20_000, StreamStalled, id="stalled"),
]


@pytest.mark.parametrize(("action", "after", "error"), NODE_STREAM_FAULTS)
def test_a_broken_archive_stream_leaves_nothing_and_the_next_try_has_it_whole(site, start_run, action, after, error):
    run = start_run("harbor")
    with site.faults.ssh(action, where="harbor-cp-0", match=TAR, after=after, times=1) as fault:
        with pytest.raises(error, match="tar") as caught:
            run.task("fetch_pki")
        assert site.faults.hits(fault.id) == 1
    assert "node ubuntu@127.0.0.11" in str(caught.value)
    assert "control-plane" not in str(run.leftovers())
    run.whole()
    assert "pki" in assert_one_good_set(run).levels


def test_an_archive_that_ends_early_with_success_is_marked_bad(site, start_run):
    run = start_run("harbor")
    with site.faults.ssh("truncate", where="harbor-cp-0", match=TAR, after=20_000):
        run.until("upload")
    with pytest.raises(VerificationFailed, match=r"control-plane.tar.zst.age"):
        run.task("verify")
    (made,) = run.own_sets()
    assert made.state == "bad"
    assert run.assets == {}
    assert run.repository.newest("harbor").backup_id != run.identifier
