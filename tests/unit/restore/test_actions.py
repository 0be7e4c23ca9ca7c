"""Files that travel in pieces, and renames that overwrite nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdkeep.errors import NotFound, TransientError
from etcdkeep.restore import actions
from etcdkeep.restore.actions import act, holds
from etcdkeep.restore.steps import Check, Move, Write
from tests.unit.restore.builders import FakeWorld, make_world
from tests.unit.restore.machine import Fault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etcdkeep.ports import CommandResult, StreamLimits

SUDO = ("sudo", "-n")


@pytest.mark.parametrize("expects", ["success", "failure", "nothing", "match", "mismatch"])
def test_a_question_that_was_killed_is_neither_yes_nor_no(world: FakeWorld, expects: Any) -> None:
    world.machines["cp-0"].fault = Fault(1, "killed", before=True)
    with pytest.raises(TransientError, match="unknown"):
        holds(world, "cp-0", Check((*SUDO, "readlink", "/active"), expects, "r1"))


@given(st.lists(st.binary(max_size=40)), st.integers(1, 16))
def test_a_stream_is_cut_into_equal_pieces(chunks: list[bytes], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(actions, "PIECE_BYTES", size)
        pieces = list(actions._pieces(chunks))
    assert b"".join(pieces) == b"".join(chunks)
    assert all(len(piece) == size for piece in pieces[:-1])
    assert pieces


def test_a_file_is_written_anew_however_long_it_was(world: FakeWorld) -> None:
    machine = world.machines["cp-0"]
    machine.put("/f", "much longer than what comes")
    act(world, "cp-0", Write("short", "/f", SUDO))
    assert machine.files["/f"] == "short"


def test_what_stands_in_the_way_is_kept(world: FakeWorld) -> None:
    machine = world.machines["cp-0"]
    machine.put("/d/new", "new")
    for content in ("first", "second"):
        machine.put("/d/live", content)
        machine.put("/d/new", "new")
        act(world, "cp-0", Move("/d/new", "/d/live", "/d/stray", SUDO))
    assert machine.files["/d/live"] == "new"
    assert {machine.files["/d/stray"], machine.files["/d/stray.~1~"]} == {"first", "second"}


def test_a_rename_done_already_is_left_alone(world: FakeWorld) -> None:
    world.machines["cp-0"].put("/d/live", "new")
    act(world, "cp-0", Move("/d/new", "/d/live", "/d/stray", SUDO))
    assert world.machines["cp-0"].files["/d/live"] == "new"


def test_a_rename_of_nothing_is_an_error(world: FakeWorld) -> None:
    with pytest.raises(NotFound, match="neither /d/new nor /d/live"):
        act(world, "cp-0", Move("/d/new", "/d/live", "/d/stray", SUDO))


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        pytest.param(Check(("test", "-e", "/var")), True, id="success"),
        pytest.param(Check(("test", "-e", "/no")), False, id="no-success"),
        pytest.param(Check(("test", "-e", "/no"), "failure"), True, id="failure"),
        pytest.param(Check(("crictl", "ps", "--name", "^none$"), "nothing"), True, id="nothing"),
        pytest.param(Check(("crictl", "ps", "--name", "^etcd$"), "nothing"), False, id="something"),
        pytest.param(Check(("crictl", "ps", "--name", "etcd"), "match", "^etcd$"), True, id="match"),
        pytest.param(Check(("readlink", "/no"), "match", "x"), False, id="failed-match"),
        pytest.param(Check(("readlink", "/no"), "mismatch", "x"), True, id="failed-mismatch"),
    ],
)
def test_checks(world: FakeWorld, check: Check, answer: bool) -> None:
    assert holds(world, "cp-0", check) is answer


def test_a_check_has_the_time_that_it_names(world: FakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, allowed = world.machines["cp-0"], []
    run = machine.run

    def noting(argv: Sequence[str], limits: StreamLimits, *, stdin: bytes = b"") -> CommandResult:
        allowed.append(limits.deadline_s)
        return run(argv, limits, stdin=stdin)

    monkeypatch.setattr(machine, "run", noting)
    assert holds(world, "cp-0", Check(("test", "-e", "/var"), limit_s=4000))
    assert allowed == [4000]


def test_a_listing_that_fails_does_not_count_as_empty(world: FakeWorld) -> None:
    world.machines["cp-0"].fault = Fault(1, "fail", before=True)
    with pytest.raises(TransientError, match="may answer later"):
        holds(world, "cp-0", Check(("crictl", "ps", "--name", "^etcd$"), "nothing"))


@pytest.fixture
def world() -> FakeWorld:
    return make_world()
