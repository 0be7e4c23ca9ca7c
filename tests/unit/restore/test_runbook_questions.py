"""The questions of a printed page, asked by bash: yes only when the place has said so, and never because it was silent."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from etcdkeep.config.access import Ssh
from etcdkeep.restore.runbook import render_runbook
from etcdkeep.restore.runbook_shell import API_QUESTIONS, QUESTIONS
from tests.unit.restore import test_pod_plan as in_pods
from tests.unit.restore.admin_api import AdminApi

BASH = shutil.which("bash") or "/bin/bash"

ON_A_NODE = [
    pytest.param("holds on_it 'test -e /'", True, id="holds"),
    pytest.param("holds on_it 'test -e /nowhere'", False, id="does-not-hold"),
    pytest.param("fails on_it 'test -e /nowhere'", True, id="fails"),
    pytest.param("fails on_it 'test -e /'", False, id="does-not-fail"),
    pytest.param("fails on_it 'echo much; exit 3'", True, id="fails-with-words"),
    pytest.param("lacks '^mine$' on_it 'readlink /nowhere'", True, id="lacks-what-fails"),
    pytest.param("lacks '^mine$' on_it 'printf mine'", False, id="has-a-line-without-end"),
    pytest.param("lacks '^mine$' on_it 'echo theirs'", True, id="lacks"),
    pytest.param("lacks '^mine$' on_it 'echo theirs; echo mine'", False, id="has-a-second-line"),
    pytest.param("says '^mine$' on_it 'echo mine'", True, id="says"),
    pytest.param("silent on_it true", True, id="silent"),
    pytest.param("silent on_it 'echo word'", False, id="not-silent"),
]
OF_THE_API = [
    pytest.param("there pods/a", "pod/a", True, id="there"),
    pytest.param("away pods/a", "pod/a", False, id="not-away"),
    pytest.param("away pods/a", "", True, id="away"),
    pytest.param("shows held metadata.x pods/a", "held", True, id="shows"),
    pytest.param("differs held metadata.x pods/a", "held", False, id="does-not-differ"),
    pytest.param("differs held metadata.x pods/a", "other", True, id="differs"),
    pytest.param("differs held metadata.x pods/a", "", True, id="differs-from-nothing"),
    pytest.param("differs 0 status.replicas statefulsets/a", "", False, id="nothing-is-zero"),
]


@pytest.fixture(scope="module")
def functions() -> str:
    page = render_runbook(in_pods.make_plan(AdminApi(1)), Ssh())
    every = "\n".join((*QUESTIONS, *API_QUESTIONS))
    assert all(line in page for line in every.splitlines())
    return every


def ask(functions: str, place: str, question: str) -> str:
    """Return yes, no, or nothing where the question ended the script."""
    script = "\n".join(["set -eu", functions, "KUBECTL=(api)", place, f"{question} && echo yes || echo no"])
    return subprocess.run([BASH, "-c", script], capture_output=True, text=True, check=False).stdout.strip()


@pytest.mark.parametrize(("question", "answer"), ON_A_NODE)
def test_of_a_node_or_pod(functions: str, question: str, answer: bool) -> None:
    expected = "yes" if answer else "no"
    assert ask(functions, 'into_it() { sh -c "$1"; }', question) == expected
    assert ask(functions, 'into_it() { echo "Welcome to this node. 1."; sh -c "$1"; echo Bye; }', question) == expected
    assert ask(functions, "into_it() { cat >/dev/null; echo 'Connection refused' >&2; return 255; }", question) == ""
    for cut in (1, 9, 20, 30):
        assert ask(functions, f'into_it() {{ sh -c "$1" | head -c {cut}; return 255; }}', question) == ""


@pytest.mark.parametrize(("question", "printed", "answer"), OF_THE_API)
def test_of_the_api(functions: str, question: str, printed: str, answer: bool) -> None:
    expected = "yes" if answer else "no"
    assert ask(functions, f"api() {{ printf '%s' '{printed}'; }}", question) == expected
    assert ask(functions, "api() { echo 'Unable to connect to the server' >&2; return 1; }", question) == ""


def test_waiting_outlasts_a_place_that_does_not_answer(functions: str) -> None:
    late = 'into_it() { [ -e "$0.asked" ] || { : > "$0.asked"; return 255; }; sh -c "$1"; }'
    script = "\n".join(
        ["set -eu", "cd $(mktemp -d)", functions, late.replace("$0", "./x"), "wait_for 3 holds on_it true", "echo done"]
    )
    done = subprocess.run([BASH, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "done\n"
