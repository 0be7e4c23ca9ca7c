"""No secret leaves its place in a whole run: not in logs (DEBUG), XCom, rendered fields, command lines, or in the clear on disk."""

from __future__ import annotations

import io
import json
import logging
import os
import tempfile
from pathlib import Path

import pytest

from tests.backup_run import assert_one_good_set, load_dag
from tests.canaries import ArgvWatch, canaries, leaks, leaks_in_files


@pytest.fixture(scope="module")
def secrets(lab_site):
    found = canaries(lab_site)
    assert len(found) > 300
    return found


@pytest.fixture
def debug_log():
    """Everything that any logger says, DEBUG included."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    root = logging.getLogger()
    levels = {
        name: logging.getLogger(name).level
        for name in ("", "etcdkeep", "paramiko", "kubernetes", "urllib3", "websocket", "google")
    }
    for name in levels:
        logging.getLogger(name).setLevel(logging.DEBUG)
    root.addHandler(handler)
    yield text
    root.removeHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A temporary directory of the test's own, so that whatever is written there is found."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("etcdkeep.sealing.private_file.TMPFS", folder)
    return folder


@pytest.mark.parametrize(
    ("cluster", "bucket"),
    [("harbor", False), ("harbor", True), ("skiff", False)],
    ids=["harbor", "harbor-bucket", "skiff"],
)
def test_a_whole_run_shows_no_secret(site, start_run, secrets, debug_log, temporary, tmp_path, capfd, cluster, bucket):
    run = start_run(cluster, bucket=bucket, discovered=False)
    on_disk = {}
    with ArgvWatch() as watch:
        for task in [*run.tasks, "cleanup"]:
            run.task(task)
            on_disk |= leaks_in_files([tmp_path, Path(os.environ["AIRFLOW_HOME"])], secrets)
    assert_one_good_set(run)
    assert on_disk == {}
    assert "etcdctl" in debug_log.getvalue(), "the log is one of DEBUG level"
    assert leaks(debug_log.getvalue().encode(), secrets) == []
    assert leaks("".join(capfd.readouterr()).encode(), secrets) == []
    assert leaks(json.dumps(run.outputs).encode(), secrets) == []
    assert any(b"etcdctl" in argv for argv in watch.seen)
    assert leaks(b"\n".join(watch.seen), secrets) == []
    rendered = [getattr(task, name) for task in load_dag(cluster).tasks for name in task.template_fields]
    assert leaks(str(rendered).encode(), secrets) == []
    if bucket:
        assert leaks_in_files([site.root / "gcs"], secrets) == {}


def test_the_search_itself_finds_a_canary(secrets, tmp_path, site):
    """A search that finds nothing shows nothing unless it finds what is there."""
    key = site.ssh_key.read_bytes()
    (tmp_path / "leak").write_bytes(b"some text " + key)
    assert list(leaks_in_files([tmp_path], secrets)) == [str(tmp_path / "leak")]
    assert leaks(site.clusters["harbor"].kubeconfig.read_bytes(), secrets)


@pytest.mark.parametrize("broken", ["half", "passphrase", "garbage"])
def test_an_error_about_a_key_shows_nothing_of_it(site, start_run, secrets, debug_log, tmp_path, broken):
    lines = site.ssh_key.read_text().splitlines()
    text = {
        "half": lines[: len(lines) // 2],
        "passphrase": [lines[0], "Proc-Type: 4,ENCRYPTED", "DEK-Info: AES-128-CBC,00", "", *lines[1:]],
        "garbage": lines[1:-1],
    }[broken]
    (tmp_path / "key").write_text("\n".join(text))
    run = start_run("harbor", ssh={"key": {"path": str(tmp_path / "key")}})
    with pytest.raises(Exception, match="the SSH key for") as caught:
        run.task("fetch_pki")
    assert leaks("".join(map(str, (caught.value, debug_log.getvalue()))).encode(), secrets) == []
