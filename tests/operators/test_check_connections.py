"""``config check --connections`` with Airflow's connections: SSH server and bucket are real, the API is a stand-in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from etcdkeep.cli import main
from etcdkeep.errors import AccessDenied, Unreachable
from tests.builders import age_pair, make_entry, make_file, signing_pair
from tests.connections import give_connection
from tests.fakes import FakeKube, make_members
from tests.gcs_stub import BUCKET, Fault, gcs_stub
from tests.operators.test_hooks import KUBECONFIG
from tests.ssh_server import ED25519, HOST_KEYS, KEY, OTHER_HOST_KEY, Node, line, running

PROJECT = Path(__file__).parents[2]
HOST_KEY = line(HOST_KEYS[ED25519])
EXPECTED = [
    ("API reached", "connection k8s", "version v1.36.2"),
    ("API rights", "connection k8s", "3 etcd member(s), 3 can give a snapshot"),
    ("SSH jump host", "connection ssh_hop", "host key and login"),
    ("SSH node cp-0", "connection ssh_prod", "host key and login"),
    ("sudo on cp-0", "connection ssh_prod", "runs cat, find, tar"),
    ("SSH node cp-1", "connection ssh_prod", "host key and login"),
    ("sudo on cp-1", "connection ssh_prod", "runs cat, find, tar"),
    ("SSH node cp-2", "connection ssh_prod", "host key and login"),
    ("sudo on cp-2", "connection ssh_prod", "runs cat, find, tar"),
    ("repository", "connection google", "list, write, read, delete"),
    ("age identity", "connection age", "opens what is sealed to age_recipients (1)"),
    ("signing key", "connection signing", "trusted for backup, verify, approve, restore"),
]


async def sudo_works(command):
    if "sudo" not in command.command:
        command.exit(1)
    elif any(word in command.command for word in ("cat", "find", "tar", "true")):
        command.stdout.write(b"")
        command.exit(0)
    else:
        command.exit(1)


async def sudo_asks(command):
    command.stderr.write(b"sudo: a password is required\n")
    command.exit(1)


@pytest.fixture(scope="module")
def server():
    with running(Node()) as started:
        yield started


@pytest.fixture
def world(server, monkeypatch, tmp_path, database):
    """A sound cluster all of whose connections are Airflow's; what a test changes it gives anew."""
    server.behave, server.forwarding = sudo_works, True
    kube = FakeKube(*make_members(3, database))
    monkeypatch.setattr("etcdkeep.adapters.kube.client.KubeApiClient", lambda connection: kube)
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")
    ssh = {"conn_type": "ssh", "login": "ubuntu", "port": server.port}
    extra = {"private_key": KEY.decode(), "host_key": HOST_KEY}
    give_connection(monkeypatch, "ssh_prod", "uri", **ssh, extra=extra)
    give_connection(monkeypatch, "ssh_hop", host="127.0.0.1", **ssh, extra=extra)
    give_connection(monkeypatch, "k8s", conn_type="kubernetes", extra={"kube_config": KUBECONFIG})
    give_connection(monkeypatch, "google", conn_type="google_cloud_platform", extra={"num_retries": 0})
    give_connection(monkeypatch, "age", conn_type="generic", password=age_pair()[0].decode())
    give_connection(monkeypatch, "signing", conn_type="generic", extra={"private_key": signing_pair()[0].decode()})
    with gcs_stub() as stub:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", stub.url)
        yield World(kube, stub, tmp_path / "clusters.yaml", monkeypatch)


class World:
    def __init__(self, kube, stub, config, monkeypatch):
        self.kube, self.stub, self.config = kube, stub, config
        monkeypatch.setenv("ETCDKEEP_CONFIG", str(config))
        self.configure()

    def configure(self, **changes):
        entry = {
            "kubeconfig": {"connection": "k8s"},
            "ssh": {
                "connection": "ssh_prod",
                "jump": {"connection": "ssh_hop"},
                "addresses": {f"cp-{index}": "127.0.0.1" for index in range(3)},
            },
            "repository": f"gs://{BUCKET}/etcd",
            "repository_connection": "google",
            "age_identity": {"connection": "age"},
            "signing": {"key": {"connection": "signing"}, "public_keys": [signing_pair()[1]]},
        }
        self.config.write_text(make_file(make_entry(**{**entry, **changes})))


@pytest.fixture
def check(capsys):
    def run(*options):
        with pytest.raises(SystemExit) as ended:
            main(["config", "check", "--connections", *options])
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return run


def lines(check):
    code, out, _ = check("--json")
    return code, {each["tried"]: (each["result"], each["found"]) for each in json.loads(out)}


def test_each_is_tried_and_has_a_line_of_its_own(world, check):
    code, out, err = check()
    assert code == 0
    head, *rows = out.splitlines()
    assert head.split() == ["cluster", "tried", "from", "result", "found"]
    for row, (tried, by, found) in zip(rows, EXPECTED, strict=True):
        assert row.startswith("harbor")
        assert f"{tried} " in row
        assert f" {by} " in row
        assert " ok " in row
        assert found in row
    assert "error" not in err
    assert world.stub.objects == {}, "what was written is deleted again"


def test_json_has_the_same(world, check):
    code, out, _ = check("--json")
    assert code == 0
    assert [(each["tried"], each["from"]) for each in json.loads(out)] == [(tried, by) for tried, by, _ in EXPECTED]
    assert {each["result"] for each in json.loads(out)} == {"ok"}


def fail_key(world, server, monkeypatch):
    give_connection(
        monkeypatch, "signing", conn_type="generic", extra={"private_key": signing_pair("other")[0].decode()}
    )


def fail_identity(world, server, monkeypatch):
    give_connection(monkeypatch, "age", conn_type="generic", password=age_pair("other")[0].decode())


def fail_bucket(world, server, monkeypatch):
    world.stub.faults.append(Fault("status", method="POST", status=403, times=9))


def fail_delete(world, server, monkeypatch):
    world.stub.faults.append(Fault("status", method="DELETE", status=403, times=9))


def fail_host_key(world, server, monkeypatch):
    extra = {"private_key": KEY.decode(), "host_key": line(OTHER_HOST_KEY)}
    give_connection(monkeypatch, "ssh_prod", conn_type="ssh", login="ubuntu", port=server.port, extra=extra)


def fail_login(world, server, monkeypatch):
    extra = {"private_key": KEY.decode(), "host_key": HOST_KEY}
    give_connection(monkeypatch, "ssh_prod", conn_type="ssh", login="nobody", port=server.port, extra=extra)


def fail_field(world, server, monkeypatch):
    extra = {"private_key": KEY.decode(), "no_host_key_check": True}
    give_connection(monkeypatch, "ssh_prod", conn_type="ssh", login="ubuntu", port=server.port, extra=extra)


def fail_sudo(world, server, monkeypatch):
    server.behave = sudo_asks


def fail_exec(world, server, monkeypatch):
    world.kube.faults.add("etcdctl", error=AccessDenied("HTTP 403: pods/exec is forbidden"), at=0)


def fail_api(world, server, monkeypatch):
    world.kube.faults.add("GET /version", error=Unreachable("no answer"), at=0)


NODES = {f"SSH node cp-{index}" for index in range(3)}
SUDO = {f"sudo on cp-{index}" for index in range(3)}


@pytest.mark.parametrize(
    ("break_it", "failed", "said", "code"),
    [
        pytest.param(fail_key, {"signing key"}, "is not among signing.public_keys", 2, id="untrusted-key"),
        pytest.param(fail_identity, {"age identity"}, "none of the 1 age identities", 4, id="other-identity"),
        pytest.param(fail_bucket, {"repository"}, "403", 1, id="bucket-not-writable"),
        pytest.param(fail_delete, {"repository"}, "403", 1, id="bucket-keeps-all"),
        pytest.param(fail_host_key, NODES, "the host shows the host key", 1, id="host-key"),
        pytest.param(fail_login, NODES, "the server refused the key", 1, id="login"),
        pytest.param(fail_field, NODES, "sets no_host_key_check", 2, id="field"),
        pytest.param(fail_sudo, SUDO, "sudo does not allow it without a password", 1, id="sudo"),
        pytest.param(fail_exec, {"API rights"}, "pods/exec is forbidden", 1, id="exec"),
        pytest.param(fail_api, {"API reached"}, "no answer", 5, id="api-down"),
    ],
)
def test_one_that_fails_is_named_and_the_others_are_tried(
    world, server, check, monkeypatch, break_it, failed, said, code
):
    break_it(world, server, monkeypatch)
    found_code, out, err = check()
    json_code, found = lines(check)
    assert {name for name, (result, _) in found.items() if result == "failed"} == failed
    assert all(said in found[name][1] for name in failed)
    assert (found_code, json_code) == (code, code)
    assert out.count(" failed ") == len(failed)
    assert all(f"error: harbor: {name}: " in err for name in failed)
    assert "PRIVATE KEY" not in out + err


def test_what_depends_on_another_is_not_tried(world, check):
    fail_api(world, None, None)
    _, found = lines(check)
    assert found["API rights"] == ("not tried", "the API was not reached")
    assert found["SSH node cp-0"][0] == "ok", "ssh.addresses say where it is"


def test_failures_of_two_kinds_end_with_1(world, server, check, monkeypatch):
    fail_api(world, server, monkeypatch)
    fail_identity(world, server, monkeypatch)
    assert check()[0] == 1


def test_a_repository_beside_a_spool_of_its_own_may_keep_everything(world, check, tmp_path):
    world.configure(spool=f"file://{tmp_path}/spool")
    assert lines(check)[1]["spool"][0] == "ok"
    fail_delete(world, None, None)
    code, found = lines(check)
    assert code == 0
    assert "nothing can be deleted" in found["repository"][1]


def test_what_is_not_configured_is_no_failure(world, check):
    world.configure(age_identity=None, signing={"public_keys": [signing_pair()[1]]})
    code, found = lines(check)
    assert code == 0
    assert found["age identity"][0] == found["signing key"][0] == "not tried"


def test_the_identity_of_indexes_opens_those_alone(world, check, monkeypatch):
    identity, recipient = age_pair("index")
    give_connection(monkeypatch, "index", conn_type="generic", password=identity.decode())
    world.configure(index_recipients=[recipient], index_identity={"connection": "index"})
    opened = "opens what is sealed to index_recipients (1), and nothing that is sealed to age_recipients"
    assert lines(check)[1]["index identity"] == ("ok", opened)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"index_identity": {"connection": "age"}}, "opens whole backups"),
        ({"index_identity": {"connection": "index"}}, "no index is sealed to it"),
    ],
    ids=["opens-backups", "no-recipients"],
)
def test_an_identity_of_indexes_that_opens_too_much_or_nothing(world, check, monkeypatch, change, said):
    give_connection(monkeypatch, "index", conn_type="generic", password=age_pair("index")[0].decode())
    world.configure(**change)
    code, found = lines(check)
    assert code != 0
    assert found["index identity"][0] == "failed"
    assert said in found["index identity"][1]


def test_several_clusters_and_one_by_its_name(world, check):
    entry = make_entry(kubeconfig={"connection": "k8s"}, repository=f"gs://{BUCKET}/etcd", ssh={"connection": "nobody"})
    world.config.write_text(make_file(entry, {**entry, "name": "other"}))
    code, out, err = check()
    assert code != 0
    assert {row.split()[0] for row in out.splitlines()[1:]} == {"harbor", "other"}
    assert "error: other: SSH node cp-0: Airflow has no connection 'nobody'" in err
    assert {row.split()[0] for row in check("--cluster", "other")[1].splitlines()[1:]} == {"other"}
    assert "cluster 'nowhere' is not configured" in check("--cluster", "nowhere")[2]


def test_a_file_with_problems_is_not_tried(world, check):
    world.configure(shedule="x")
    code, out, err = check()
    assert (code, out) == (2, "")
    assert "unknown key" in err


MAKE_CONNECTION = """
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from airflow.models import Connection
from airflow.configuration import conf
engine = create_engine(conf.get("database", "sql_alchemy_conn"))
Connection.metadata.create_all(engine, tables=[Connection.__table__, *[t for t in Connection.metadata.tables.values() if t.name == "team"]])
with Session(engine) as session:
    session.add(Connection(conn_id="age_of_the_interface", conn_type="generic", password=open("identity").read()))
    session.commit()
"""


def test_a_connection_of_airflow_s_interface_is_found_beside_airflow(tmp_path):
    """In a process of its own, as an administrator runs it in a scheduler's container."""
    (tmp_path / "identity").write_bytes(age_pair()[0])
    entry = make_entry(
        repository=f"file://{tmp_path}/repository",
        kubeconfig={"path": "/nowhere"},
        age_identity={"connection": "age_of_the_interface"},
    )
    (tmp_path / "clusters.yaml").write_text(make_file(entry))
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "_AIRFLOW"))},
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "PYTHONPATH": f"{PROJECT}/include:{PROJECT}/plugins",
    }
    subprocess.run([sys.executable, "-c", MAKE_CONNECTION], cwd=tmp_path, env=environ, check=True, capture_output=True)
    command = [sys.executable, "-m", "etcdkeep", "config", "check", "clusters.yaml", "--connections", "--json"]
    ended = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    found = {each["tried"]: each["result"] for each in json.loads(ended.stdout)}
    assert found["age identity"] == "ok", ended.stderr
    assert found["API reached"] == "failed"
    assert "/nowhere" in ended.stdout
    assert ended.returncode == 4, "neither the kubeconfig nor the SSH and signing keys can be read here"


def test_trust_reads_connections_too(world, capsys):
    """Else whoever has everything in connections could not get the host keys that these need."""
    with pytest.raises(SystemExit) as ended:
        main(["trust", "harbor"])
    said = capsys.readouterr()
    assert not ended.value.code, said.err
    assert [line for line in said.out.splitlines() if line.startswith("# ssh.")] == [
        "# ssh.jump.host_keys:",
        "# ssh.host_keys:",
    ]
    key = " ".join(HOST_KEY.split()[-2:])
    assert sum(key in line for line in said.out.splitlines()) == 4
