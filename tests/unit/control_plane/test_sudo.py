"""Whose words these are: sudo's, or the command's."""

from __future__ import annotations

from pathlib import Path

import pytest

from etcdkeep.control_plane.sudo import (
    BACKUP_PROGRAMS,
    NODE_COPY_PROGRAMS,
    SudoAnswer,
    command_words,
    judge,
    judge_unknown,
    remedy,
    sudoers_line,
)

ACCEPTANCE = Path(__file__).parents[3] / "docs/acceptance.md"


@pytest.mark.parametrize(
    ("code", "said", "verdict"),
    [
        pytest.param(1, "cat: /f: No such file or directory", "command", id="command"),
        pytest.param(1, "", "command", id="silence"),
        pytest.param(2, "sudo: a password is required", "command", id="another-exit-code"),
        pytest.param(1, "sudo: a password is required\ncat: /f: Is a directory", "command", id="not-the-last-words"),
        pytest.param(1, "FATA[0000] password is required", "command", id="words-of-a-program"),
        pytest.param(1, "sudo: unable to resolve host a", "command", id="known-warning"),
        pytest.param(1, "sudo: a password is required", "not-allowed", id="password"),
        pytest.param(1, "sudo: sorry, a password is required to run sudo", "not-allowed", id="old-sudo"),
        pytest.param(1, "sudo: interactive authentication is required", "not-allowed", id="sudo-rs"),
        pytest.param(1, "/usr/bin/sudo: a password is required", "not-allowed", id="path"),
        pytest.param(1, "Sorry, user a may not run sudo on b.", "not-allowed", id="no-sudoer"),
        pytest.param(1, "a is not in the sudoers file.  This incident will be reported.", "not-allowed", id="file"),
        pytest.param(1, "sudo: sorry, you must have a tty to run sudo", "needs-terminal", id="requiretty"),
        pytest.param(1, "sudo: crictl: command not found", "missing", id="missing"),
        pytest.param(1, "sudo: 'crictl': command not found", "missing", id="missing-sudo-rs"),
        pytest.param(1, "sudo: /etc/sudoers is owned by uid 1000, should be 0", "broken", id="owner"),
        pytest.param(1, 'sudo: The "no new privileges" flag is set', "broken", id="no-new-privileges"),
        pytest.param(1, "sudo: account validation failure, is your account locked?", "broken", id="locked"),
        pytest.param(1, "sudo: Ein Passwort ist notwendig", "unknown", id="german"),
    ],
)
def test_a_verdict(code: int, said: str, verdict: str) -> None:
    assert judge(code, said) == verdict


def test_another_question_decides_on_words_that_are_not_known() -> None:
    assert judge_unknown("sudo: nein", SudoAnswer(1, "sudo: nein")) == "not-allowed"
    assert judge_unknown("sudo: achtung", SudoAnswer(0, "sudo: achtung")) == "command"
    assert judge_unknown("sudo: nicht erlaubt", SudoAnswer(0, "")) == "not-allowed"


@pytest.mark.parametrize("programs", [BACKUP_PROGRAMS, NODE_COPY_PROGRAMS])
def test_the_lines_are_those_of_the_documentation(programs: tuple[str, ...]) -> None:
    line = sudoers_line("ubuntu", programs)
    assert line in ACCEPTANCE.read_text().splitlines()
    assert all(remedy("not-allowed", "ubuntu", program).endswith(line) for program in programs)


def test_no_remedy_allows_everything() -> None:
    for program in (*BACKUP_PROGRAMS, *NODE_COPY_PROGRAMS, "sh", "systemctl", ""):
        assert "NOPASSWD: ALL" not in remedy("not-allowed", "ubuntu", program)
    assert "NOPASSWD" not in remedy("needs-terminal", "ubuntu", "cat")
    assert "NOPASSWD" not in remedy("broken", "ubuntu", "cat")


def test_a_command_s_own_words_are_without_those_of_sudo() -> None:
    assert command_words("sudo: unable to resolve host a\ncat: /f:\n  no\n") == "cat: /f: no"
