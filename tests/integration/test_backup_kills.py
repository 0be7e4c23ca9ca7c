"""A worker killed at any stage of any task: the retry ends in exactly one good set, and cleanup leaves nothing."""

from __future__ import annotations

import pytest

from tests.backup_run import assert_one_good_set
from tests.backup_worker import work

ARTIFACT = r"/etcd\.db\.zst\.age$"

SKIFF = [
    ("discover", "begin .*attempts/", "before-the-attempt-is-recorded"),
    ("discover", "write .*attempts/", "while-the-attempt-is-recorded"),
    ("discover", "end .*endpoint status", "while-members-are-asked"),
    ("snapshot", "start .*snapshot save", "while-etcdctl-saves"),
    ("snapshot", "end .*snapshot save", "after-the-save"),
    ("snapshot", "end .*snapshot status", "after-the-status"),
    ("copy_out", "start cat .*etcdkeep-", "before-the-first-byte"),
    ("copy_out", "chunk cat .*etcdkeep-", "after-the-first-bytes"),
    ("copy_out", f"begin .*{ARTIFACT}", "before-the-spool-file"),
    ("copy_out", f"write .*{ARTIFACT}", "while-the-spool-file-is-written"),
    ("copy_out", f"finish .*{ARTIFACT}", "between-artifact-and-its-record"),
    ("copy_out", r"finish .*etcd\.db\.zst\.age\.json", "after-the-record"),
    ("upload", f"before copy .*{ARTIFACT}", "before-the-copy"),
    ("upload", f"after copy .*{ARTIFACT}", "between-artifact-and-signature"),
    ("upload", r"write .*manifest\.json\.sig", "while-the-signature-is-written"),
    ("upload", r"finish .*manifest\.json\.sig", "between-signature-and-manifest"),
    ("upload", r"write .*manifest\.json$", "while-the-manifest-is-written"),
    ("upload", r"finish .*manifest\.json$", "after-the-manifest"),
    ("verify", f"after open .*{ARTIFACT}", "while-the-set-is-read-back"),
    ("verify", "begin .*verification/", "before-the-record"),
    ("verify", "write .*verification/", "while-the-record-is-written"),
    ("verify", "finish .*verification/", "after-the-record"),
    ("cleanup", "before purge", "before-anything-is-removed"),
    ("cleanup", "after purge", "after-the-spool"),
    ("cleanup", "start rm ", "while-the-pod-is-cleaned"),
    ("cleanup", "end rm ", "after-the-pod"),
]
HARBOR = [
    ("fetch_pki", "start .*tar .*-cf", "before-the-archive"),
    ("fetch_pki", "chunk .*tar .*-cf", "while-the-archive-comes"),
    ("fetch_pki", r"finish .*/control-plane\.tar\.zst\.age$", "between-archive-and-its-record"),
    ("fetch_pki", r"finish .*/control-plane\.tar\.zst\.age\.json", "between-archive-and-access"),
    ("fetch_pki", r"write .*/access\.tar\.zst\.age$", "while-access-is-written"),
    ("fetch_pki", r"finish .*/access\.tar\.zst\.age\.json", "after-access"),
    ("upload", r"after copy .*/control-plane\.tar\.zst\.age$", "between-two-artifacts"),
    ("upload", r"write .*manifest\.json\.sig", "while-the-signature-is-written"),
    ("upload", r"write .*manifest\.json$", "while-the-manifest-is-written"),
    ("verify", r"after open .*/control-plane\.tar\.zst\.age$", "while-the-set-is-read-back"),
]


def cases(points, cluster, *, bucket):
    return [pytest.param(cluster, bucket, task, at, id=f"{cluster}-{task}-{name}") for task, at, name in points]


@pytest.mark.parametrize(
    ("cluster", "bucket", "task", "kill_at"),
    [*cases(SKIFF, "skiff", bucket=False), *cases(HARBOR, "harbor", bucket=True)],
)
def test_a_killed_worker_costs_nothing(start_run, cluster, bucket, task, kill_at):
    run = start_run(cluster, bucket=bucket, discovered=task != "discover")
    if task == "cleanup":
        run.until("verify")
    elif task not in ("discover", "fetch_pki"):
        run.until(run.tasks[run.tasks.index(task) - 1])
    work(run, task, kill_at)
    work(run, task)
    if task == "cleanup":
        run.outputs.pop("cleanup")
    run.whole()
    assert_one_good_set(run)


@pytest.mark.parametrize("task", ["discover", "snapshot", "copy_out", "upload", "verify", "cleanup"])
def test_a_worker_killed_once_and_again_at_the_next_moment_costs_nothing(start_run, task):
    """Every try is killed, each at another stage, before one comes through."""
    run = start_run("skiff", discovered=task != "discover")
    if task == "cleanup":
        run.until("verify")
    elif task != "discover":
        run.until(run.tasks[run.tasks.index(task) - 1])
    for _, kill_at, _ in [point for point in SKIFF if point[0] == task][:3]:
        work(run, task, kill_at)
    work(run, task)
    run.outputs.pop("cleanup", None)
    run.whole()
    assert_one_good_set(run)
