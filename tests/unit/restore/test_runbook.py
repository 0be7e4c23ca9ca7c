"""The runbook and the script of a rollback as text; tests/integration/restore runs them line by line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcdkeep.config.access import JumpHost, Ssh
from etcdkeep.errors import ObjectDamaged
from etcdkeep.restore.engine import Engine
from etcdkeep.restore.judge.finding import Finding
from etcdkeep.restore.options import Options
from etcdkeep.restore.runbook import render_runbook, rollback_script
from etcdkeep.restore.steps import PHASES, Check, Place, Plan, Run, Step, Write
from tests.unit.restore import test_pod_plan as in_pods
from tests.unit.restore.admin_api import AdminApi, PodWorld
from tests.unit.restore.builders import (
    PLANNED_AT,
    make_cluster,
    make_facts,
    make_manifest,
    make_world,
    node_names,
    planned,
)
from tests.unit.restore.test_engine import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from etcdkeep.restore.actions import World

THROUGH_BASTION = Ssh(user="ops", port=2022, jump=JumpHost(host="bastion", port=2222))
LINE_ENDS = ("\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029")
BASH = shutil.which("bash") or "/bin/bash"


def make_plan(way: str = "kubelet", members: int = 3) -> Plan:
    facts = [make_facts(name, index) for index, name in enumerate(node_names(members))]
    return planned(make_cluster(), make_manifest(members), facts, Options("r1", PLANNED_AT, way=way))  # type: ignore[arg-type]


def on_nodes(way: str, members: int) -> tuple[Plan, World]:
    return make_plan(way, members), make_world(members)


def in_pods_of(members: int) -> tuple[Plan, World]:
    api = AdminApi(members)
    return in_pods.make_plan(api), PodWorld(api)


SHAPES: dict[str, Callable[[], tuple[Plan, World]]] = {
    "kubelet-1": lambda: on_nodes("kubelet", 1),
    "kubelet-3": lambda: on_nodes("kubelet", 3),
    "manifests-1": lambda: on_nodes("manifests", 1),
    "manifests-3": lambda: on_nodes("manifests", 3),
    "pods-1": lambda: in_pods_of(1),
    "pods-3": lambda: in_pods_of(3),
}


def expect_bash_reads(page: str) -> None:
    checked = subprocess.run([BASH, "-n"], input=page, text=True, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def make_engine(plan: Plan, world: World, ssh: Ssh = THROUGH_BASTION) -> Engine:
    clock = Clock()

    def by_hand(plan: Plan, steps: Sequence[Step]) -> tuple[str, ...]:
        return rollback_script(plan, steps, ssh)

    return Engine(plan, world, by_hand=by_hand, sleep=clock.sleep, clock=lambda: clock.now)


def undone_in(script: str) -> list[str]:
    return re.findall(r"^# [^:]+: undo: .* \(step (\S+)\)$", script, re.MULTILINE)


@pytest.mark.parametrize("shape", SHAPES)
def test_bash_can_read_it(shape: str) -> None:
    expect_bash_reads(render_runbook(SHAPES[shape]()[0], THROUGH_BASTION))


def test_it_names_real_values_and_the_files_of_unseal() -> None:
    page = render_runbook(make_plan(), THROUGH_BASTION, [Finding("warning", "it is old")])
    assert "-p 2022 ops@10.0.0.2" in page
    assert "-i access/ssh_key -o IdentitiesOnly=yes" in page
    assert "-W %h:%p -p 2222 ubuntu@bastion" in page
    assert "# - warning: it is old" in page
    assert "< etcd.db" in page
    assert "< control-plane-cp-1.tar" in page
    assert "access/known_hosts" in page


def test_no_ssh_reads_a_configuration_of_the_user() -> None:
    calls = re.findall(r"\bssh -\S+ \S+", render_runbook(make_plan(), THROUGH_BASTION))
    assert calls == ["ssh -F none", "ssh -F none"], "to the node, and to the jump host"


def test_every_step_and_every_way_back_stands_in_it() -> None:
    plan = make_plan()
    page = render_runbook(plan, Ssh())
    forward, backward = page.split("# === Back to the state before")
    for step in plan.steps:
        if step.action is not None or step.done is not None:
            assert f"# {step.place}: {step.words}" in forward
        if step.reversible:
            assert f"undo: {step.words}" in backward


# --- what remains after a rollback that could not finish -----------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("walked", range(1, len(PHASES) + 1))
def test_what_remains_is_a_whole_script_at_every_point(shape: str, walked: int) -> None:
    plan, world = SHAPES[shape]()
    engine = make_engine(plan, world)
    engine.walk(PHASES[:walked])
    script = "\n".join(engine.remaining())
    expect_bash_reads(script)
    expect_functions_defined(script)
    names, order = undone_in(script), [step.name for step in reversed(plan.steps)]
    assert names, "something was begun"
    assert names == sorted(names, key=order.index), "in the order in which the engine goes back"
    for step in plan.steps:
        if step.name in names:
            assert set(step.undo_requires) <= {*names}, "what has to be undone before is asked for too"


def test_nothing_remains_where_nothing_was_begun() -> None:
    plan, world = on_nodes("kubelet", 1)
    assert make_engine(plan, world).remaining() == ()


def expect_functions_defined(script: str) -> None:
    """Every call of a function of the page stands after its definition."""
    defined: set[str] = set()
    for line in script.splitlines():
        if found := re.match(r"(\w+)\(\) \{ ", line):
            defined.add(found[1])
        if not line.startswith("#"):
            code = re.sub(r"'[^']*'|  # .*", "", line)
            called = {
                *re.findall(
                    r"\b(?:on|into|over|back)_\w+|\b(?:wait_for|says|silent|holds|fails|lacks|there|away|shows|differs)\b",
                    code,
                )
            }
            assert called <= defined, line


# --- what a plan says and names cannot become a command -------------------------------------------------------------


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_words_of_a_plan_are_comments_of_one_line(line_end: str) -> None:
    planted = f"all is well{line_end}touch planted #{line_end}"
    plan = make_plan(members=1)
    steps = tuple(replace(step, words=planted + step.words, name=step.name) for step in plan.steps)
    hostile = replace(
        plan, steps=steps, words=(planted,), run=planted, cluster=planted, backup_id=planted, places=plan.places
    )
    for page in (
        render_runbook(hostile, Ssh(), [Finding("warning", planted)]),
        "\n".join(rollback_script(hostile, [step for step in steps if step.reversible], Ssh())),
    ):
        about = [line for line in re.split("[\n\r\x0b\x0c\x1c\x85\u2028\u2029]", page) if "planted" in line]
        assert about
        assert [line for line in about if not re.match(r"#|over_\d+\(\) .*\}  # |back_\d+\(\) .*\}  # ", line)] == []
        expect_bash_reads(page)


def test_remedies_and_step_names_are_comments_too() -> None:
    plan = make_plan(members=1)
    wait = next(step for step in plan.steps if step.remedy)
    assert wait.remedy
    evil = replace(wait, remedy=replace(wait.remedy, words="mend\ntouch planted"))
    named = replace(
        plan.steps[0], name="x\ntouch planted", needed_until=("x\ntouch planted",), undone=plan.steps[0].done
    )
    page = render_runbook(replace(plan, steps=(named, evil)), Ssh())
    assert not re.search(r"^touch", page, re.MULTILINE)


HOSTILE = [
    "$(touch planted)",
    "`touch planted`",
    "x;touch planted;",
    "x\ntouch planted\n",
    "x\rtouch planted\r",
    "x'\ntouch planted\n'",
    'x" && touch planted && "',
    "x() { :; }; touch planted; y",
    "%h;touch planted",
    "-oProxyCommand=touch planted",
    "x\u2028touch planted",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hosts_users_pods_namespaces_and_places_run_nothing(tmp_path: Path, text: str) -> None:
    ssh = Ssh(user=text, jump=JumpHost(host=text, user=text))
    done = Check(("true",))
    steps = (
        Step("a", "stage", text, "words", Run((text,)), done, Run((text,)), Check((text,), "match", text)),
        Step("b", "stage", f"{text}!", "words", Write(text, text), done, Run((text,)), Check((text,), "nothing")),
    )
    places = (
        Place(text, "node", text),
        Place(f"{text}!", "pod", f"{text.replace('/', '')}/{text.replace('/', '')}/{text.replace('/', '')}"),
    )
    plan = replace(make_plan(members=1), places=places, steps=steps)
    for page in (render_runbook(plan, ssh), "\n".join(rollback_script(plan, reversed(steps), ssh))):
        expect_bash_reads(page)
        run_with_stubs(page, tmp_path)
        assert not (tmp_path / "planted").exists()


def run_with_stubs(page: str, folder: Path) -> list[list[str]]:
    """Run a page where ``ssh`` and ``kubectl`` only note what they were called with."""
    programs, calls = folder / "bin", folder / "calls"
    programs.mkdir(exist_ok=True)
    for name in ("ssh", "kubectl"):
        (programs / name).write_text(
            f"#!{BASH}\nprintf '%s\\0' \"${{0##*/}}\" \"$@\" '' >> '{calls}'\necho finalizing\n"
        )
        (programs / name).chmod(0o700)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "ADMIN_KUBECONFIG": "admin", "HOME": str(folder)}
    # what a stub answers does not matter: lines that fail must not keep those behind from being tried
    subprocess.run(
        [BASH], input=re.sub("^set -eu$", "set -u; sleep() { :; }", page, flags=re.MULTILINE).encode(errors="surrogatepass"),
        cwd=folder, env=environment, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    said = calls.read_bytes().decode() if calls.exists() else ""
    return [call.split("\0") for call in said.split("\0\0") if call]


@pytest.mark.parametrize("text", [text for text in HOSTILE if "/" not in text])
def test_what_a_plan_names_arrives_as_one_word(tmp_path: Path, text: str) -> None:
    step = Step("a", "stage", "cp", "words", Run(("echo", text)))
    plan = replace(make_plan(members=1), places=(Place("cp", "node", text),), steps=(step,))
    (call,) = run_with_stubs(render_runbook(plan, Ssh(user="ops")), tmp_path)
    assert f"ops@{text}" in call
    asked = subprocess.run([BASH, "-c", call[-1]], capture_output=True, check=False).stdout
    assert asked == f"{text}\n".encode(), "the other side's shell gives the program the very word"


def test_a_host_that_is_no_host_is_not_expanded_into_the_proxy_command() -> None:
    plan = replace(make_plan(members=1), places=(Place("cp-0", "node", "$(touch${IFS}planted)"),), steps=())
    page = render_runbook(plan, THROUGH_BASTION)
    call = next(line for line in page.splitlines() if line.startswith("on_cp_0"))
    assert "THROUGH[@]" not in call
    words = subprocess.run(
        [BASH, "-c", f"SSH=(printf '%s\\n'); {call}; on_cp_0 true"], capture_output=True, text=True, check=True
    ).stdout
    proxy = next(line for line in words.splitlines() if line.startswith("ProxyCommand="))
    assert "-W '$(touch${IFS}planted):2022' " in proxy


@settings(max_examples=200)
@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
        min_size=1,
        max_size=6,
        unique=True,
    )
)
def test_functions_of_different_places_have_different_names(names: list[str]) -> None:
    plan = replace(make_plan(members=1), places=tuple(Place(name, "node", "h") for name in names), steps=())
    page = render_runbook(plan, Ssh())
    defined = re.findall(r"^(on_\w+)\(\)", page, re.MULTILINE | re.ASCII)
    assert len(defined) == len({*defined}) == len(names)


def test_places_that_differ_in_a_mark_only_do_not_share_a_shell() -> None:
    places = (Place("cp-0", "node", "10.0.0.1"), Place("cp.0", "node", "10.0.0.2"), Place("cp_0", "node", "10.0.0.3"))
    steps = tuple(Step(f"s{place.name}", "stage", place.name, "words", Run(("true",))) for place in places)
    page = render_runbook(replace(make_plan(members=1), places=places, steps=steps), Ssh())
    hosts = dict(re.findall(r"^(on_\w+)\(\) .*@(\S+) \"\$1\" </dev/null", page, re.MULTILINE))
    called = re.findall(r"^(on_\w+) true$", page, re.MULTILINE)
    assert [hosts[name] for name in called] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


@settings(max_examples=100)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_no_text_of_a_plan_reaches_a_terminal_as_a_control(text: str) -> None:
    step = Step(text, "stage", "cp", text, Run((text,)), Check((text,), "match", text), Write(text, text))
    plan = replace(make_plan(members=1), words=(text,), places=(Place("cp", "node", "h"),), steps=(step,))
    page = render_runbook(plan, Ssh(), [Finding("note", text)])
    assert page.replace("\n", "").isprintable()


def test_a_plan_with_a_nul_is_not_printed() -> None:
    step = Step("a", "stage", "cp", "words", Run(("rm", "/a\0/b")))
    plan: Any = replace(make_plan(members=1), places=(Place("cp", "node", "h"),), steps=(step,))
    with pytest.raises(ObjectDamaged, match="NUL"):
        render_runbook(plan, Ssh())
