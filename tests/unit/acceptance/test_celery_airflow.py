"""Airflow with Celery where the programs that it needs are not installed; and what each worker gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from etcdkeep.acceptance.celery_airflow import SERVERS_ONLY, CeleryAirflow, Kind, missing_programs
from etcdkeep.errors import ConfigError

KINDS = (Kind("backup", ("backup", "default"), (Path("/keys/age"),)), Kind("verify", ("verify",), (Path("/keys/backup"),)))  # fmt: skip


@pytest.fixture
def airflow(tmp_path: Path) -> CeleryAirflow:
    home = tmp_path / "home"
    home.mkdir()
    (home / "demo.json").write_text(json.dumps({"port": 1, "passwords": {}, "jwt": "jwt-canary"}))
    stores = {
        "database": {"port": 2, "password": "database-canary"},
        "broker": {"port": 3, "password": "broker-canary"},
    }
    (home / "celery.json").write_text(json.dumps(stores))
    return CeleryAirflow(home, tmp_path / "clusters.yaml", KINDS)


def test_it_says_what_to_install(airflow: CeleryAirflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = missing_programs()
    assert "Redis not found" in said
    assert "apt-get install postgresql redis-server" in said
    with pytest.raises(ConfigError, match="Redis not found"):
        airflow.prepare()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_worker_has_folders_of_its_own_and_nothing_of_the_servers(airflow: CeleryAirflow, kind: Kind) -> None:
    environment, servers = airflow.worker(kind).environment, airflow.environment
    own = airflow.home / "workers" / kind.name
    assert {Path(environment[name]) for name in ("HOME", "TMPDIR", "AIRFLOW_HOME")} == {own, own / "tmp", own / "airflow"}  # fmt: skip
    for name in SERVERS_ONLY:
        assert environment.get(name) != servers[name]
    assert not [value for value in environment.values() if "database-canary" in value or "jwt-canary" in value]


def test_no_password_is_on_a_command_line(airflow: CeleryAirflow) -> None:
    lines = [" ".join(service.argv) for service in airflow.services()]
    assert len(lines) == 8
    assert not [line for line in lines if "canary" in line]
