"""The command line as a person and a program meet it: output, JSON, exit codes, and what it leaves."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from etcdkeep import cli, errors, naming
from etcdkeep.cli import common, exit_code, main
from etcdkeep.config.loading import CONFIG_VARIABLE
from etcdkeep.site.credentials import FileCredentials
from tests.builders import BACKUP_ID, age_pair, make_entry, make_file, signing_pair
from tests.damaged_snapshots import DAMAGES, sample
from tests.fakes import snapshot_status

PREFIX = naming.set_prefix("harbor", BACKUP_ID)
LIST_KEYS = ["cluster", "backup_id", "taken_at", "revision", "total_keys", "live_keys", "size_bytes", "levels", "state", "age_s", "restorable", "pinned"]  # fmt: skip
STATUS_KEYS = ["hash", "revision", "total_keys", "live_keys", "size_bytes", "page_size", "ok", "problems"]


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def run(capsys):
    """Run the command line as ``python -m etcdkeep`` does."""

    def invoke(*args):
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        return Answer(ended.value.code or 0, *capsys.readouterr())

    return invoke


@pytest.fixture
def laptop(site, tmp_path, monkeypatch):
    """A machine with the configuration and the age identity, and a repository with one published set."""
    identity, pem = tmp_path / "age-identity.txt", tmp_path / "signing-key.pem"
    identity.write_bytes(age_pair()[0])
    pem.write_bytes(signing_pair()[0])
    site.backup()
    repository = f"file://{tmp_path}/repository"
    signing = {"key": {"path": str(pem)}, "public_keys": [signing_pair()[1]]}
    entries = [make_entry(name=name, repository=repository, signing=signing) for name in ("harbor", "empty")]
    config = tmp_path / "clusters.yaml"
    config.write_text(make_file(*entries))
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    monkeypatch.setenv(common.IDENTITY_VARIABLE, str(identity))
    return site


def damage(site, name=naming.ETCD_ARTIFACT):
    path = site.folder / "repository" / PREFIX / name
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1])


def test_list_gives_programs_exactly_the_fixed_keys(laptop, run):
    (row,) = run("list", "harbor", "--json").json
    assert list(row) == LIST_KEYS
    manifest = laptop.repository.get("harbor", BACKUP_ID).manifest
    assert row | {"age_s": 0} == {
        "cluster": "harbor",
        "backup_id": BACKUP_ID,
        "taken_at": manifest.taken_at.isoformat(),
        "revision": 8,
        "total_keys": snapshot_status(laptop.members[0].database)["totalKey"],
        "live_keys": None,
        "size_bytes": manifest.snapshot.size_bytes,
        "levels": [],
        "state": "unverified",
        "age_s": 0,
        "restorable": None,
        "pinned": False,
    }
    assert isinstance(row["age_s"], int)
    assert run("verify", f"harbor/{BACKUP_ID}").code == 0
    (row,) = run("list", "--json").json
    assert (row["state"], row["levels"], row["live_keys"]) == ("good", ["stored", "sealed", "etcd", "pki"], 4)


def test_list_shows_people_a_table_that_a_pipe_does_not_cut(laptop, run):
    answer = run("list")
    assert answer.code == 0
    (head, row) = answer.out.splitlines()
    assert head.split() == [
        "cluster",
        "backup",
        "taken",
        "(UTC)",
        "age",
        "revision",
        "keys",
        "live",
        "size",
        "stored",
        "levels",
        "state",
    ]
    assert BACKUP_ID in row
    assert row.split()[-1] == "unverified"


def test_list_of_a_cluster_without_backups_is_empty(laptop, run):
    answer = run("list", "empty", "--json")
    assert (answer.code, answer.json) == (0, [])
    answer = run("list", "empty")
    assert (answer.code, answer.out) == (0, "")
    assert answer.err.startswith(
        f"empty: no backup in file://{laptop.folder}/repository. To take one, trigger backup__empty"
    )
    answer = run("list")
    assert len(answer.out.splitlines()) == 2
    assert "empty: no backup in" in answer.err


def test_list_shows_a_forged_set_as_foreign_with_what_is_known(laptop, run):
    damage(laptop, naming.MANIFEST)
    (row,) = run("list", "harbor", "--json").json
    assert (row["state"], row["revision"], row["size_bytes"], row["total_keys"]) == ("foreign", None, None, None)
    assert row["taken_at"] == "2026-11-23T02:30:00+00:00"
    assert run("list", "harbor").out.splitlines()[1].split()[-1] == "foreign"


def test_list_shows_the_others_when_one_cluster_cannot_be_listed(laptop, run, tmp_path, monkeypatch):
    wrong = tmp_path / "file"
    wrong.write_text("")
    entries = [make_entry(repository=f"file://{tmp_path}/repository"), make_entry(name="lost", repository=f"file://{wrong}/x"), make_entry(name="bad", spool="x")]  # fmt: skip
    config = tmp_path / "two.yaml"
    config.write_text(make_file(*entries))
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    answer = run("list", "--json")
    assert [row["cluster"] for row in answer.json] == ["harbor"]
    assert answer.code == 1
    assert "is a file or a symbolic link" in answer.err
    assert "clusters[2] (bad).spool" in answer.err


def test_list_of_an_unknown_cluster_is_a_configuration_error(laptop, run):
    answer = run("list", "nobody")
    assert answer.code == 2
    assert "cluster 'nobody' is not configured in" in answer.err
    assert "usable are: harbor, empty" in answer.err


def test_show_tells_people_and_programs_what_is_in_a_set(laptop, run):
    assert run("verify", f"harbor/{BACKUP_ID}", "--json").code == 0
    for name in ("harbor", f"harbor/{BACKUP_ID}"):
        answer = run("show", name)
        assert answer.code == 0
        for text in (
            BACKUP_ID,
            "good",
            "backup__harbor manual",
            "cp-0 (usable)",
            naming.ETCD_ARTIFACT,
            "stored, sealed, etcd, pki",
        ):
            assert text in answer.out
    document = run("show", f"harbor/{BACKUP_ID}", "--json").json
    assert document["backup_id"] == BACKUP_ID
    assert document["state"] == "good"
    assert len(document["verifications"]) == 1


@pytest.mark.parametrize(
    ("profile", "identity"),
    [
        ("kubeadm", "UID of kube-system {kube_system}, etcd cluster id {etcd}"),
        ("gke-user-kubeception", "UID of namespace harbor {namespace}, etcd cluster id {etcd}; of its admin cluster: UID of kube-system {kube_system}"),
    ],
)  # fmt: skip
def test_show_says_of_which_cluster_a_uid_is(laptop, run, tmp_path, profile, identity):
    signing = {"public_keys": [signing_pair()[1]]}
    entry = make_entry(profile=profile, repository=f"file://{tmp_path}/repository", signing=signing)
    (tmp_path / "clusters.yaml").write_text(make_file(entry))
    found = laptop.repository.get("harbor", BACKUP_ID).manifest.identity
    told = identity.format(kube_system=found.kube_system_uid, namespace=found.namespace_uid, etcd=found.etcd_cluster_id)
    assert f"identity     {told}\n" in run("show", f"harbor/{BACKUP_ID}").out


def test_what_restores_left_cannot_be_searched_for_without_a_backup(laptop, run):
    answer = run("restore-leftovers", "empty")
    assert (answer.code, answer.out) == (1, "")
    for words in ("only a backup says which nodes or pods to search", "'empty' has no good", "list empty", ".etcdkeep"):
        assert words in answer.err


def test_verify_without_an_id_takes_the_newest_set_which_may_not_be_good_yet(laptop, run):
    answer = run("verify", "harbor")
    assert answer.code == 0
    assert answer.out.startswith(f"harbor/{BACKUP_ID}: good; levels stored, sealed, etcd, pki")
    assert laptop.repository.get("harbor", BACKUP_ID).state == "good"


def test_verify_of_a_damaged_set_ends_with_3_and_marks_it(laptop, run):
    damage(laptop)
    answer = run("verify", f"harbor/{BACKUP_ID}", "--json")
    assert answer.code == 3
    assert answer.json["ok"] is False
    assert "in the repository has" in answer.json["problems"][0]
    assert laptop.repository.get("harbor", BACKUP_ID).state == "bad"
    people = run("verify", f"harbor/{BACKUP_ID}")
    assert "BAD" in people.out
    assert "bad: etcd.db.zst.age" in people.out


def test_verify_can_leave_no_record(laptop, run):
    assert run("verify", f"harbor/{BACKUP_ID}", "--no-record").code == 0
    assert laptop.repository.get("harbor", BACKUP_ID).verifications == ()


def test_verify_without_an_identity_says_how_far_it_came(laptop, run, monkeypatch):
    monkeypatch.delenv(common.IDENTITY_VARIABLE)
    answer = run("verify", f"harbor/{BACKUP_ID}")
    assert answer.code == 4
    assert "not verified; levels stored" in answer.out
    assert "only the stored bytes were compared: set ETCDKEEP_AGE_IDENTITY" in answer.err


def test_verify_with_a_wrong_identity_is_not_a_bad_set(laptop, run, tmp_path, monkeypatch):
    other = tmp_path / "other.txt"
    other.write_bytes(age_pair("other")[0])
    monkeypatch.setenv(common.IDENTITY_VARIABLE, str(other))
    assert run("verify", f"harbor/{BACKUP_ID}").code == 4
    assert laptop.repository.get("harbor", BACKUP_ID).state == "unverified"


def test_unseal_gives_the_plain_files_private(laptop, run, tmp_path):
    target = tmp_path / "plain"
    answer = run("unseal", f"harbor/{BACKUP_ID}", "--to", target)
    assert answer.code == 0
    assert [Path(line).name for line in answer.out.splitlines()] == [
        "access", "access.tar", "control-plane", "control-plane.tar", "etcd.db", "manifest.json", "manifest.json.sig",
    ]  # fmt: skip
    assert (target / "etcd.db").read_bytes() == laptop.members[0].database
    assert (target / "control-plane/pki/sa.key").read_bytes() == (laptop.folder / "kubernetes/pki/sa.key").read_bytes()
    assert (target / "control-plane/manifests/etcd.yaml").is_file()
    assert (target / "access/ssh_key").read_bytes() == laptop.access_files()["ssh_key"]
    for path in (target, *target.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def not_there(laptop, target, monkeypatch):
    return "harbor/20261124T000000Z-00000000"


def is_damaged(laptop, target, monkeypatch):
    damage(laptop)


def is_damaged_last(laptop, target, monkeypatch):
    damage(laptop, naming.ACCESS_ARTIFACT)


def is_forged(laptop, target, monkeypatch):
    damage(laptop, naming.MANIFEST)


def is_lost(laptop, target, monkeypatch):
    laptop.repository.store.delete(PREFIX + naming.ACCESS_ARTIFACT)


def has_no_identity(laptop, target, monkeypatch):
    monkeypatch.delenv(common.IDENTITY_VARIABLE)


def has_no_identity_file(laptop, target, monkeypatch):
    monkeypatch.setenv(common.IDENTITY_VARIABLE, "/nowhere")


def has_another_identity(laptop, target, monkeypatch):
    other = target.parent / "other.txt"
    other.write_bytes(age_pair("other")[0])
    monkeypatch.setenv(common.IDENTITY_VARIABLE, str(other))


def is_interrupted(laptop, target, monkeypatch):
    def interrupt(*args):
        (target / "etcd.db").write_bytes(b"plain")
        raise KeyboardInterrupt

    monkeypatch.setattr("etcdkeep.cli.sets.unseal_set", interrupt)


UNSEAL_FAILURES = [
    pytest.param(not_there, 1, id="not-there"),
    pytest.param(is_damaged, 3, id="damaged"),
    pytest.param(is_damaged_last, 3, id="last-artifact-damaged"),
    pytest.param(is_forged, 3, id="forged"),
    pytest.param(is_lost, 1, id="artifact-lost"),
    pytest.param(has_no_identity, 4, id="no-identity"),
    pytest.param(has_no_identity_file, 4, id="no-identity-file"),
    pytest.param(has_another_identity, 4, id="wrong-identity"),
    pytest.param(is_interrupted, 1, id="interrupted"),
]


@pytest.mark.parametrize(("what", "code"), UNSEAL_FAILURES)
@pytest.mark.parametrize("target_exists", [False, True])
def test_a_failed_unseal_leaves_nothing(laptop, run, tmp_path, monkeypatch, what, code, target_exists):
    target = tmp_path / "plain"
    if target_exists:
        target.mkdir()
    name = what(laptop, target, monkeypatch) or f"harbor/{BACKUP_ID}"
    assert run("unseal", name, "--to", target).code == code
    assert target.exists() is target_exists
    assert not target_exists or list(target.iterdir()) == []


def test_unseal_never_writes_among_other_files(laptop, run, tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/notes").write_text("mine")
    answer = run("unseal", f"harbor/{BACKUP_ID}", "--to", tmp_path / "plain")
    assert (answer.code, "is not empty" in answer.err) == (1, True)
    assert [path.name for path in (tmp_path / "plain").iterdir()] == ["notes"]


def test_a_bad_set_may_be_unsealed_by_name_and_is_not_chosen(laptop, run, tmp_path):
    laptop.repository.store.delete(PREFIX + naming.ACCESS_ARTIFACT)
    assert run("verify", "harbor").code == 3
    answer = run("unseal", "harbor", "--to", tmp_path / "plain")
    assert (answer.code, "has no good backup" in answer.err) == (1, True)


def test_status_gives_programs_exactly_the_fixed_keys(run, tmp_path, database):
    file = tmp_path / "snapshot.db"
    file.write_bytes(database)
    answer = run("status", file, "--json")
    assert answer.code == 0
    assert list(answer.json) == STATUS_KEYS
    status = snapshot_status(database)
    assert (answer.json["hash"], answer.json["total_keys"], answer.json["size_bytes"]) == (status["hash"], status["totalKey"], status["totalSize"])  # fmt: skip
    assert (answer.json["ok"], answer.json["problems"]) == (True, [])
    assert "live_keys    4" in run("status", file).out


def both_metas_gone(data):
    return data[:40] + b"\xff" * 8 + data[48 : 4096 + 40] + b"\xff" * 8 + data[4096 + 48 :]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param(lambda data: data[:-1], 3, id="cut"),
        pytest.param(lambda data: data[:-32] + b"\0" * 32, 3, id="trailer"),
        pytest.param(both_metas_gone, 3, id="both-metas"),
        pytest.param(lambda data: DAMAGES[next(iter(DAMAGES))].apply(sample()), 3, id="structure"),
    ],
)
def test_status_of_a_damaged_file_is_json_and_3(run, tmp_path, database, change, code):
    file = tmp_path / "snapshot.db"
    file.write_bytes(change(database))
    answer = run("status", file, "--json")
    assert answer.code == code
    assert list(answer.json) == STATUS_KEYS
    assert answer.json["ok"] is False
    assert answer.json["problems"]
    people = run("status", file)
    assert people.code == code
    assert "damaged: " in people.err


@pytest.mark.parametrize("content", [pytest.param(None, id="missing"), pytest.param(b"", id="empty"), pytest.param(b"text", id="text")])  # fmt: skip
def test_status_of_what_is_no_snapshot_is_2(run, tmp_path, content):
    file = tmp_path / "snapshot.db"
    if content is not None:
        file.write_bytes(content)
    answer = run("status", file, "--json")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert run("status", tmp_path).code == 2


def test_keygen_makes_a_pair_that_the_configuration_takes_and_never_overwrites(run, tmp_path):
    answer = run("keygen", "--to", tmp_path / "keys")
    assert answer.code == 0
    settings = {key: value for key, value in make_entry().items() if key not in ("age_recipients", "signing")}
    config = tmp_path / "clusters.yaml"
    config.write_text(
        make_file(settings) + f"defaults:\n{''.join(f'  {line}{chr(10)}' for line in answer.out.splitlines())}"
    )
    assert run("config", "check", config).code == 0
    for path in (tmp_path / "keys").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_text().splitlines()[1] not in answer.out
    before = {path: path.read_bytes() for path in (tmp_path / "keys").iterdir()}
    again = run("keygen", "--to", tmp_path / "keys")
    assert (again.code, "is never overwritten" in again.err) == (1, True)
    assert {path: path.read_bytes() for path in (tmp_path / "keys").iterdir()} == before


def test_config_check_tells_every_problem_and_2(run, tmp_path):
    config = tmp_path / "clusters.yaml"
    config.write_text(make_file(make_entry(schedule="x", spool="x")))
    answer = run("config", "check", config)
    assert answer.code == 2
    assert "clusters[0] (harbor).schedule" in answer.err
    assert "clusters[0] (harbor).spool" in answer.err
    config.write_text(make_file(make_entry()))
    answer = run("config", "check", config)
    assert (answer.code, answer.out) == (0, f"{config}: 1 cluster(s), no problem: harbor\n")


def test_config_prints_its_pages(run, tmp_path):
    assert json.loads(run("config", "schema").out)["properties"]
    (tmp_path / "sample.yaml").write_text(run("config", "example").out)
    assert run("config", "check", tmp_path / "sample.yaml").code == 0


def test_trust_prints_lines_for_every_host(site, tmp_path, monkeypatch, run):
    from etcdkeep.adapters.ssh.node import ScannedKey
    from etcdkeep.cli import keys

    site.kube.nodes["cp-0"] = [{"type": "InternalIP", "address": "fd00::1"}]
    config = tmp_path / "clusters.yaml"
    ssh = {"jump": {"host": "bastion", "key": {"path": str(config)}}, "key": {"path": str(config)}}
    config.write_text(make_file(make_entry(ssh=ssh)))
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    monkeypatch.setattr("etcdkeep.site.site.Site.api", site.kube)
    monkeypatch.setattr(keys, "credentials_here", FileCredentials)
    monkeypatch.setattr(
        keys, "scan_host_keys", lambda target, jump=None: (ScannedKey(f"{target.host} ssh-ed25519 AAAA", "SHA256:x"),)
    )
    answer = run("trust", "harbor")
    assert answer.code == 0
    assert answer.out.splitlines() == [
        "# ssh.jump.host_keys:",
        "# SHA256:x",
        "- bastion ssh-ed25519 AAAA",
        "# ssh.host_keys:",
        "# node cp-0",
        "# SHA256:x",
        "- fd00::1 ssh-ed25519 AAAA",
    ]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.SetNameInvalid("x"), 2),
        (errors.ConfigError("x"), 2),
        (errors.SnapshotUnreadable("x"), 2),
        (errors.SnapshotDamaged("x"), 3),
        (errors.SealError("x"), 3),
        (errors.ObjectDamaged("x"), 3),
        (errors.SignatureInvalid("x"), 3),
        (errors.VerificationFailed("x"), 3),
        (errors.SecretUnavailable("x"), 4),
        (errors.IdentityMismatch("x"), 4),
        (errors.StoreUnavailable("x"), 5),
        (errors.Unreachable("x"), 5),
        (errors.NotFound("x"), 1),
        (errors.AccessDenied("x"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_each_kind_of_error_has_its_exit_code_and_no_traceback(run, monkeypatch, error, code):
    def fail(path=None):
        raise error

    assert exit_code(error) == code
    monkeypatch.setattr("etcdkeep.cli.configuration.load_config", fail)
    answer = run("config", "check")
    assert (answer.code, answer.err) == (code, "error: x\n")


def test_an_error_of_the_machine_is_told_without_a_traceback(run, tmp_path):
    (tmp_path / "file").write_text("")
    answer = run("keygen", "--to", tmp_path / "file" / "keys")
    assert answer.code == 1
    assert answer.err.startswith("error: ")


@pytest.mark.parametrize("command", [("show",), ("verify",), ("runbook", "harbor"), ("pin", "--reason", "x")])
@pytest.mark.parametrize("name", ["harbor/yesterday", "harbor/20261332T023000Z-1f0c9a3e"])
def test_a_name_that_cannot_be_that_of_a_backup_is_wrong_usage(laptop, run, command, name):
    answer = run(*command, name)
    assert (answer.code, answer.out) == (2, "")
    assert f"{name!r} is not a backup name; expected CLUSTER/ID" in answer.err


def test_wrong_usage_is_2_and_every_command_has_help():
    runner = CliRunner()
    assert runner.invoke(cli.cli, ["nothing"]).exit_code == 2
    assert runner.invoke(cli.cli, ["status"]).exit_code == 2
    for command in cli.COMMANDS:
        shown = runner.invoke(cli.cli, [command, "--help"])
        assert shown.exit_code == 0
        assert len(shown.output.splitlines()) > 4
    assert "etcdkeep, version" in runner.invoke(cli.cli, ["--version"]).output


@pytest.mark.parametrize("group", [(), ("objects",), ("config",), ("retention",)])
def test_the_list_of_commands_cuts_no_sentence(run, group, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    answer = run(*group, "--help")
    assert answer.code == 0
    assert "..." not in answer.out.partition("Commands:")[2]


def test_status_works_without_the_cloud_clients_in_a_fresh_process(tmp_path, database):
    file = tmp_path / "snapshot.db"
    file.write_bytes(database)
    code = "import sys\nfrom etcdkeep.cli import main\ntry:\n    main()\nfinally:\n    print(sorted({name.partition('.')[0] for name in sys.modules} & {'airflow', 'google', 'kubernetes', 'paramiko', 'requests'}), file=sys.stderr)"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, "status", str(file)], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
