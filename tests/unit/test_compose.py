"""deploy/compose.yaml: sound by the compose specification, and no service has a secret that it must not have."""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

import jsonschema
import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema

from etcdkeep.config.loading import parse_config
from etcdkeep.records import PURPOSES
from tests.deployed import DEPLOY, compose, configuration, make_secrets, option, secrets_of

if TYPE_CHECKING:
    from pathlib import Path

SERVICES = compose()["services"]
AIRFLOW = {name: each for name, each in SERVICES.items() if "ETCDKEEP_IMAGE" in each["image"]}
WHO_HAS_WHAT = {
    "postgres": {"postgres_password"},
    "redis": {"redis_conf"},
    "migrate": {"database_url", "fernet_key"},
    "api-server": {"database_url", "fernet_key", "jwt_secret", "api_secret_key", "page_connections", "index_identity"},
    "scheduler": {"database_url", "fernet_key", "jwt_secret", "redis_url"},
    "dag-processor": {"database_url", "fernet_key"},
    "triggerer": {"database_url", "fernet_key"},
    "worker-backup": {"redis_url", "connections", "signing_backup"},
    "worker-verify": {"redis_url", "connections", "age_identity", "signing_verify", "signing_approve", "signing_restore"},
}  # fmt: skip

HOLDS_NO_SECRET = {
    "AIRFLOW__API__BASE_URL",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
    "AIRFLOW__SECRETS__BACKEND",
    "AIRFLOW__SECRETS__BACKEND_KWARGS",
    "AIRFLOW__WORKERS__SECRETS_BACKEND",
    "AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS",
}


def test_it_is_sound_by_the_specification() -> None:
    schema = get_builtin_schema("vendor.compose-spec")
    jsonschema.validate(compose(), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"services": {"a": {"imag": "b"}}}, schema)


def test_who_has_which_secret() -> None:
    assert {name: set(secrets_of(name)) for name in SERVICES} == WHO_HAS_WHAT
    assert set(compose()["secrets"]) == set().union(*WHO_HAS_WHAT.values())


def test_a_secret_is_a_file_and_nothing_else() -> None:
    assert all(
        list(each) == ["file"] and each["file"].startswith("./secrets/") for each in compose()["secrets"].values()
    )
    for name, service in SERVICES.items():
        assert "env_file" not in service
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|KEY|CONN|URL|BACKEND", variable) and variable not in HOLDS_NO_SECRET:
                assert re.fullmatch(r"(cat )?/run/secrets/\w+|sqlite:////tmp/no-database", value), f"{name}: {variable}"


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_reads_is_mounted_and_nothing_is_mounted_unread(name: str) -> None:
    service = SERVICES[name]
    text = " ".join([*service.get("environment", {}).values(), *service.get("command", [])])
    read = set(re.findall(r"/run/secrets/[\w.]+", text))
    mounted = set(secrets_of(name).values())
    keys = {
        path for path in mounted if re.search(r"/(age_identity|index_identity|signing_\w+)$", path)
    }  # read by clusters.yaml
    assert read == mounted - keys
    assert not keys or name.startswith("worker-") or keys == {"/run/secrets/index_identity"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined_and_watched(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"].split(":")[0] not in ("0", "root")
    assert re.fullmatch(r"\$\{\w+_IMAGE:\?[^}]*digest\}", service["image"]), "an image has no default"
    assert "healthcheck" in service or service["restart"] == "no"
    assert "privileged" not in service


def test_workers_cannot_reach_the_database() -> None:
    for name in ("worker-backup", "worker-verify"):
        assert SERVICES[name]["networks"] == ["work"]
        assert SERVICES[name]["environment"]["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == "sqlite:////tmp/no-database"
    assert SERVICES["postgres"]["networks"] == ["database"]
    assert compose()["networks"]["database"] == {"internal": True}


@pytest.mark.parametrize("name", ["worker-backup", "dag-processor", "triggerer"])
def test_whoever_sends_notifications_has_a_way_out(name: str) -> None:
    ways = [network for network in SERVICES[name]["networks"] if not compose()["networks"][network].get("internal")]
    assert ways
    assert name.startswith("worker") or "work" not in ways, "tasks and their broker are not its business"


def test_plaintext_has_memory_where_backups_are_opened() -> None:
    assert SERVICES["worker-verify"]["shm_size"] == "8g"
    assert "shm_size" not in SERVICES["worker-backup"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deployed")


@pytest.fixture(scope="module")
def made(folder: Path) -> str:
    """The configuration with the keys that the script made."""
    return configuration(make_secrets(folder / "secrets"), folder / "repository")


def test_the_script_makes_every_file_but_the_connections(made: str, folder: Path) -> None:
    files = {path.name: path for path in (folder / "secrets").iterdir()}
    named = {each["file"].removeprefix("./secrets/") for each in compose()["secrets"].values()}
    assert set(files) == named - {"connections.yaml", "page_connections.yaml"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o400}
    assert (folder / "secrets").stat().st_mode & 0o077 == 0
    assert files["database_url"].read_text().split(":")[2].startswith(files["postgres_password"].read_text())


def test_each_key_of_the_configuration_is_on_the_workers_of_its_queue_alone(made: str) -> None:
    config = parse_config(made, "clusters.yaml")
    config.raise_for_problems()
    (cluster,) = config.clusters.values()
    mounted = {name: set(secrets_of(name).values()) for name in AIRFLOW}
    keys = {purpose: cluster.signing.for_purpose(purpose).key for purpose in PURPOSES}
    assert all(keys.values())
    holders = {
        purpose: {name for name, paths in mounted.items() if key and str(key.path) in paths}
        for purpose, key in keys.items()
    }
    assert holders == {
        "backup": {"worker-backup"},
        "verify": {"worker-verify"},
        "approve": {"worker-verify"},
        "restore": {"worker-verify"},
    }
    assert cluster.age_identity
    assert {name for name, paths in mounted.items() if str(cluster.age_identity.path) in paths} == {"worker-verify"}
    assert cluster.index_identity
    assert {name for name, paths in mounted.items() if str(cluster.index_identity.path) in paths} == {"api-server"}
    assert option("worker-backup", "--queues").split(",") == [cluster.queue, "default"]
    assert option("worker-verify", "--queues") == cluster.verify_queue


def test_the_sample_says_what_is_to_be_filled_in() -> None:
    problems = parse_config((DEPLOY / "clusters.yaml").read_text(), "clusters.yaml").problems
    assert problems, "what is in angle brackets is not taken for a key"


def test_neither_git_nor_the_image_takes_the_secrets() -> None:
    project = DEPLOY.parent
    assert "deploy/secrets/" in (project / ".gitignore").read_text().splitlines()
    assert "deploy" in (project / ".dockerignore").read_text().splitlines()
