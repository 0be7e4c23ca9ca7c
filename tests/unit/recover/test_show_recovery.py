"""What the approver sees: all that counts, cut where it grows long, and nothing that breaks out of its place."""

from __future__ import annotations

import re

import pytest

from etcdkeep.objects.decoding import exact_json
from etcdkeep.recover.approval_page import MAX_DIFF_CHARS, MAX_ROWS, manifests_yaml, render_plan, render_whole
from etcdkeep.recover.plan import Planned, RecoveryPlan
from tests.live_api import LiveApi, config_map, named, owned_by
from tests.shop import DEPLOYMENT, POD, REPLICAS, SETTINGS, SHOP, live

WHOLE = "`plan-1.md.zst.age`"


def shown(plan):
    return render_plan(plan, WHOLE)


def test_counts_reason_and_digest(plan):
    found = plan(LiveApi(), SHOP, SETTINGS, DEPLOYMENT, REPLICAS, POD)
    text = shown(found)
    assert "| 3 | is created |" in text
    assert "| 2 | is left out |" in text
    assert "Reason: deleted by mistake" in text
    assert found.digest in text
    assert "- 1 Pod: a ReplicaSet makes it" in text


def test_what_differs_is_shown_line_by_line_with_what_stays(plan):
    api = LiveApi(SHOP, live(SETTINGS, data={"color": "red", "size": "9"}))
    text = shown(plan(api, SHOP, SETTINGS, overwrite=True))
    assert "**ConfigMap shop/settings** exists and differs: **is overwritten**; it was changed by kubectl" in text
    assert "-  color: red\n+  color: blue" in text
    assert "only in the live object, and kept: `data.size`" in text


def test_what_is_dropped_is_told_but_not_what_the_server_writes(plan):
    service = named("Service", "web", "shop", spec={"clusterIP": "10.96.0.7"}, metadata=owned_by(config_map("dead")))
    text = shown(plan(LiveApi(SHOP), SHOP, service))
    assert "dropped: `spec.clusterIP`, `metadata.ownerReferences (ConfigMap dead)`" in text
    assert "`metadata.uid`" not in text
    assert "`metadata.uid`" in render_whole(plan(LiveApi(SHOP), SHOP, service))


def test_long_plans_are_cut_and_say_where_the_rest_is(plan):
    objects = [config_map(f"c{number:03}") for number in range(MAX_ROWS + 5)]
    found = plan(LiveApi(SHOP), SHOP, *objects)
    text = shown(found)
    assert f"- and 5 more: {WHOLE}" in text
    assert "c104" not in text
    assert "c104" in render_whole(found)


def test_long_differences_are_cut_and_say_where_the_rest_is(plan):
    lines = "".join(f"line {number}\n" for number in range(4000))
    stored = [config_map(name, text=lines) for name in ("a", "b")]
    api = LiveApi(SHOP, *(live(each, data={"text": lines.upper()}) for each in stored))
    found = plan(api, SHOP, *stored, overwrite=True)
    text = shown(found)
    assert len(text) < 2 * MAX_DIFF_CHARS
    assert f"(cut here; the rest is in {WHOLE})" in text
    assert f"- ConfigMap shop/b: exists and differs: **is overwritten**; its diff is in {WHOLE}" in text
    assert "+    line 3999" in render_whole(found)


def test_a_value_cannot_break_out_of_its_block(plan):
    text = "```\n# Approved by the boss\n`````\n"
    api = LiveApi(SHOP, live(config_map("a"), data={"text": "x"}))
    found = shown(plan(api, SHOP, config_map("a", text=text), overwrite=True))
    assert "\n``````diff\n" in found


HOSTILE = "x\x1b]52;c;Zg==\x07\u202e\n\n# Approved by the boss\n| ![i](http://x) <b> `c` &#x202e; ~~s~~ *e*"


@pytest.mark.parametrize("action", ["create", "overwrite", "leave", "unchanged", "skip", "refuse"])
def test_nothing_breaks_out_of_its_place(action):
    fields = dict.fromkeys(("api_version", "kind", "namespace", "name", "why"), HOSTILE)
    many = dict.fromkeys(("dropped", "warnings", "stays"), (HOSTILE,))
    each = Planned(action=action, diff=f"-{HOSTILE}\n+```\n", **fields, **many)
    names = dict.fromkeys(("cluster", "backup_id", "recovery_id", "reason", "meant"), HOSTILE)
    found = RecoveryPlan(**names, overwrite=True, cluster_uid="u", objects=(each,), unread=(HOSTILE,))
    for text in (render_plan(found, WHOLE), render_whole(found)):
        assert text.replace("\n", "").isprintable()
        prose = re.sub(r"(`{4,})diff\n.*?\n\1\n", "", text, flags=re.DOTALL)
        assert not re.search(r"^# Approved", prose, re.MULTILINE)
        outside_code = re.sub(r"(?<![`\\])(`+)(?!`).*?(?<!`)\1(?!`)", "", prose)
        for mark in ("# A", "| !", "[i]", "<b>", "`c`", "&#x", "~~s", "*e*"):
            assert not re.search(rf"(?<!\\){re.escape(mark)}", outside_code), mark


def test_manifests_say_where_they_are_from():
    content = exact_json.dumps(config_map("a", b="c"))
    (text,) = manifests_yaml([(content, ["status", "metadata.uid", "spec.nodeName\n# x"])], "harbor/1")
    assert text.startswith("---\n# from harbor/1; dropped: spec.nodeName # x\napiVersion: v1\n")
