"""The metrics of a cluster: the same as what `check` says, on the same repository."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from etcdkeep import naming
from etcdkeep.cli import main
from etcdkeep.config.loading import CONFIG_VARIABLE
from etcdkeep.documents import write
from etcdkeep.freshness.check import Checked
from etcdkeep.freshness.report import EXIT_CODES, TOPICS, CheckFinding, CheckReport
from etcdkeep.metrics.families import CHECK_STATUS, METRICS
from etcdkeep.metrics.samples import samples_of
from etcdkeep.sets.results import DrillResult, Rehearsal
from tests.builders import NOW, make_verification
from tests.shelf import Shelf


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    made = Shelf(tmp_path, rehearse=False)
    monkeypatch.setenv(CONFIG_VARIABLE, str(made.write_config()))
    return made


@pytest.fixture
def run(capsys):
    """Run a command; return its exit code and standard output."""

    def invoke(*words):
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        return ended.value.code or 0, capsys.readouterr().out

    return invoke


@pytest.fixture
def measure(shelf, run):
    """Return every value by name and labels, as Prometheus's own parser reads what the command prints."""

    def values():
        shelf.write_config()
        code, text = run("metrics")
        assert code == 0
        read = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        found = {(sample.name, *sorted(sample.labels.items())): sample.value for sample in read}
        assert len(found) == len(read), "a series was given twice"
        return found

    return values


def of(values, name, **labels):
    return values.get((name, *sorted({"cluster": "harbor", **labels}.items())))


def statuses(values):
    return {topic: of(values, "etcdkeep_check_status", topic=topic) for topic in TOPICS}


# --- what rings in check rings in the metric ----------------------------------------------------------------------------


def stopped(shelf):
    """The scheduler is stopped, or the DAG paused: after some good nights nothing is written any more."""
    for day in (6, 5, 4):
        shelf.add(day)


def killed(shelf):
    """The scheduler was stopped in the middle of a run."""
    shelf.add(1)
    write(shelf.store, naming.attempt_name("harbor", shelf.identifier(0.5, "11111111")), b"{}")


def bad_for_a_week(shelf):
    shelf.add(8)
    for day in range(7):
        shelf.add(day, "bad")


def unreachable(shelf):
    (shelf.folder / "file").write_text("")
    shelf.settings["repository"] = f"file://{shelf.folder}/file/repository"


def clock_wrong(shelf):
    """Objects carry a time two hours ahead of this machine's."""
    shelf.add(0)
    shelf.age(-2 / 24)


SCENES = [
    pytest.param(stopped, {"good": "CRITICAL"}, id="scheduler-stopped-or-dag-paused"),
    pytest.param(killed, {"attempts": "WARNING"}, id="scheduler-killed-in-a-run"),
    pytest.param(bad_for_a_week, {"good": "CRITICAL", "newest": "WARNING"}, id="all-bad-for-a-week"),
    pytest.param(lambda shelf: None, {"good": "CRITICAL"}, id="repository-empty"),
    pytest.param(unreachable, {"repository": "UNKNOWN"}, id="repository-unreachable"),
    pytest.param(clock_wrong, {"clock": "UNKNOWN"}, id="clock-wrong"),
    pytest.param(lambda shelf: shelf.add(0), {}, id="nothing-wrong"),
]


@pytest.mark.parametrize(("scene", "rings"), SCENES)
def test_what_rings_in_check_rings_in_the_metric(shelf, run, measure, scene, rings):
    scene(shelf)
    values = measure()
    code, out = run("check", "--json")
    (cluster,) = json.loads(out)["clusters"]
    by_check = {finding["topic"]: finding["status"] for finding in cluster["findings"]}
    assert {topic: status for topic, status in by_check.items() if status != "OK"} == rings
    readable = "repository" not in rings
    expected = dict.fromkeys(TOPICS, "OK" if readable else "UNKNOWN") | by_check
    assert statuses(values) == {topic: EXIT_CODES[status] for topic, status in expected.items()}
    assert code == EXIT_CODES[cluster["status"]]
    assert of(values, "etcdkeep_repository_readable") == readable


def test_an_unreachable_repository_is_a_metric_and_no_number_is_made_up(shelf, measure):
    shelf.add(0)
    known = {key for key in measure() if len(key) > 1}
    unreachable(shelf)
    values = measure()
    assert {key[0] for key in values} == {
        "etcdkeep_configuration_valid", "etcdkeep_repository_readable", "etcdkeep_measured_timestamp_seconds", "etcdkeep_check_status",
    }  # fmt: skip
    assert {key for key in values if len(key) > 1} <= known, "a series of its own would be missed by rules"
    assert abs(of(values, "etcdkeep_measured_timestamp_seconds") - datetime.now(UTC).timestamp()) < 60


def test_a_topic_that_is_new_to_check_is_a_metric_at_once():
    report = CheckReport("harbor", (CheckFinding("CRITICAL", "news", "x"), CheckFinding("WARNING", "news", "y")))
    sent = {sample.labels[1]: sample.value for sample in samples_of(Checked(report, NOW)) if sample.metric == CHECK_STATUS}  # fmt: skip
    assert sent["news"] == EXIT_CODES["CRITICAL"]
    assert set(sent) == {*TOPICS, "news"}


def test_an_entry_that_is_not_usable_is_a_metric(shelf, run, monkeypatch):
    shelf.add(0)
    config = shelf.write_config()
    assert "etcdkeep_configuration_valid 1.0" in run("metrics")[1]
    config.write_text(config.read_text() + "- {name: wrong}\n")
    text = run("metrics")[1]
    assert "etcdkeep_configuration_valid 0.0" in text
    assert 'etcdkeep_repository_readable{cluster="harbor"} 1.0' in text
    monkeypatch.setenv(CONFIG_VARIABLE, str(shelf.folder / "nothing.yaml"))
    code, text = run("metrics")
    assert code == 0
    assert "etcdkeep_configuration_valid 0.0" in text
    assert "cluster=" not in text


# --- the numbers ----------------------------------------------------------------------------------------------------------


def days_ago(shelf, days):
    return (shelf.now - timedelta(days=days)).timestamp()


def test_the_newest_of_each_kind(shelf, measure):
    shelf.settings["drill"] = {}
    shelf.settings["rehearse"] = True
    shelf.add(4, drilled=True)
    shelf.add(3, restorable="yes")
    shelf.add(2, restorable="no")
    shelf.add(1, "bad")
    write(shelf.store, naming.attempt_name("harbor", shelf.identifier(0.25, "11111111")), b"{}")
    values = measure()
    kinds = ("attempt", "good", "restorable", "drilled")
    newest = [of(values, f"etcdkeep_last_{kind}_timestamp_seconds") for kind in kinds]
    assert newest == [days_ago(shelf, days) for days in (0.25, 2, 3, 4)]
    limits = {topic: of(values, "etcdkeep_age_limit_seconds", topic=topic, severity="critical") for topic in kinds[1:]}
    assert limits == {"good": 60 * 3600, "restorable": 60 * 3600, "drilled": 60 * 3600}
    assert of(values, "etcdkeep_age_limit_seconds", topic="good", severity="warning") == 36 * 3600


@pytest.mark.parametrize("copied_day", [2, None])
def test_the_newest_of_the_copy_that_is_furthest_behind(shelf, run, measure, tmp_path, copied_day):
    url = f"file://{tmp_path}/copy"
    shelf.settings["copies"] = [{"repository": url}]
    for day in (2, 1):
        shelf.add(day)
        if day == copied_day:
            shelf.write_config()
            assert run("replicate", "harbor")[0] == 0
    newest = of(measure(), "etcdkeep_last_copied_timestamp_seconds")
    assert newest == pytest.approx(days_ago(shelf, copied_day), abs=5) if copied_day else newest == 0


def test_what_never_was_is_0_and_every_state_has_a_number(shelf, measure):
    values = measure()
    for kind in ("attempt", "good", "restorable", "drilled"):
        assert of(values, f"etcdkeep_last_{kind}_timestamp_seconds") == 0
    for state in ("good", "unverified", "bad", "unsigned", "foreign", "moved", "future"):
        assert of(values, "etcdkeep_sets", state=state) == 0
    assert of(values, "etcdkeep_repository_bytes") == 0


def test_sets_by_state_and_their_bytes(shelf, measure):
    for day in (5, 4):
        shelf.add(day)
    shelf.add(3, "bad")
    shelf.add(2, "unverified")
    unsigned = shelf.add(1)
    shelf.store.delete(f"harbor/{unsigned}/{naming.SIGNATURE}")
    values = measure()
    states = {state: of(values, "etcdkeep_sets", state=state) for state in ("good", "bad", "unverified", "unsigned")}
    assert states == {"good": 2, "bad": 1, "unverified": 1, "unsigned": 1}
    files = [path for path in (shelf.folder / "repository/harbor").rglob("*") if path.is_file()]
    assert of(values, "etcdkeep_repository_bytes") == sum(path.stat().st_size for path in files)


def test_the_database_and_its_quota(shelf, measure):
    shelf.settings["freshness"] = {"quota_bytes": 4 * 2**30}
    shelf.add(10, size_bytes=2**30)
    shelf.add(0, size_bytes=2 * 2**30)
    values = measure()
    assert of(values, "etcdkeep_database_bytes") == 2 * 2**30
    assert of(values, "etcdkeep_database_quota_bytes") == 4 * 2**30
    assert of(values, "etcdkeep_database_quota_ratio") == 0.5
    assert math.isclose(of(values, "etcdkeep_database_growth_bytes_per_second"), 2**30 / 864000)


def test_the_first_certificate_to_expire(shelf, measure):
    expires_at = shelf.now + timedelta(days=40)
    shelf.add(0, expires_at=expires_at, expires_first="cp-0:pki/apiserver.crt")
    assert of(measure(), "etcdkeep_certificate_expiry_timestamp_seconds") == expires_at.timestamp()


def test_durations_and_the_estimate_of_a_restore_are_those_of_the_newest_records(shelf, measure):
    shelf.add(2, seconds={"read": 99.0})
    found = shelf.get(shelf.add(1, seconds={"read": 1.5, "etcd": 2.5}))
    repository, at = shelf.repository, shelf.now - timedelta(hours=2)
    for hours, restore_s in ((0, 40.0), (1, 12.5)):
        drill = DrillResult(etcd_version="3.5.16", tool="etcdutl 3.5.16", restore_s=restore_s)
        record = make_verification(at=at + timedelta(hours=hours), complete=False, drill=drill, levels=("drill",))
        repository.record(found, record.model_copy(update={"seconds": {"unseal": restore_s / 2}}))
    repository.record_rehearsal(found, Rehearsal(at=at, restorable="yes", seconds=3.5))
    shelf.age(0.5, f"harbor/attempts/{found.backup_id}")
    shelf.age(0.25, f"harbor/{found.backup_id}/manifest.json")
    values = measure()

    def took(operation, phase):
        return of(values, "etcdkeep_phase_duration_seconds", operation=operation, phase=phase)

    assert (took("verify", "read"), took("verify", "etcd")) == (1.5, 2.5)
    assert (took("drill", "unseal"), took("rehearse", "total"), took("backup", "total")) == (6.25, 3.5, 6 * 3600)
    assert of(values, "etcdkeep_restore_estimate_seconds") == 12.5


def test_every_metric_can_have_a_value(shelf, measure):
    shelf.settings["drill"] = {}
    found = shelf.get(shelf.add(2, expires_at=shelf.now, expires_first="x", restorable="yes", seconds={"read": 1.0}))
    drill = DrillResult(etcd_version="3.5.16", tool="etcdutl 3.5.16", restore_s=1.0)
    shelf.repository.record(found, make_verification(at=shelf.now, complete=False, drill=drill, levels=("drill",)))
    shelf.add(0)
    assert {key[0] for key in measure()} == {metric.name for metric in METRICS} - {
        "etcdkeep_certificate_expiry_timestamp_seconds",  # of the newest good backup alone
        "etcdkeep_last_copied_timestamp_seconds",  # only where there are copies
    }
