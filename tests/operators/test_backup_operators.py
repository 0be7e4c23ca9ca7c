"""The steps of a backup as operators: what they hand on, and what a second try does."""

from __future__ import annotations

import ast
import inspect
import json
import pickle
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowSkipException

from etcdkeep import errors
from etcdkeep.errors import RequestRefused, StoreUnavailable, StreamCut, Unreachable, VerificationFailed
from etcdkeep.naming import backup_id
from etcdkeep.sets.pins import Pin
from etcdkeep_airflow.operators import backup as module
from etcdkeep_airflow.operators.backup import (
    CleanupOperator,
    CopyOutOperator,
    DiscoverOperator,
    FetchPkiOperator,
    SnapshotOperator,
    UploadOperator,
)
from etcdkeep_airflow.operators.base import RETRIES, BackupOperator, ClusterOperator
from etcdkeep_airflow.operators.verify import VerifyOperator
from tests.builders import NOW

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = "scheduled__2026-11-23"
IDENTIFIER = backup_id("harbor", NOW, RUN)
SECRETS = ("CANARY", "PRIVATE KEY", "/registry/", "canary-kubeconfig")

MAKE: dict[str, Any] = {
    "discover": lambda out: DiscoverOperator(task_id="discover", cluster="harbor"),
    "snapshot": lambda out: SnapshotOperator(task_id="snapshot", cluster="harbor", discovery=out["discover"]),
    "copy_out": lambda out: CopyOutOperator(task_id="copy_out", cluster="harbor", discovery=out["discover"], snapshot=out["snapshot"]),
    "fetch_pki": lambda out: FetchPkiOperator(task_id="fetch_pki", cluster="harbor", discovery=out["discover"]),
    "upload": lambda out: UploadOperator(task_id="upload", cluster="harbor", discovery=out["discover"], copied=out["copy_out"], node_files=out["fetch_pki"]),
    "verify": lambda out: VerifyOperator(task_id="verify", cluster="harbor"),
    "cleanup": lambda out: CleanupOperator(task_id="cleanup", cluster="harbor", discovery=out.get("discover")),
}  # fmt: skip
OPERATORS = [DiscoverOperator, SnapshotOperator, CopyOutOperator, FetchPkiOperator, UploadOperator, VerifyOperator, CleanupOperator]  # fmt: skip


class Outputs(dict[str, Any]):
    """What the tasks returned; anything else is a placeholder."""

    def __missing__(self, name: str) -> None:
        return None


def run_task(task: str, outputs: dict[str, Any], context: Any) -> Any:
    """Execute a task with the others' answers as XCom gives them back."""
    with DAG(dag_id="backup__harbor", schedule=None):
        operator = MAKE[task](outputs)
    return json.loads(json.dumps(operator.execute(context)))


def run_all(make_context: Any, until: str = "cleanup", **context: Any) -> dict[str, Any]:
    outputs: dict[str, Any] = Outputs()
    for task in MAKE:
        outputs[task] = run_task(task, outputs, make_context(**context))
        if task == until:
            break
    return outputs


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    else:
        yield str(value)


def test_a_run_makes_one_good_set_and_leaves_nothing_else(opened, make_context):
    outputs = run_all(make_context)
    (found,) = opened.repository.sets("harbor")
    assert (found.backup_id, found.state) == (IDENTIFIER, "good")
    assert outputs["upload"]["backup_id"] == outputs["verify"]["backup_id"] == IDENTIFIER
    assert found.manifest.run.model_dump() == {"dag_id": "backup__harbor", "run_id": RUN, "by_hand": False, "reason": "a test", "pinned": True}  # fmt: skip
    assert opened.leftovers() == []
    assert [item.name for item in opened.repository.store.list("harbor/attempts/")] == [
        f"harbor/attempts/{IDENTIFIER}.json"
    ]


def test_what_goes_through_xcom_is_small_and_holds_no_secret_and_no_path_of_this_machine(opened, make_context):
    for task, answer in run_all(make_context).items():
        assert isinstance(answer, dict)
        text = json.dumps(answer)
        assert len(text) < 10_000, task
        assert not [secret for secret in SECRETS if secret in text], task
        assert not [text for text in strings(answer) if text.startswith(str(opened.folder))], task


def test_nothing_secret_is_logged(opened, make_context, caplog, capsys):
    caplog.set_level("DEBUG")
    run_all(make_context)
    captured = capsys.readouterr()
    key = (opened.folder / "kubernetes/pki/sa.key").read_text().splitlines()[1]
    logged = caplog.text + captured.out + captured.err
    assert "saving a snapshot" in logged
    for secret in (*SECRETS, key, "AGE-SECRET-KEY"):
        assert secret not in logged


@pytest.mark.parametrize("task", [task for task in MAKE if task != "verify"])
def test_a_retry_after_a_step_gives_the_same_answer_and_one_set(opened, make_context, task):
    outputs: dict[str, Any] = Outputs()
    for name in MAKE:
        outputs[name] = run_task(name, outputs, make_context())
        if name == task:
            again = run_task(name, outputs, make_context(try_number=2))
            if task == "snapshot":
                assert again["path"] != outputs[name]["path"], "an earlier try may still be writing its file"
                assert again["snapshot"]["hash"] == outputs[name]["snapshot"]["hash"]
                outputs[name] = again
            elif task != "cleanup":
                assert again == outputs[name]
    (found,) = opened.repository.sets("harbor")
    assert found.state == "good"
    assert opened.leftovers() == []


def test_verify_signs_the_pin_that_the_form_asks_for_once(opened, make_context):
    run_all(make_context)
    (found,) = opened.repository.sets("harbor")
    (pin,) = found.pins
    assert (pin.body.pinned, pin.body.reason) == (True, "a test")
    assert RUN in pin.body.by
    opened.repository.record_pin(found, Pin(pinned=False, reason="no more"))
    run_task("verify", {}, make_context())
    (found,) = opened.repository.sets("harbor")
    assert len(found.pins) == 2, "a cleared task takes no later unpin back"
    assert found.pinned(datetime.now(UTC)) is None


def test_verify_pins_nothing_where_the_form_does_not_ask(opened, make_context):
    run_all(make_context, params={"reason": "", "pin": False})
    (found,) = opened.repository.sets("harbor")
    assert found.pins == ()


def test_a_second_verification_adds_a_record(opened, make_context):
    outputs = run_all(make_context, until="verify")
    assert run_task("verify", outputs, make_context(try_number=2)) == outputs["verify"]
    (found,) = opened.repository.sets("harbor")
    assert (len(found.verifications), found.state) == (2, "good")


def test_a_whole_run_taken_again_makes_no_second_set(opened, make_context):
    first = run_all(make_context)
    (before,) = opened.repository.sets("harbor")
    second = run_all(make_context, try_number=2)
    (after,) = opened.repository.sets("harbor")
    assert after.manifest_bytes == before.manifest_bytes
    assert second["upload"] == first["upload"]
    run_all(make_context, run_id="manual__another")
    assert len(list(opened.repository.sets("harbor"))) == 2


@pytest.mark.parametrize("logical_date", [NOW, None], ids=["scheduled", "without-logical-date"])
def test_the_id_comes_from_the_run_alone(opened, make_context, logical_date):
    run = SimpleNamespace(run_id=RUN, logical_date=logical_date, run_after=NOW)
    operator = DiscoverOperator(task_id="discover", cluster="harbor")
    assert operator.backup_id(make_context(dag_run=run)) == IDENTIFIER


@pytest.mark.parametrize("operator", [DiscoverOperator, CleanupOperator], ids=["discover", "cleanup"])
def test_a_run_of_the_future_does_nothing(opened, make_context, operator):
    """Its set would come after all that are taken before then."""
    later = datetime.now(UTC) + timedelta(days=1)
    run = SimpleNamespace(run_id=RUN, run_type="manual", logical_date=later, run_after=NOW)
    arguments = {} if operator is DiscoverOperator else {"discovery": None}
    with pytest.raises(RequestRefused, match="which is in the future"):
        operator(task_id="x", cluster="harbor", **arguments).execute(make_context(dag_run=run))
    assert list(opened.repository.store.list()) == []


@pytest.mark.parametrize(("kind", "by_hand"), [("manual", True), ("scheduled", False), ("backfill", False)])
def test_the_manifest_says_whether_a_person_started_the_run(opened, make_context, kind, by_hand):
    """Airflow lets a person give the run any id."""
    run_id = "scheduled__2026-11-23T02:30:00+00:00"
    run = SimpleNamespace(run_id=run_id, run_type=kind, logical_date=NOW, run_after=NOW, dag_id="backup__harbor")
    run_all(make_context, until="upload", run_id=run_id, dag_run=run)
    (found,) = opened.repository.sets("harbor")
    assert found.manifest.run.by_hand is by_hand


@pytest.mark.parametrize("failed", list(MAKE)[:5])
def test_after_a_failure_anywhere_cleanup_leaves_nothing_and_lists_nothing(opened, make_context, failed, monkeypatch):
    outputs: dict[str, Any] = Outputs()
    for task in MAKE:
        if task == failed:
            break
        outputs[task] = run_task(task, outputs, make_context())
    if failed == "upload":
        monkeypatch.setattr(module, "publish", lambda *args: (_ for _ in ()).throw(StoreUnavailable("503")))
    match = {
        "discover": "GET",
        "snapshot": "snapshot save",
        "copy_out": "cat /tmp",
        "fetch_pki": "none",
        "upload": "none",
    }
    opened.kube.faults.add(match[failed], StreamCut("cut"), at=0)
    opened.node_faults.add("tar ", StreamCut("cut"), at=0)
    with pytest.raises((StreamCut, StoreUnavailable)):
        run_task(failed, outputs, make_context())
    opened.kube.faults.clear()
    run_task("cleanup", outputs, make_context())
    assert opened.leftovers() == []
    assert list(opened.repository.sets("harbor")) == []
    assert list(opened.repository.store.list("harbor/attempts/"))


def test_the_attempt_is_on_record_even_when_nothing_answers(opened, make_context):
    opened.api_error = Unreachable("the API server is down")
    with pytest.raises(Unreachable):
        run_task("discover", {}, make_context())
    assert list(opened.repository.store.list("harbor/attempts/"))


def test_an_asset_says_backup_id_and_revision_only_when_the_set_is_good(opened, make_context):
    outputs = run_all(make_context, until="upload")
    context = make_context()
    run_task("verify", outputs, context)
    (event,) = context["outlet_events"].values()
    assert event.extra == {"backup_id": IDENTIFIER, "revision": 8, "levels": ["stored", "sealed", "etcd", "pki"]}


def test_a_bad_set_fails_the_task_stays_bad_and_updates_no_asset(opened, make_context):
    outputs = run_all(make_context, until="upload")
    opened.repository.store.delete(f"harbor/{IDENTIFIER}/etcd.db.zst.age")
    context = make_context()
    with pytest.raises(VerificationFailed, match=r"is marked bad; the cluster's older sets are untouched:\n  etcd\.db"):
        run_task("verify", outputs, context)
    assert context["outlet_events"] == {}
    (found,) = opened.repository.sets("harbor")
    assert found.state == "bad"


def test_without_an_identity_verify_is_skipped_and_the_set_unverified(opened, make_context):
    outputs = run_all(make_context, until="upload")
    opened.has_identity = False
    context = make_context()
    with pytest.raises(AirflowSkipException, match=r"level stored\): no age_identity is configured here"):
        run_task("verify", outputs, context)
    assert context["outlet_events"] == {}
    (found,) = opened.repository.sets("harbor")
    assert (found.state, found.levels) == ("unverified", ("stored",))


def test_cleanup_works_without_a_discovery(opened, make_context):
    assert run_task("cleanup", {}, make_context()) == {"removed_objects": 0}


def test_a_cluster_without_nodes_is_published_without_node_files(make_site, monkeypatch, make_context):
    site = make_site(1, profile="gke-user-kubeception", control_plane={"pod_name": "etcd-.*"})
    monkeypatch.setattr("etcdkeep_airflow.hooks.open_site", lambda cluster: site)
    outputs: dict[str, Any] = Outputs()
    for task in ("discover", "snapshot", "copy_out", "upload", "verify", "cleanup"):
        outputs[task] = run_task(task, outputs, make_context())
    (found,) = site.repository.sets("harbor")
    assert (found.state, [artifact.kind for artifact in found.manifest.artifacts]) == ("good", ["etcd"])


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
def test_template_fields_are_a_literal_tuple_of_the_arguments(operator):
    (body,) = ast.parse(inspect.getsource(operator)).body
    assigned = [each for each in body.body if isinstance(each, ast.AnnAssign) and each.target.id == "template_fields"]
    if operator not in (DiscoverOperator, VerifyOperator):
        (field,) = assigned
        assert isinstance(field.value, ast.Tuple)
    own = {name for cls in (operator, ClusterOperator) for name in inspect.signature(cls.__init__).parameters}
    assert set(operator.template_fields) == own - {"self", "kwargs"}


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
def test_every_template_field_is_rendered_and_nothing_is_checked_before(operator):
    fields = dict.fromkeys(operator.template_fields, "{{ params.value }}")
    made = operator(task_id="task", **fields)
    made.render_template_fields({"params": {"value": "rendered"}})
    assert {name: getattr(made, name) for name in operator.template_fields} == dict.fromkeys(fields, "rendered")


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
def test_making_an_operator_opens_nothing(operator, monkeypatch):
    def fail(cluster: str) -> None:
        pytest.fail("a site was opened before execute")

    monkeypatch.setattr("etcdkeep_airflow.hooks.open_site", fail)
    made = operator(task_id="task", **dict.fromkeys(operator.template_fields, "nobody"))
    pickle.dumps(made)
    assert "site" not in made.__dict__
    made.on_kill()


def test_each_family_has_its_colour():
    assert len({BackupOperator.ui_color, VerifyOperator.ui_color, CleanupOperator.ui_color}) == 3


OURS = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.EtcdkeepError)]


@pytest.mark.parametrize("kind", OURS[1:], ids=lambda kind: kind.__name__)
def test_an_error_is_retried_when_it_may_pass_and_only_then(kind):
    decision = RETRIES.evaluate(kind.__new__(kind), 1, 3)
    if issubclass(kind, errors.TransientError):
        assert (decision.action.value, decision.retry_delay) == ("retry", timedelta(seconds=30))
    else:
        assert decision.action.value == "fail"


def test_any_other_error_is_left_to_the_task_s_own_retries():
    assert RETRIES.evaluate(ValueError("x"), 1, 3).action.value == "default"


def test_the_policy_survives_serialisation():
    again = type(RETRIES).deserialize(json.loads(json.dumps(RETRIES.serialize())))
    assert again.evaluate(StreamCut("x"), 1, 3).action.value == "retry"
    assert again.evaluate(errors.NotFound("x"), 1, 3).action.value == "fail"
