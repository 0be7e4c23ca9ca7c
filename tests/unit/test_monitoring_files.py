"""deploy/monitoring and docs/monitoring.md know the metrics that exist, and lead where there is something to read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from etcdkeep.freshness.report import TOPICS
from etcdkeep.metrics.families import METRICS

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / "deploy/monitoring"
PAGE = (PROJECT / "docs/monitoring.md").read_text()
RULES = [rule for group in yaml.safe_load((FOLDER / "etcdkeep.rules.yml").read_text())["groups"] for rule in group["rules"]]  # fmt: skip
CASES = yaml.safe_load((FOLDER / "etcdkeep.rules.test.yml").read_text())["tests"]
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
BY_NAME = {metric.name: metric for metric in METRICS}
UNITS = ("_seconds", "_bytes", "_ratio", "_bytes_per_second")
COUNTS = ("etcdkeep_configuration_valid", "etcdkeep_repository_readable", "etcdkeep_check_status", "etcdkeep_sets")


def unknown(expression: str) -> list[str]:
    """Return the metrics of an expression that do not exist, and the labels that they do not have."""
    found = []
    for name, _, selector in re.findall(r"\b(etcdkeep_\w+)(\{([^}]*)\})?", expression):
        if name not in BY_NAME:
            found.append(name)
            continue
        labels = re.findall(r"(\w+)\s*[=!]~?", selector)
        found += [f"{name}{{{label}}}" for label in labels if label not in BY_NAME[name].labels]
    return found


def expressions() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    variables = [each["definition"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    return [*panels, *variables, *(rule["expr"] for rule in RULES)]


def test_names_have_base_units() -> None:
    assert len(BY_NAME) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"etcdkeep_[a-z_]+", metric.name)
        assert metric.name.endswith(UNITS) or metric.name in COUNTS, metric.name
        assert metric.help.endswith(".")


def test_the_page_has_the_table_of_the_metrics() -> None:
    rows = re.findall(r"^\| `(etcdkeep_\w+)` \| (.*?) \| (.*) \|$", PAGE, re.MULTILINE)
    assert rows == [
        (metric.name, ", ".join(f"`{label}`" for label in metric.labels) or "-", metric.help) for metric in METRICS
    ]


def test_only_metrics_that_exist_are_asked_for() -> None:
    assert len(expressions()) > 20
    assert [fault for expression in expressions() for fault in unknown(expression)] == []
    assert unknown('rate(etcdkeep_nothing[5m]) + etcdkeep_sets{topic="x"}') == [
        "etcdkeep_nothing",
        "etcdkeep_sets{topic}",
    ]


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {name for expression in expressions() for name in re.findall(r"etcdkeep_\w+", expression)}
    assert shown == set(BY_NAME)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_leads_to_what_to_do(rule) -> None:
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"]
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert (PROJECT / page).read_text() == PAGE
    topics = TOPICS if "{{" in anchor else ("",)
    for topic in topics:
        assert f'<a id="{anchor.replace("{{ $labels.topic }}", topic)}"></a>' in PAGE
    assert f"`{rule['alert']}`" in PAGE


def test_the_page_names_no_other_alert() -> None:
    assert set(re.findall(r"`(Etcdkeep\w+)`", PAGE)) == {rule["alert"] for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_is_seen_firing_and_silent(rule) -> None:
    cases = [case for test in CASES for case in test["alert_rule_test"] if case["alertname"] == rule["alert"]]
    assert {bool(case.get("exp_alerts")) for case in cases} == {True, False}


def test_the_dashboard_is_sound() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["datasource"]["uid"] == "${datasource}", "a data source of one Grafana alone"
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    variables = {each["name"] for each in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)\}?", json.dumps(DASHBOARD))) - {"__all"}
    assert used == variables
