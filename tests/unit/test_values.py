"""deploy/ for Kubernetes: values by the chart's schema, manifests by Kubernetes' fields, and no pod with a key that it must not have."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import pytest
import yaml

from tests.deployed import DEPLOY, PROJECT, compose, secrets_of
from tests.kubernetes_fields import unknown_fields

VALUES = yaml.safe_load((DEPLOY / "values.yaml").read_text())
SCHEMA = json.loads((PROJECT / "tests/data/chart/values.schema.json").read_text())
SETS = {each["name"]: each for each in VALUES["workers"]["celery"]["sets"]}
PODS = {
    name.removesuffix(".yaml"): yaml.safe_load(text)
    for name, text in yaml.safe_load(VALUES["extraConfigMaps"]["etcdkeep-pods"]["data"]).items()
}
MANIFESTS = [
    each for file in ("rbac.yaml", "networkpolicy.yaml") for each in yaml.safe_load_all((DEPLOY / file).read_text())
]
KINDS = ("backup", "verify")
PAGE = {name: path for name, path in secrets_of("api-server").items() if name in ("page_connections", "index_identity")}


def test_the_values_are_sound_by_the_chart_s_schema() -> None:
    jsonschema.Draft7Validator(SCHEMA).validate(VALUES)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(("image",), id="a-key-of-the-root"),
        pytest.param(("images", "airflow", "diggest"), id="a-key-of-the-image"),
        pytest.param(("apiServer", "extraVolume"), id="a-key-of-the-api-server"),
        pytest.param(("workers", "celery", "sets", 0, "extraVolume"), id="a-key-of-a-worker-set"),
        pytest.param(("workers", "celery", "sets", 1, "extraVolumes", 1, "emptydir"), id="a-key-of-a-volume"),
        pytest.param(("workers", "celery", "sets", 1, "safeToEvict"), id="a-wrong-type"),
    ],
)
def test_a_mistyped_value_is_found(path: tuple[Any, ...]) -> None:
    wrong = copy.deepcopy(VALUES)
    place = wrong
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = "no such value"
    assert not jsonschema.Draft7Validator(SCHEMA).is_valid(wrong)


@pytest.mark.parametrize(
    "manifest", [*PODS.values(), *MANIFESTS], ids=lambda each: f"{each['kind']}-{each['metadata']['name']}"
)
def test_kubernetes_knows_every_field(manifest: dict[str, Any]) -> None:
    assert unknown_fields(manifest) == []


def test_an_unknown_field_is_found() -> None:
    wrong = copy.deepcopy(PODS["verify"])
    wrong["spec"]["containers"][0]["volumeMount"] = []
    wrong["spec"]["volumes"][0]["configmap"] = {}
    assert set(unknown_fields(wrong)) == {"spec.containers.volumeMount", "spec.volumes.configmap"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_worker_has_its_own_secret_and_account_alone(kind: str) -> None:
    celery, pod = SETS[kind], PODS[kind]["spec"]
    secrets = {
        volume["secret"]["secretName"] for volume in (*celery["extraVolumes"], *pod["volumes"]) if "secret" in volume
    }
    assert secrets == {f"etcdkeep-{kind}"}
    assert celery["serviceAccount"]["name"] == pod["serviceAccountName"] == f"etcdkeep-{kind}"
    assert not celery["serviceAccount"]["automountServiceAccountToken"]
    assert not pod["automountServiceAccountToken"]


def test_the_api_server_has_what_the_page_reads_and_an_account_of_its_own() -> None:
    server = VALUES["apiServer"]
    (volume,), (mount,) = server["extraVolumes"], server["extraVolumeMounts"]
    assert volume["secret"]["secretName"] == "etcdkeep-page"
    assert (mount["name"], mount["readOnly"]) == (volume["name"], True)
    assert server["serviceAccount"]["name"] not in {each["serviceAccount"]["name"] for each in SETS.values()}
    assert not server["serviceAccount"]["automountServiceAccountToken"], (
        "Kubernetes mounts it below /run/secrets, which is read-only"
    )
    theirs = {f"{mount['mountPath']}/{path.rpartition('/')[2]}" for path in PAGE.values()}
    assert theirs == set(PAGE.values()), "the same clusters.yaml serves compose and the chart"
    given = {each["name"]: each["value"] for each in server["env"]}
    assert given == {name: compose()["services"]["api-server"]["environment"][name] for name in given}
    assert json.loads(given["AIRFLOW__SECRETS__BACKEND_KWARGS"]) == {"connections_file_path": PAGE["page_connections"]}


def test_no_other_pod_has_a_key() -> None:
    assert [volume for volume in VALUES["volumes"] if "configMap" not in volume] == []
    assert not VALUES["workers"]["celery"]["enableDefault"]
    assert set(SETS) == set(PODS) == set(KINDS)


def test_the_queues_are_those_of_the_configuration() -> None:
    defaults = yaml.safe_load((DEPLOY / "clusters.yaml").read_text())["defaults"]
    assert SETS["backup"]["queue"].split(",") == [defaults["queue"], "default"]
    assert SETS["verify"]["queue"] == defaults["verify_queue"]
    assert set(PODS) == {defaults["queue"], defaults["verify_queue"]}, "a pod template is named after its queue"


def test_what_opens_backups_has_memory_and_is_not_evicted() -> None:
    memory = {"medium": "Memory", "sizeLimit": "8Gi"}
    celery, pod = SETS["verify"], PODS["verify"]
    for volumes, mounts in (
        (celery["extraVolumes"], celery["extraVolumeMounts"]),
        (pod["spec"]["volumes"], pod["spec"]["containers"][0]["volumeMounts"]),
    ):
        (name,) = [mount["name"] for mount in mounts if mount["mountPath"] == "/dev/shm"]
        assert [volume["emptyDir"] for volume in volumes if volume["name"] == name] == [memory]
    assert celery["safeToEvict"] is False
    assert pod["metadata"]["annotations"] == {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
    assert celery["terminationGracePeriodSeconds"] == pod["spec"]["terminationGracePeriodSeconds"] == 3600
    assert celery["podDisruptionBudget"] == {"enabled": True, "config": {"maxUnavailable": 0}}


def test_workers_have_no_way_to_the_database() -> None:
    (policy,) = [each for each in MANIFESTS if each["kind"] == "NetworkPolicy"]
    assert policy["spec"]["policyTypes"] == ["Egress"]
    ports = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
    assert ports == {53, 8080, 6379, 988, 443, 6443, 22}
    assert all(not each["waitForMigrations"]["enabled"] for each in SETS.values()), "it asks the database"
    assert VALUES["data"]["resultBackendSecretName"] == "airflow-broker-url"


def test_the_files_are_those_that_compose_mounts() -> None:
    """The same clusters.yaml serves both, since its paths are the same."""
    for kind in KINDS:
        (keys,) = [mount for mount in SETS[kind]["extraVolumeMounts"] if mount["name"] == "keys"]
        assert all(path.startswith(f"{keys['mountPath']}/") for path in secrets_of(f"worker-{kind}").values())


def test_connections_are_read_from_the_file_that_both_secrets_have() -> None:
    assert json.loads(VALUES["config"]["workers"]["secrets_backend_kwargs"]) == {"connections_file_path": secrets_of("worker-backup")["connections"]}  # fmt: skip
    assert secrets_of("worker-backup")["connections"] == secrets_of("worker-verify")["connections"]
