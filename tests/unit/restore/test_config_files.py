"""The API server's files beside the PKI: compared, told of, put back with the data that needs them, and undone."""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcdkeep.control_plane.encryption import parse_encryption_configuration
from etcdkeep.errors import EtcdkeepError
from etcdkeep.restore.circumstances import Circumstances
from etcdkeep.restore.found.config_files import ApiserverFile, ArchivedConfig, archived_files, key_names, match
from etcdkeep.restore.judge.judgement import judge
from etcdkeep.restore.options import Options
from tests.unit.restore.builders import (
    PLANNED_AT,
    FakeWorld,
    make_artifact,
    make_cluster,
    make_facts,
    make_machine,
    make_manifest,
    make_world,
    planned,
)
from tests.unit.restore.machine import Fault, Killed
from tests.unit.restore.test_engine import make_engine, state
from tests.unit.restore.test_judge import make_set

if TYPE_CHECKING:
    from etcdkeep.restore.steps import Plan

ENC = "/etc/kubernetes/enc/config.yaml"
AUDIT = "/srv/audit/policy.yaml"
THEN = ArchivedConfig("a" * 64, ("aescbc 'key1' (11111111)",))
NOW_KEYS = ("aescbc 'key2' (22222222)",)


def configuration(*keys: tuple[str, bytes]) -> bytes:
    listed = [{"name": name, "secret": base64.b64encode(secret).decode()} for name, secret in keys]
    providers = [{"aescbc": {"keys": listed}}, {"identity": {}}]
    document = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration"}
    return json.dumps({**document, "resources": [{"resources": ["secrets"], "providers": providers}]}).encode()


def sealing(**change: Any) -> ApiserverFile:
    """The node's encryption configuration, with a newer key than the set's."""
    file = ApiserverFile(ENC, ENC, "b" * 64, None, True, True, NOW_KEYS, ENC.lstrip("/"), THEN)
    return replace(file, **change)


def policy(**change: Any) -> ApiserverFile:
    return replace(
        ApiserverFile(AUDIT, AUDIT, "b" * 64, archived=AUDIT.lstrip("/"), then=ArchivedConfig("c" * 64)), **change
    )


def findings(*files: ApiserverFile, what: Any = ("etcd", "pki")) -> list[tuple[str, str]]:
    options = Options("r1", PLANNED_AT, what=what)
    facts = make_facts(config=files)
    found = judge(make_cluster(), make_set(), (facts,), options, Circumstances(PLANNED_AT)).findings
    return [(each.severity, each.sentence) for each in found if ENC in each.sentence or AUDIT in each.sentence]


def test_keys_are_named_by_a_fingerprint_and_never_shown() -> None:
    secret = b"canary-canary-canary-canary-1234"
    names = key_names(parse_encryption_configuration(configuration(("key1", secret)), "f"))
    assert names == (f"aescbc 'key1' ({hashlib.sha256(secret).hexdigest()[:8]})",)
    archived = archived_files({"etc/enc.yaml": configuration(("key1", secret)), "pki/ca.crt": b"x", "admin.conf": b"y"})
    assert set(archived) == {"etc/enc.yaml", "admin.conf"}
    assert archived["etc/enc.yaml"].keys == names
    assert base64.b64encode(secret).decode() not in repr(archived)


def test_a_configuration_that_was_renamed_is_found_by_what_it_is() -> None:
    old = {"etc/enc-v1.yaml": THEN, "etc/other.yaml": ArchivedConfig("d" * 64)}
    (found,) = match([sealing(archived="", then=None)], old)
    assert (found.archived, found.then) == ("etc/enc-v1.yaml", THEN)
    (lost,) = match([policy(archived="", then=None)], old)
    assert lost.then is None


@pytest.mark.parametrize(
    ("files", "what", "severity", "words"),
    [
        pytest.param([sealing()], ("etcd", "pki"), "warning", "keys that come back: aescbc 'key1' (11111111); keys that are set aside: aescbc 'key2'", id="replaced"),
        pytest.param([sealing()], ("etcd", "config"), "warning", "is replaced by the backup's", id="config-by-name"),
        pytest.param([sealing()], ("etcd",), "blocking problem", "does not have the key(s) aescbc 'key1' (11111111) of the backup", id="data-without-its-keys"),
        pytest.param([sealing(keys=(*NOW_KEYS, *THEN.keys))], ("etcd",), "note", "stays as it is", id="both-keys-there"),
        pytest.param([sealing()], ("pki",), "note", "stays as it is", id="newer-values-stay-readable"),
        pytest.param([sealing(then=None)], ("etcd", "pki"), "warning", "holds no encryption configuration", id="sealed-later"),
        pytest.param([sealing(movable=False)], ("etcd", "pki"), "blocking problem", "so that no rename can replace it. Copy it there by hand", id="elsewhere"),
        pytest.param([policy()], ("etcd", "pki"), "warning", "is replaced by the backup's", id="policy"),
        pytest.param([policy()], ("etcd",), "note", "stays as it is", id="policy-stays"),
        pytest.param([policy(sha256=None)], ("etcd",), "blocking problem", "does not start without it. Choose `pki` or `config` too", id="policy-gone"),
        pytest.param([policy(sha256=None, then=None)], ("etcd", "pki"), "blocking problem", "neither on the node nor in the backup", id="policy-nowhere"),
    ],
)  # fmt: skip
def test_each_difference_is_shown(files: list[ApiserverFile], what: Any, severity: str, words: str) -> None:
    (found,) = findings(*files, what=what)
    assert found[0] == severity
    assert words in found[1]


def test_the_same_file_is_no_matter() -> None:
    assert findings(policy(sha256="c" * 64), sealing(sha256="a" * 64)) == []


# --- the plan, walked ------------------------------------------------------------------------------------------------


def make_plan(*files: ApiserverFile, what: Any = ("etcd", "pki")) -> Plan:
    facts = make_facts(config=files or (sealing(), policy()))
    return planned(make_cluster(), config_manifest(), [facts], Options("r1", PLANNED_AT, what=what))


ARCHIVE = json.dumps(
    {
        "pki/ca.crt": "ca of the backup",
        "pki/sa.key": "key",
        ENC.lstrip("/"): "old keys",
        AUDIT.lstrip("/"): "old policy",
    }
)


def config_manifest() -> Any:
    artifact = make_artifact("control-plane-cp-0.tar.zst.age", "control-plane", ARCHIVE, "cp-0")
    return make_manifest().model_copy(update={"artifacts": (make_manifest().artifacts[0], artifact)})


def config_world(*, policy_there: bool = True) -> FakeWorld:
    world = make_world()
    machine = make_machine()
    machine.put(ENC, "new keys")
    if policy_there:
        machine.put(AUDIT, "new policy")
    world.machines["cp-0"] = machine
    world.artifacts["control-plane-cp-0.tar"] = ARCHIVE
    return world


@pytest.mark.parametrize("what", [("etcd", "pki"), ("etcd", "config"), ("config",)], ids=str)
def test_files_come_back_and_go_again(what: Any) -> None:
    world, plan = config_world(), make_plan(what=what)
    before = state(world)
    engine = make_engine(plan, world)
    engine.walk()
    files = world.machines["cp-0"].files
    assert (files[ENC], files[AUDIT]) == ("old keys", "old policy")
    assert files[f"/etc/kubernetes/.etcdkeep/r1/old{ENC}"] == "new keys"
    assert (files["/etc/kubernetes/pki/ca.crt"] == "ca of the backup") == ("pki" in what)
    engine.roll_back()
    assert state(world) == before


def test_data_alone_leave_them() -> None:
    world = config_world()
    make_engine(make_plan(what=("etcd",)), world).walk()
    assert world.machines["cp-0"].files[ENC] == "new keys"
    assert not [step for step in make_plan(what=("etcd",)).steps if "config" in step.name]


def test_a_file_that_is_gone_comes_back_with_its_folder() -> None:
    world = config_world(policy_there=False)
    plan = make_plan(policy(sha256=None))
    make_engine(plan, world).walk()
    assert world.machines["cp-0"].files[AUDIT] == "old policy"


def test_the_approvers_read_which_files_become_the_backups() -> None:
    assert any(f"cp-0:{ENC}, cp-0:{AUDIT}" in line for line in make_plan().words)


def test_the_label_is_the_live_files() -> None:
    steps = {step.name: step for step in make_plan(sealing(label="u:object_r:t:s0")).steps}
    assert "chcon" in str(steps["config-label-0.cp-0"].action)


@given(st.integers(1, 90), st.sampled_from(["kill", "reboot", "cut"]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_struck_anywhere_it_ends_as_one_or_the_other(at: int, kind: str, before: bool) -> None:
    world, plan = config_world(), make_plan()
    world.machines["cp-0"].fault = Fault(at, kind, before)
    with suppress(Killed, EtcdkeepError):
        make_engine(plan, world).walk()
    world.machines["cp-0"].fault = None
    make_engine(plan, world).walk()
    assert world.machines["cp-0"].files[ENC] == "old keys"
    make_engine(plan, world).roll_back()
    assert world.machines["cp-0"].files[ENC] == "new keys"
    assert world.machines["cp-0"].files[AUDIT] == "new policy"
