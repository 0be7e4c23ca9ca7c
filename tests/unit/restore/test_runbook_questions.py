"""The questions of a printed page, asked by bash: yes only when the place has said so, and never because it was silent."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from etcdkeep.config import Ssh
from etcdkeep.restore.runbook import render_runbook
from tests.unit.restore import test_pod_plan as in_pods
from tests.unit.restore.admin_api import AdminApi

BASH = shutil.which("bash") or "/bin/bash"
FUNCTIONS = re.compile(r"(says|silent|fails|lacks|there|away|field|shows|differs)\(\) ")

ON_A_NODE = [
    pytest.param("fails on 'test -e /nowhere'", True, id="fails"),
    pytest.param("fails on 'test -e /'", False, id="does-not-fail"),
    pytest.param("fails on 'echo much; exit 3'", True, id="fails-with-words"),
    pytest.param("lacks '^mine$' on 'readlink /nowhere'", True, id="lacks-what-fails"),
    pytest.param("lacks '^mine$' on 'printf mine'", False, id="has-a-line-without-end"),
    pytest.param("lacks '^mine$' on 'echo theirs'", True, id="lacks"),
    pytest.param("lacks '^mine$' on 'echo theirs; echo mine'", False, id="has-a-second-line"),
    pytest.param("says '^mine$' on 'echo mine'", True, id="says"),
    pytest.param("silent on true", True, id="silent"),
    pytest.param("silent on 'echo word'", False, id="not-silent"),
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
    return "\n".join(line for line in page.splitlines() if FUNCTIONS.match(line))


def ask(functions: str, place: str, question: str) -> bool:
    script = "\n".join([functions, "KUBECTL=(api)", place, question])
    return subprocess.run([BASH, "-c", script], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(("question", "answer"), ON_A_NODE)
def test_of_a_node_or_pod(functions: str, question: str, answer: bool) -> None:
    assert ask(functions, 'on() { sh -c "$1"; }', question) is answer
    assert ask(functions, "on() { echo 'Connection refused' >&2; return 255; }", question) is False
    if not question.startswith("says"):  # which may have said it before the connection went
        assert ask(functions, 'on() { sh -c "$1" | head -c 1; return 255; }', question) is False


@pytest.mark.parametrize(("question", "printed", "answer"), OF_THE_API)
def test_of_the_api(functions: str, question: str, printed: str, answer: bool) -> None:
    assert ask(functions, f"api() {{ printf '%s' '{printed}'; }}", question) is answer
    assert ask(functions, "api() { echo 'Unable to connect to the server' >&2; return 1; }", question) is False
