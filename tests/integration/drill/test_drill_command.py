"""``python -m etcdkeep drill`` in a process of its own: what it says, and what is left when it is killed."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from etcdkeep.drill.run import PHASES
from lab.tools import etcd_folder, fill_bin
from lab.waiting import wait_for
from tests.drill_sets import open_repository, publish_snapshot
from tests.integration.drill.helpers import fake_program, left_over, processes_in


def run(command, *arguments, **environment) -> subprocess.CompletedProcess[str]:
    argv, known = command
    return subprocess.run(
        (*argv, *arguments), env={**known, **environment}, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_command_tells_and_records_what_it_found(tmp_path, command):
    done = run(command, "harbor", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert (said["ok"], said["levels"], said["drill"]["etcd_version"]) == (True, ["drill"], "3.5.1")
    assert tuple(said["seconds"]) == PHASES
    (found,) = open_repository(tmp_path / "repository").sets("harbor")
    assert (found.state, found.levels[-1]) == ("good", "drill")
    assert left_over(tmp_path) == []


def test_the_command_for_people_and_without_a_record(tmp_path, command):
    done = run(command, "harbor", "--no-record")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("harbor/20261123T023000Z-1f0c9a3e: restores\n  unseal ")
    assert "from the sealed snapshot to a serving etcd 3.5.1: " in done.stdout
    (found,) = open_repository(tmp_path / "repository").sets("harbor")
    assert found.drills == ()


def test_the_command_marks_a_set_that_does_not_restore_and_clears_it_when_it_does(tmp_path, command, usual_snapshot):
    publish_snapshot(tmp_path / "repository", usual_snapshot, "20261124T023000Z-1f0c9a3e", reported={"hash": 7})
    done = run(command, "harbor")
    assert done.returncode == 3
    assert "20261124T023000Z-1f0c9a3e: DOES NOT RESTORE" in done.stdout
    assert "  bad: hash is " in done.stdout
    assert [found.state for found in open_repository(tmp_path / "repository").sets("harbor")] == ["good", "bad"]
    assert run(command, "harbor").stdout.startswith("harbor/20261123T023000Z-1f0c9a3e: restores")


@pytest.mark.parametrize(
    ("environment", "code", "said"),
    [
        pytest.param({"PATH": "/nowhere"}, 1, "there is no etcd on PATH here", id="no-etcd"),
        pytest.param({"ETCDKEEP_AGE_IDENTITY": "/nowhere"}, 4, "key file /nowhere cannot be read", id="no-identity"),
    ],
)
def test_what_the_machine_lacks_marks_nothing(tmp_path, command, environment, code, said):
    text = (tmp_path / "clusters.yaml").read_text()
    (tmp_path / "clusters.yaml").write_text(text.replace(f"    etcd_dir: {etcd_folder()}\n", ""))
    done = run(command, "harbor", **environment)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    (found,) = open_repository(tmp_path / "repository").sets("harbor")
    assert (found.state, found.drills) == ("good", ())


@pytest.fixture
def heard_interrupt():
    """SIGINT as a terminal's program has it: a suite that runs in the background has it ignored, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard_interrupt")
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name
)
@pytest.mark.parametrize("program", ["etcdutl", "etcd"])
def test_a_drill_that_is_killed_leaves_nothing(tmp_path, command, program, number):
    """By a signal that it can answer, nothing at once; killed outright, no process, and no file after the next drill."""
    fill_bin(tmp_path / "bin", ("etcd", "etcdutl"))
    fake_program(tmp_path / "bin", program, f'touch "{tmp_path}/reached"; exec sleep 60')
    text = (tmp_path / "clusters.yaml").read_text()
    (tmp_path / "clusters.yaml").write_text(text.replace(str(etcd_folder()), str(tmp_path / "bin")))
    argv, environment = command
    with subprocess.Popen((*argv, "harbor"), env=environment, stderr=subprocess.DEVNULL) as drill:
        wait_for(lambda: (tmp_path / "reached").exists(), f"{program} to run")
        drill.send_signal(number)
        assert drill.wait(30) != 0
    assert processes_in(tmp_path) == []
    files = [path for path in (tmp_path / "work").rglob("*") if path.is_file()]
    assert bool(files) is (number == signal.SIGKILL)
    (tmp_path / "clusters.yaml").write_text(text)
    assert run(command, "harbor").returncode == 0
    assert left_over(tmp_path) == []


def test_a_drill_removes_no_folder_of_another_that_runs(tmp_path, command):
    argv, environment = command
    drills = [subprocess.Popen((*argv, "harbor", "--no-record"), env=environment) for _ in range(3)]
    assert [drill.wait(120) for drill in drills] == [0, 0, 0]
    assert left_over(tmp_path) == []
