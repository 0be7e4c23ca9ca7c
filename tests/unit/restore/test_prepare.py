"""From cluster and set to facts, findings and plan; and what is in the form and on the page."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.errors import NotFound, RequestRefused, SecretUnavailable, Unreachable
from etcdkeep.restore import circumstances as module
from etcdkeep.restore.approval_page import ROWS, render_request
from etcdkeep.restore.circumstances import certificates_expire, collect_circumstances
from etcdkeep.restore.form import Form
from etcdkeep.restore.judge.finding import Finding
from etcdkeep.restore.loss import Loss, Losses
from etcdkeep.restore.options import Options
from etcdkeep.restore.prepare import Prepared, prepare_restore
from etcdkeep.sealing.age_keys import parse_identities
from etcdkeep.sealing.seal import seal
from etcdkeep.sets.backup_set import Doubt
from etcdkeep.sets.manifest import Member, Plaintext
from tests.builders import age_pair
from tests.pki import make_pki
from tests.unit.restore.admin_api import ETCD, AdminApi
from tests.unit.restore.builders import PLANNED_AT, make_artifact, make_cluster, make_facts, make_manifest
from tests.unit.restore.test_judge import make_set

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from etcdkeep.config.models import Cluster

OPTIONS = Options("restore-a", PLANNED_AT)
FORM = Form(cluster="prod", reason="the disk died", confirm="prod")


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Address → the node's facts, or the error that is all that comes of it."""
    found: dict[str, Any] = {f"10.0.0.{index + 1}": make_facts(f"cp-{index}", index) for index in range(3)}
    monkeypatch.setattr(
        "etcdkeep.restore.prepare.gather_node", lambda runner, cluster, node, address, member=None: found[address]
    )
    monkeypatch.setattr(module, "certificates_expire", lambda *args: None)
    return found


@dataclass
class Site:
    """A cluster whose nodes answer as told; without an `admin_api` its API is down."""

    cluster: Cluster
    nodes: dict[str, Any] = field(default_factory=dict)
    admin_api: Any = None
    repository: Any = field(default_factory=lambda: SimpleNamespace(store=None))

    @property
    def api(self) -> Any:
        if self.admin_api is None:
            raise Unreachable("the API is down")
        return self.admin_api

    @contextmanager
    def open_node(self, address: str) -> Iterator[Any]:
        if isinstance(self.nodes[address], Exception):
            raise self.nodes[address]
        yield None


def prepared(nodes: dict[str, Any], found: Any = None, **more: Any) -> Prepared:
    found = found or make_set(manifest=make_manifest(3))
    return prepare_restore(Site(make_cluster(), nodes), found, OPTIONS, None, now=PLANNED_AT, **more)


def sentences(ready: Prepared, severity: str = "blocking problem") -> list[str]:
    return [each.sentence for each in ready.findings if each.severity == severity]


def test_three_broken_nodes_give_a_plan_for_all_of_them(nodes: dict[str, Any]) -> None:
    ready = prepared(nodes)
    assert sentences(ready) == []
    assert ready.plan is not None
    assert [place.name for place in ready.plan.places] == ["cp-0", "cp-1", "cp-2"]
    assert ready.plan_to_approve("prod", override=False) is ready.plan


def test_a_node_that_does_not_answer_leaves_no_plan(nodes: dict[str, Any]) -> None:
    nodes["10.0.0.2"] = Unreachable("no route to host")
    ready = prepared(nodes)
    assert ready.plan is None
    assert sentences(ready) == ["node cp-1 cannot be reached: no route to host. All members must be restored together"]
    with pytest.raises(RequestRefused, match="cp-1 cannot be reached"):
        ready.plan_to_approve("prod", override=True)


@pytest.mark.parametrize(("running", "way"), [(None, "manifests"), (True, "kubelet"), (False, "kubelet")])
def test_the_kubelet_is_stopped_where_every_node_can(nodes: dict[str, Any], running: bool | None, way: str) -> None:
    nodes["10.0.0.3"] = replace(nodes["10.0.0.3"], kubelet_running=running)
    assert prepared(nodes, choose_way=True).options.way == way


def test_what_keeps_a_plan_from_being_made_is_a_finding_that_nobody_overrides(nodes: dict[str, Any]) -> None:
    artifacts = make_manifest(2).artifacts
    ready = prepared(nodes, make_set(manifest=make_manifest(3, artifacts=artifacts)))
    assert ready.plan is None
    (reason,) = [each for each in ready.findings if each.severity == "blocking problem"]
    assert "no certificates and keys of node cp-2" in reason.sentence
    assert not reason.overridable


def test_a_set_without_manifest_or_address_is_not_asked_about(nodes: dict[str, Any]) -> None:
    forged = prepared(nodes, make_set(manifest=None, doubt=Doubt("foreign", "signed by nobody")))
    assert (forged.facts, forged.plan) == (None, None)
    assert "signed by nobody" in sentences(forged)[0]
    manifest = make_manifest()
    nowhere = manifest.model_copy(update={"members": (manifest.members[0].model_copy(update={"address": None}),)})
    lost = prepared(nodes, make_set(manifest=nowhere))
    assert "ssh.addresses.cp-0" in sentences(lost)[0]


GONE = Member(name="cp-9", pod="etcd-cp-9", node="cp-9", problem="the pod is being deleted")


def with_surplus(**change: Any) -> Any:
    """A set of three whose manifest has a fourth, as sets were made before etcd's member list was asked."""
    manifest = make_manifest(3)
    members = (*manifest.members, GONE.model_copy(update=change))
    return make_set(manifest=manifest.model_copy(update={"members": members}))


@pytest.mark.parametrize(
    ("change", "facts", "why"),
    [
        pytest.param({}, None, "its node cp-9 has no known address", id="no-address"),
        pytest.param({"node": ""}, None, "its node (unknown) has no known address", id="no-node"),
        pytest.param(
            {"address": "10.0.0.9"}, Unreachable("no route"), "cannot be reached (no route)", id="unreachable"
        ),
        pytest.param(
            {"address": "10.0.0.9"},
            make_facts("cp-9", etcd=None, manifests=()),
            "its node cp-9 has no etcd manifest",
            id="no-etcd",
        ),
        pytest.param(
            {"address": "10.0.0.9"},
            make_facts("cp-9", ca_sha256="d" * 64),
            "belongs to another cluster now",
            id="another",
        ),
        pytest.param(
            {"node": "cp-0", "address": "10.0.0.1"}, None, "another member runs on its node", id="second-etcd"
        ),
    ],
)
def test_a_member_too_many_in_the_set_is_no_wall(nodes: dict[str, Any], change: Any, facts: Any, why: str) -> None:
    nodes["10.0.0.9"] = facts
    ready = prepared(nodes, with_surplus(**change))
    (reason,) = (each for each in ready.findings if each.severity == "blocking problem")
    assert reason.overridable
    assert "member cp-9 of the backup cannot be restored" in reason.sentence
    assert why in reason.sentence
    assert "the pod is being deleted" in reason.sentence
    assert ready.plan is not None
    assert [place.name for place in ready.plan.places] == ["cp-0", "cp-1", "cp-2"]
    assert "cp-9=" not in ready.plan.to_json()
    with pytest.raises(RequestRefused, match="All of these can be overridden"):
        ready.plan_to_approve("prod", override=False)
    assert ready.plan_to_approve("prod", override=True) is ready.plan


def test_the_approvers_read_which_member_is_left_out(nodes: dict[str, Any]) -> None:
    ready = prepared(nodes, with_surplus())
    assert ready.plan is not None
    assert "Left out: member(s) cp-9 of the backup; the new etcd cluster has no such member." in ready.plan.words


def test_a_member_that_was_down_at_the_backup_and_is_there_is_restored(nodes: dict[str, Any]) -> None:
    nodes["10.0.0.9"] = make_facts("cp-9", 8)
    manifest = with_surplus(address="10.0.0.9").manifest
    archive = make_artifact("control-plane-cp-9.tar.zst.age", "control-plane", "{}", "cp-9")
    manifest = manifest.model_copy(update={"artifacts": (*manifest.artifacts, archive)})
    ready = prepared(nodes, make_set(manifest=manifest))
    assert sentences(ready) == []
    assert ready.plan is not None
    assert len(ready.plan.places) == 4


def test_a_member_that_was_down_and_has_no_archive_keeps_its_own_keys(nodes: dict[str, Any]) -> None:
    nodes["10.0.0.9"] = make_facts("cp-9", 8)
    ready = prepared(nodes, with_surplus(address="10.0.0.9"))
    assert sentences(ready) == []
    assert any("node cp-9 keeps its own certificates and keys" in each for each in sentences(ready, "warning"))
    assert ready.plan is not None
    assert "place-data.cp-9" in {step.name for step in ready.plan.steps}
    assert "place-keys.cp-9" not in {step.name for step in ready.plan.steps}


def test_a_majority_is_counted_without_the_member_too_many(nodes: dict[str, Any]) -> None:
    for address in ("10.0.0.1", "10.0.0.2"):
        nodes[address] = replace(nodes[address], etcd_healthy=True)
    assert any("2 of 3 member(s) are healthy" in each for each in sentences(prepared(nodes, with_surplus())))


@pytest.mark.parametrize(
    ("known", "words", "overridable"),
    [
        ({"locked_by": "restore-b"}, "is locked by restore 'restore-b'", True),
        ({"running_backup": "backup__prod"}, "backup run backup__prod", True),
    ],
)
def test_what_is_known_beside_the_nodes_speaks_too(
    nodes: dict[str, Any], known: Any, words: str, overridable: bool
) -> None:
    ready = prepared(nodes, **known)
    (reason,) = [each for each in ready.findings if each.severity == "blocking problem"]
    assert words in reason.sentence
    assert reason.overridable == overridable
    with pytest.raises(RequestRefused) as caught:
        ready.plan_to_approve("prod", override=False)
    assert ("can be overridden" in str(caught.value)) == overridable


def test_a_set_that_does_not_open_here_is_no_plan_to_approve(
    nodes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> Any:
        raise SecretUnavailable("no identity")

    monkeypatch.setattr(module, "certificates_expire", refuse)
    ready = prepared(nodes)
    (reason,) = [each for each in ready.findings if each.severity == "blocking problem"]
    assert "cannot be opened here: no identity" in reason.sentence
    assert not reason.overridable
    with pytest.raises(RequestRefused) as caught:
        ready.plan_to_approve("prod", override=True)
    assert "can be overridden" not in str(caught.value)


# --- what is known beside the nodes --------------------------------------------------------------------------------


class Api:
    def get(self, path: str) -> Any:
        return {"metadata": {"uid": f"uid of {path.rpartition('/')[2]}"}}


@pytest.mark.parametrize("error", [SecretUnavailable("no key"), NotFound("gone")])
def test_a_set_that_does_not_open_is_known_and_so_is_who_answers(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*args: Any) -> Any:
        raise error

    monkeypatch.setattr(module, "certificates_expire", refuse)
    api: Any = Api()
    known = collect_circumstances(make_cluster(), make_set(), None, None, lambda: api, now=PLANNED_AT)  # type: ignore[arg-type]
    assert (known.sealed, known.live_uid) == (str(error), "uid of kube-system")


def test_an_api_that_is_down_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "certificates_expire", lambda *args: PLANNED_AT)

    def down() -> Any:
        raise Unreachable("refused")

    known = collect_circumstances(make_cluster(), make_set(), None, None, down, now=PLANNED_AT)  # type: ignore[arg-type]
    assert (known.expires_at, known.sealed, known.live_uid) == (PLANNED_AT, None, None)


# --- the form ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "what", "way"),
    [
        ({}, ("etcd", "pki"), "kubelet"),
        ({"what": "etcd", "way": "manifests"}, ("etcd",), "manifests"),
        ({"what": "pki", "way": "auto"}, ("pki",), "kubelet"),
    ],
)
def test_the_form_becomes_options(fields: dict[str, Any], what: tuple[str, ...], way: str) -> None:
    options = FORM.model_copy(update=fields).options("restore-a", PLANNED_AT)
    assert (options.run, options.what, options.way, options.bump_revision) == ("restore-a", what, way, True)


def test_only_the_clusters_own_name_confirms() -> None:
    FORM.check_confirmed()
    for typed in ("", "Prod", "prod "):
        with pytest.raises(RequestRefused, match="must be the cluster's name"):
            FORM.model_copy(update={"confirm": typed}).check_confirmed()


# --- the page ------------------------------------------------------------------------------------------------------


def page(ready: Prepared, losses: Losses = Losses(), **fields: Any) -> str:  # noqa: B008 - immutable
    return render_request(ready, losses, FORM.model_copy(update=fields), "carol")


def test_the_page_shows_the_plan_its_digest_and_who_wants_it(nodes: dict[str, Any]) -> None:
    ready = prepared(nodes)
    assert ready.plan is not None
    text = page(ready)
    for said in (*ready.plan.words, ready.plan.digest, "carol", "the disk died", "last resort", "Nothing was created"):
        assert said in text


HOSTILE = "x\x1b]52;c;Zg==\x07\u202e\n\n### Approved by the boss | ![i](http://x) <b> `c` &#x202e; ~~s~~ *e*"


def test_nothing_breaks_out_of_its_place_on_the_page(nodes: dict[str, Any]) -> None:
    ready = prepared(nodes)
    assert ready.plan is not None
    finding = Finding("blocking problem", HOSTILE)
    hostile = replace(ready, plan=replace(ready.plan, words=(HOSTILE,)), findings=(finding,))
    losses = Losses(rows=(Loss(HOSTILE, HOSTILE, 1, 2, 3),), notes=(HOSTILE,))
    text = render_request(hostile, losses, FORM.model_copy(update={"reason": HOSTILE}), HOSTILE)
    text += render_request(hostile, Losses(unknown=HOSTILE), FORM, "carol")
    assert text.replace("\n", "").isprintable()
    assert "\n### Approved" not in text
    for mark in ("### Appr", "| !", "[i]", "<b>", "`c`", "&#x", "~~s", "*e*"):
        assert not re.search(rf"(?<!\\){re.escape(mark)}", text), mark
    (row,) = [line for line in text.splitlines() if line.startswith("| x")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 6


def test_findings_stand_by_weight_and_overridden_ones_say_so(nodes: dict[str, Any]) -> None:
    nodes |= {address: replace(facts, etcd_healthy=True) for address, facts in nodes.items()}
    ready = prepared(nodes)
    assert "**OVERRIDDEN:** 3 of 3 member" not in page(ready)
    text = page(ready, override=True)
    assert "**OVERRIDDEN:** 3 of 3 member" in text
    assert text.index("### Blocking problems") < text.index("### Notes")


def test_losses_are_a_table_of_bounded_length(nodes: dict[str, Any]) -> None:
    rows = tuple(Loss("configmaps", f"team-{number}", 1, 2, 3) for number in range(ROWS + 5))
    text = page(prepared(nodes), Losses(rows, ("pods could not be listed: 403",)))
    assert "| configmaps | team-0 | 1 | 2 | 3 |" in text
    assert "| 5 more | | 5 | 10 | 15 |" in text
    assert "- pods could not be listed: 403" in text


def test_what_people_typed_cannot_change_the_page(nodes: dict[str, Any]) -> None:
    text = page(prepared(nodes), Losses(unknown="it\nis | down"), reason="**bold**\n### Plan [x](http://y)")
    assert "\\*\\*bold\\*\\* \\#\\#\\# Plan \\[x\\](http://y)" in text
    assert text.count("### Plan\n") == 1
    assert "Unknown: it is \\| down" in text


def test_a_page_without_a_plan_says_so(nodes: dict[str, Any]) -> None:
    nodes["10.0.0.2"] = Unreachable("no route to host")
    assert "No plan is possible" in page(prepared(nodes))


# --- a control plane in an admin cluster ---------------------------------------------------------------------------


def kubeception(api: Any, found: Any = None) -> Prepared:
    cluster = make_cluster(name="user-1", profile="gke-user-kubeception")
    manifest = make_manifest(cluster="user-1", profile="gke-user-kubeception")
    site = Site(cluster, admin_api=api)
    return prepare_restore(
        site, found or make_set(manifest=manifest), replace(OPTIONS, what=("etcd",)), None, now=PLANNED_AT
    )


def test_a_kubeception_control_plane_is_planned_by_the_admin_clusters_api(nodes: dict[str, Any]) -> None:
    ready = kubeception(AdminApi(1))
    assert ready.plan is not None
    assert ready.plan.way == "pods"


def test_a_kubeception_control_plane_that_is_made_otherwise_is_a_finding(nodes: dict[str, Any]) -> None:
    api = AdminApi(1)
    api.objects[ETCD]["spec"]["template"]["spec"]["containers"][0]["name"] = "other"
    ready = kubeception(api)
    assert (ready.facts, ready.plan) == (None, None)
    assert not ready.findings[0].overridable


def test_an_admin_cluster_that_does_not_answer_is_asked_again(nodes: dict[str, Any]) -> None:
    class Down:
        def get(self, path: str) -> Any:
            raise Unreachable("refused")

    with pytest.raises(Unreachable):
        kubeception(Down())


# --- certificates --------------------------------------------------------------------------------------------------


def test_the_first_certificate_to_expire_counts(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in make_pki(PLANNED_AT).items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    plain = packed.getvalue()
    store, found = DirectoryStore(tmp_path), make_set()
    with store.create(f"{found.name}/control-plane.tar.zst.age") as sink:
        seal([plain], sink, [age_pair()[1]])
    artifact = make_artifact("control-plane.tar.zst.age", "control-plane", plain.decode("latin-1"), "cp-0")
    digest = Plaintext(size_bytes=len(plain), sha256=hashlib.sha256(plain).hexdigest())
    found = make_set(manifest=make_manifest(artifacts=(artifact.model_copy(update={"plaintext": digest}),)))
    expires_at = certificates_expire(make_cluster(), found, store, parse_identities(age_pair()[0]), PLANNED_AT)
    assert expires_at is not None
    assert expires_at > PLANNED_AT
    with pytest.raises(SecretUnavailable, match="no age_identity"):
        certificates_expire(make_cluster(), found, store, None, PLANNED_AT)
    with pytest.raises(SecretUnavailable, match="sealed to age1"):
        certificates_expire(make_cluster(), found, store, parse_identities(age_pair("theirs")[0]), PLANNED_AT)
