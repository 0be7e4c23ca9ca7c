"""
What sudo says when it does not run a command, told apart from what the command itself says; pure.

Messages are those of sudo and sudo-rs under ``LC_ALL=C``. A sudo that speaks another language all the same is judged by
what it answers to ``sudo -n true``. The sudoers lines that are offered are those of docs/acceptance.md and no wider.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

BACKUP_PROGRAMS = ("cat", "find", "tar")
NODE_COPY_PROGRAMS = ("crictl", "docker", "rm")
"""With ``copy_out: node`` also these."""

REFUSED = 1
"""Exit code of every sudo that does not run the command."""

_FROM_SUDO = re.compile(
    r"^(\S*/)?sudo(-rs)?: |^Sorry, (user|try) |is not in the sudoers file|may not run sudo|is not allowed to run sudo"
    r"|^This incident (will be|has been) reported"
)
_MISSING = re.compile(r"^(\S*/)?sudo(-rs)?: .*(command not found|No such file or directory \(os error 2\))")
_NEEDS_TERMINAL = re.compile(r"must have a tty")
_NOT_ALLOWED = re.compile(
    r"(password|terminal) is required|authentication (is )?required|^Sorry, user .* (not|cannot)|I'm sorry"
    r"|is not in the sudoers file|may not run sudo|is not allowed to run sudo",
    re.IGNORECASE,
)
_BROKEN = re.compile(
    r"setuid|no new privileges|effective uid|owned by uid|world writable|(syntax|parse) error|account validation"
    r"|(Account|password) .*expired|unable to (open|stat|initialize) (/etc/sudo|sudoers|policy|PAM)",
    re.IGNORECASE,
)
_WARNING = re.compile(
    r"unable to (resolve host|send audit message|get time|mkdir|change|execute)|setrlimit|error in event loop|warning",
    re.IGNORECASE,
)

Verdict = Literal["command", "missing", "needs-terminal", "not-allowed", "broken", "unknown"]


@dataclass(frozen=True)
class SudoAnswer:
    """What ``sudo -n true`` ended with, and said."""

    exit_code: int
    stderr: str


def judge(exit_code: int, stderr: str) -> Verdict:
    """
    Say who failed: the command itself, or sudo, and at what.

    Only sudo's last words count: what it warns of comes before the command, which then has the last word.

    :return: ``unknown`` when sudo said something last that is not known here; then :func:`judge_unknown` decides.
    """
    said = sudo_words(stderr)
    if exit_code != REFUSED or not said:
        return "command"
    text = "\n".join(said)
    if any(_MISSING.search(line) for line in said):
        return "missing"
    if _NEEDS_TERMINAL.search(text):
        return "needs-terminal"
    if any(_NOT_ALLOWED.search(line) for line in said):
        return "not-allowed"
    if _BROKEN.search(text):
        return "broken"
    return "command" if all(_WARNING.search(line) for line in said) else "unknown"


def judge_unknown(stderr: str, answer: SudoAnswer) -> Verdict:
    """
    Decide by another question: sudo that refuses ``true`` too refuses everything; what it says there too is a warning.

    :param stderr: Of the command.
    """
    if answer.exit_code != 0:
        return "not-allowed"
    return "command" if set(sudo_words(stderr)) <= set(answer.stderr.splitlines()) else "not-allowed"


def sudo_words(stderr: str) -> tuple[str, ...]:
    """Return the lines of sudo that are the last of all."""
    last: list[str] = []
    for line in reversed([line.strip() for line in stderr.splitlines() if line.strip()]):
        if not _FROM_SUDO.search(line):
            break
        last.insert(0, line)
    return tuple(last)


def command_words(stderr: str) -> str:
    """Return what a command itself said, on one line, without what sudo warned of before."""
    said = (line.strip() for line in stderr.splitlines() if not _FROM_SUDO.search(line))
    return " ".join(" ".join(said).split())


def remedy(verdict: Verdict, user: str, program: str) -> str:
    """Return the next step for a command that sudo did not run, as an imperative."""
    match verdict:
        case "needs-terminal":
            return f"Lift that for this login, in a file below /etc/sudoers.d:\nDefaults:{user} !requiretty"
        case "not-allowed":
            return _allow(user, program)
        case _:
            return f"Log in as {user}, run `sudo -n true`, and repair what it reports."


def _allow(user: str, program: str) -> str:
    for documented in (BACKUP_PROGRAMS, NODE_COPY_PROGRAMS):
        if program in documented:
            return f"Allow it without a password, in a file below /etc/sudoers.d:\n{sudoers_line(user, documented)}"
    return (
        'Only a restore needs this. Allow its login what docs/restore.md names under "What each case needs", '
        "without a password."
    )


def sudoers_line(user: str, programs: tuple[str, ...]) -> str:
    """Return the line that lets a login run programs of ``/usr/bin``."""
    return f"{user} ALL=(root) NOPASSWD: {', '.join(f'/usr/bin/{program}' for program in programs)}"
