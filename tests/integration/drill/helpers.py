"""Drills on this machine: databases to drill, programs that misbehave, and what is left behind."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from etcdkeep.adapters.local_etcd.programs import LocalEtcd
from etcdkeep.config.models import Drill
from etcdkeep.drill.run import drill_set
from lab.tools import etcd_folder
from tests.drill_sets import identities, open_repository
from tests.etcd import etcd_program, running_etcd

if TYPE_CHECKING:
    from pathlib import Path

CANARY = b"canary-of-the-drill"


def usual(etcd):
    """What the tests drill that need no special shape."""
    for number in range(40):
        etcd.put(
            b"/registry/configmaps/default/c%02d" % number,
            b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"}}',
        )
    etcd.put(b"/registry/secrets/default/s", b'{"apiVersion":"v1","kind":"Secret","metadata":{"name":"%s"}}' % CANARY)
    etcd.delete(b"/registry/configmaps/default/c07")
    etcd.compact(20)
    etcd.put(b"/registry/configmaps/default/c08", b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"}}')


def large(etcd):
    for batch in range(100):
        etcd.put_all((b"/registry/events/ns-%d/%d" % (batch, number), b"x" * 1000) for number in range(100))


def with_users(etcd):
    """etcd's own users and roles: whoever is none of them may read nothing."""
    usual(etcd)
    etcd.ctl("user", "add", "root", "--new-user-password", "secret")
    etcd.ctl("user", "grant-role", "root", "root")
    etcd.ctl("auth", "enable")


def with_an_alarm(etcd):
    usual(etcd)
    etcd.call("maintenance/alarm", {"action": "ACTIVATE", "alarm": "NOSPACE", "memberID": "1"})


def save(tmp_path, make, *flags) -> Path:
    with running_etcd(tmp_path / "source", *flags) as etcd:
        make(etcd)
        arguments = ("--user", "root:secret") if make is with_users else ()
        etcd.ctl(*arguments, "snapshot", "save", str(tmp_path / "etcd.db"))
    return tmp_path / "etcd.db"


def settings(tmp_path, **changes) -> Drill:
    (tmp_path / "work").mkdir(exist_ok=True)
    return Drill(**{"etcd_dir": str(etcd_folder()), "work_dir": str(tmp_path / "work"), **changes})


def drill(tmp_path, found, begun=lambda phase: None, **changes):
    local_etcd = LocalEtcd(settings(tmp_path, **changes))
    try:
        return drill_set(open_repository(tmp_path / "repository"), found, identities(), local_etcd.open, begun)
    finally:
        assert list((tmp_path / "work").iterdir()) == []
        assert processes_in(tmp_path) == []


def processes_in(folder) -> list[str]:
    """Return the command lines that name the folder, of processes that are not this one's own."""
    found = subprocess.run(["pgrep", "-af", str(folder / "work")], capture_output=True, text=True, check=False)
    return [line for line in found.stdout.splitlines() if "pgrep" not in line]


def fake_program(folder, name, script):
    path = folder / name
    path.unlink(missing_ok=True)
    real = etcd_program(name)
    path.write_text(f'#!/bin/sh\ncase "$1" in --version|version) exec {real} "$@" ;; esac\n{script}\n')
    path.chmod(0o755)


def left_over(tmp_path) -> list[str]:
    """Return files and processes of drills."""
    return [str(path) for path in (tmp_path / "work").rglob("*")] + processes_in(tmp_path)
