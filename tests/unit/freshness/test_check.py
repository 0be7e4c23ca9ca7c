"""``check``: what rings when, for whom, and with which exit code."""

from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest

from etcdkeep import naming
from etcdkeep.cli import main
from etcdkeep.config.loading import CONFIG_VARIABLE
from etcdkeep.documents import write
from etcdkeep.freshness.check import check_cluster
from etcdkeep.freshness.limits import drill_limits, limits_of
from etcdkeep.freshness.report import EXIT_CODES, worst
from etcdkeep.retention.prune import Pruner
from tests.builders import NOW, make_cluster
from tests.shelf import Shelf

GIB = 2**30


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    made = Shelf(tmp_path, rehearse=False)
    monkeypatch.setenv(CONFIG_VARIABLE, str(made.write_config()))
    return made


@pytest.fixture
def run(capsys):
    def invoke(*args):
        with pytest.raises(SystemExit) as ended:
            main(["check", *map(str, args)])
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return invoke


def check(shelf, now=None):
    return check_cluster(shelf.repository, shelf.cluster, now or shelf.now)


def alarms(report):
    return [(finding.status, finding.topic) for finding in report.alarms]


def sentence(report, topic):
    return next(finding.sentence for finding in report.findings if finding.topic == topic)


# --- what rings ------------------------------------------------------------------------------------------------------


def test_fresh_and_good_backups_ring_nothing(shelf):
    for day in (2, 1, 0):
        shelf.add(day)
    report = check(shelf)
    assert (report.status, alarms(report)) == ("OK", [])
    assert report.measures["newest_good_age"].value == 0
    assert report.measures["sets_good"].value == 3


@pytest.mark.parametrize(
    ("hours", "status"), [(35, "OK"), (37, "WARNING"), (59, "WARNING"), (61, "CRITICAL"), (24 * 300, "CRITICAL")]
)
def test_a_backup_that_grows_old_rings_by_the_schedule(shelf, hours, status):
    shelf.add(hours / 24)
    report = check(shelf)
    assert report.status == status
    assert shelf.identifier(hours / 24) in sentence(report, "good")


def test_the_settings_come_before_the_schedule(shelf):
    shelf.settings["freshness"] = {"warn_after": "3h", "fail_after": "5h"}
    shelf.add(4 / 24)
    assert alarms(check(shelf)) == [("WARNING", "good")]
    assert alarms(check(shelf, shelf.now + timedelta(hours=2)))[0] == ("CRITICAL", "good")


def test_an_empty_repository_rings(shelf):
    report = check(shelf)
    assert alarms(report) == [("CRITICAL", "good")]
    assert sentence(report, "good") == "there is no good backup; see python -m etcdkeep list harbor"


def test_a_week_of_bad_backups_rings(shelf):
    shelf.add(8)
    for day in range(7):
        shelf.add(day, "bad")
    report = check(shelf)
    assert alarms(report) == [("CRITICAL", "good"), ("WARNING", "newest")]
    assert "a page is damaged" in sentence(report, "newest")


def test_the_newest_backup_rings_when_it_is_bad_or_stays_unverified(shelf):
    shelf.add(0.5)
    shelf.add(0.01, "unverified")
    assert alarms(check(shelf)) == []
    assert alarms(check(shelf, shelf.now + timedelta(hours=4))) == [("WARNING", "newest")]
    shelf.add(0, "bad")
    assert alarms(check(shelf)) == [("WARNING", "newest")]


def test_a_lost_artifact_rings(shelf):
    identifier = shelf.add(1)
    shelf.add(0)
    shelf.store.delete(f"harbor/{identifier}/{naming.ETCD_ARTIFACT}")
    report = check(shelf)
    assert alarms(report) == [("WARNING", "missing")]
    assert f"{identifier}: {naming.ETCD_ARTIFACT} is not in the repository" in sentence(report, "missing")


def test_a_set_that_is_not_believed_rings(shelf):
    identifier = shelf.add(1)
    shelf.add(0)
    shelf.store.delete(f"harbor/{identifier}/{naming.SIGNATURE}")
    assert alarms(check(shelf)) == [("WARNING", "trust")]


def test_runs_that_left_no_backup_ring(shelf):
    shelf.add(1)
    for hours in (2, 5, 9):
        write(shelf.store, naming.attempt_name("harbor", shelf.identifier(hours / 24, "11111111")), b"{}")
    report = check(shelf)
    assert alarms(report) == [("WARNING", "attempts")]
    assert sentence(report, "attempts").startswith("2 run(s) since"), "the youngest may still be running"
    shelf.add(0)
    assert alarms(check(shelf)) == []


@pytest.mark.parametrize(
    ("days", "status"), [(-1, "CRITICAL"), (0.5, "WARNING"), (29, "WARNING"), (31, "OK")]
)  # fmt: skip
def test_a_certificate_that_ends_rings(shelf, days, status):
    shelf.add(0, expires_at=shelf.now + timedelta(days=days), expires_first="cp-0:pki/apiserver.crt")
    report = check(shelf)
    assert report.status == status
    assert "certificate cp-0:pki/apiserver.crt of the cluster expires on" in sentence(report, "certificates")


@pytest.mark.parametrize(
    ("sizes", "settings", "status"),
    [
        pytest.param([0.5, 0.5], {}, "OK", id="half"),
        pytest.param([1.7, 1.7], {}, "WARNING", id="nearly-full"),
        pytest.param([1.95, 1.95], {}, "CRITICAL", id="full"),
        pytest.param([1.95, 1.95], {"quota_bytes": 8 * GIB}, "OK", id="of-a-larger-quota"),
        pytest.param([0.2, 1.0], {}, "WARNING", id="growing-fast"),
        pytest.param([1.0, 0.2], {}, "OK", id="shrinking"),
    ],
)
def test_a_database_near_its_quota_rings(shelf, sizes, settings, status):
    shelf.settings["freshness"] = settings
    for day, size in zip((10, 0), sizes, strict=True):
        shelf.add(day, size_bytes=int(size * GIB))
    report = check(shelf)
    assert report.status == status
    assert "of its quota of" in sentence(report, "quota")


def test_a_clock_that_is_wrong_rings(shelf):
    shelf.add(0)
    behind, ahead = (check(shelf, shelf.now + timedelta(hours=hours)) for hours in (-2, 70))
    assert ("UNKNOWN", "clock") in alarms(behind)
    assert alarms(ahead)[0] == ("CRITICAL", "good")


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        pytest.param({5: "yes", 0: "no"}, [("CRITICAL", "restorable")], id="not-restorable-for-long"),
        pytest.param({5: "yes", 0: "unknown"}, [("WARNING", "restorable")], id="not-asked-for-long"),
        pytest.param({1: "yes", 0: "no"}, [], id="since-last-night"),
        pytest.param({0: "yes"}, [], id="restorable"),
        pytest.param({0: None}, [("WARNING", "restorable")], id="never"),
    ],
)
def test_backups_that_cannot_be_restored_ring(shelf, verdicts, expected):
    shelf.settings["rehearse"] = True
    for day, verdict in verdicts.items():
        shelf.add(day, restorable=verdict)
    assert alarms(check(shelf)) == expected


@pytest.mark.parametrize(
    ("drill", "days", "expected"),
    [
        (None, None, []),
        ({"schedule": None}, None, []),
        ({}, None, [("WARNING", "drilled")]),
        ({}, 3, [("WARNING", "drilled")]),
        ({}, 1, []),
        ({"schedule": "0 5 * * 0"}, 11, []),
        ({"schedule": "0 5 * * 0"}, 13, [("WARNING", "drilled")]),
    ],
)
def test_backups_that_are_not_drilled_ring_where_drills_are_scheduled(shelf, drill, days, expected):
    shelf.settings["drill"] = drill
    if days:
        shelf.add(days, drilled=True)
    shelf.add(0)
    assert alarms(check(shelf)) == expected


def test_a_failing_week_with_pruning_ends_with_the_last_good_ones_and_rings(tmp_path):
    shelf = Shelf(
        tmp_path, rehearse=False, retention={"daily": 3, "min_good": 3, "keep_bad_days": 1, "max_remove_share": 1}
    )
    good = [shelf.add(day) for day in (12, 11, 10, 9, 8)]
    for day in (7, 6, 5, 4, 3, 2, 1, 0):
        shelf.add(day, "bad")
        Pruner(shelf.repository, shelf.cluster, lambda: shelf.store, f"night {day}", lambda: shelf.now).run()
    assert [identifier for identifier in shelf.ids() if shelf.get(identifier).state == "good"] == good[-3:]
    assert check(shelf).status == "CRITICAL"


# --- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "hours"),
    [
        ({}, (36, 60)),
        ({"schedule": "15 1 * * 1-5"}, (108, 180)),
        ({"schedule": None}, (None, None)),
        ({"schedule": None, "freshness": {"warn_after": "2d"}}, (48, None)),
        ({"freshness": {"warn_after": "4d"}}, (96, 96)),
        ({"freshness": {"fail_after": "20h"}}, (20, 20)),
        ({"freshness": {"warn_after": "3h", "fail_after": "1d6h"}}, (3, 30)),
    ],
)
def test_the_limits_of_a_cluster(settings, hours):
    entry = make_cluster(**{name: value for name, value in settings.items() if value is not None})
    cluster = entry.model_copy(update={"schedule": None}) if settings.get("schedule", "") is None else entry
    limits = limits_of(cluster, NOW)
    assert (limits.warn, limits.fail) == tuple(hour and timedelta(hours=hour) for hour in hours)
    assert drill_limits(cluster, NOW) is None


# --- the command -----------------------------------------------------------------------------------------------------


def test_a_person_reads_what_is_wrong_first(shelf, run):
    shelf.add(5)
    code, out, err = run("harbor")
    lines = out.splitlines()
    assert (code, err, lines[0]) == (2, "", "harbor: CRITICAL")
    assert lines[1].split()[:2] == ["CRITICAL", "good"]
    assert [line.split()[0] for line in lines[2:]] == ["OK"] * (len(lines) - 2)


def test_a_program_gets_every_finding_and_number(shelf, run):
    shelf.add(0)
    code, out, _ = run("--json")
    answer = json.loads(out)
    assert (code, answer["status"]) == (0, "OK")
    (cluster,) = answer["clusters"]
    assert (cluster["cluster"], cluster["status"]) == ("harbor", "OK")
    assert {"good", "clock", "quota"} <= {finding["topic"] for finding in cluster["findings"]}
    assert cluster["measures"]["newest_good_age"]["warn"] == 36 * 3600


def test_a_plugin_prints_one_line_with_performance_data(shelf, run):
    shelf.add(2)
    code, out, _ = run("--nagios")
    first, *more = out.splitlines()
    assert code == 1
    head, graphs = first.split(" | ")
    assert head.startswith("ETCDKEEP WARNING - harbor: newest good backup ")
    number = r"'harbor_[a-z_]+'=-?\d+(s|B)?(;\d*){0,2}"
    assert all(re.fullmatch(number, graph) for graph in graphs.split(" "))
    assert "'harbor_newest_good_age'=17" in graphs
    assert ";129600;216000" in graphs
    assert [line for line in more if "|" in line] == []


def test_a_cluster_without_any_set_is_critical_for_everybody(shelf, run):
    code, out, _ = run("--nagios")
    assert code == 2
    assert out.startswith("ETCDKEEP CRITICAL - harbor: there is no good backup; see python -m etcdkeep list harbor | ")
    assert run("harbor", "--json")[0] == 2


@pytest.mark.parametrize("how", ["unreachable", "no-configuration", "wrong-entry", "unknown-cluster", "wrong-option"])
def test_what_cannot_be_looked_at_is_unknown(shelf, run, how, tmp_path, monkeypatch):
    args = []
    if how == "unreachable":
        (tmp_path / "file").write_text("")
        shelf.settings["repository"] = f"file://{tmp_path}/file/x"
        shelf.write_config()
    elif how == "no-configuration":
        monkeypatch.delenv(CONFIG_VARIABLE)
    elif how == "wrong-entry":
        shelf.add(0)
        shelf.settings["schedule"] = "x"
        shelf.write_config()
    elif how == "unknown-cluster":
        args = ["nobody"]
    else:
        args = ["--nagois"]
    code, out, err = run(*args)
    assert code == 3
    assert how == "wrong-option" or "UNKNOWN" in out
    assert "Traceback" not in out + err


def test_what_is_critical_comes_before_what_is_unknown(shelf, run):
    config = shelf.write_config()
    config.write_text(config.read_text() + "- {name: wrong}\n")
    code, out, _ = run()
    assert code == 2
    assert "harbor: CRITICAL" in out
    assert "configuration: UNKNOWN" in out


def test_the_worst_status_counts():
    assert worst([]) == "OK"
    assert worst(["OK", "WARNING"]) == "WARNING"
    assert worst(["UNKNOWN", "WARNING"]) == "UNKNOWN"
    assert worst(["UNKNOWN", "CRITICAL", "OK"]) == "CRITICAL"
    assert sorted(EXIT_CODES.values()) == [0, 1, 2, 3]
