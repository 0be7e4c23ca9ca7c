"""Which error a command over SSH ends in: it failed, is missing, sudo does not run it, or the login runs nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etcdkeep.control_plane.node_archive import SUDO
from etcdkeep.control_plane.sudo import judge, judge_unknown, remedy, sudo_words
from etcdkeep.errors import AccessDenied, CommandFailed, CommandMissing, EtcdkeepError, StreamCut

if TYPE_CHECKING:
    from collections.abc import Callable

    from etcdkeep.control_plane.sudo import SudoAnswer, Verdict

SHELL_NOT_FOUND = 127
SIGNALS = range(129, 193)
"""How a shell reports a command that a signal ended: 128 and the signal's number."""
SHOWN_CHARACTERS = 500
NO_SUDO = re.compile(r": sudo: (command )?not found")

NO_LOGIN_SHELL = re.compile(r"(account|login) is (currently )?not available|nologin", re.IGNORECASE)
PASSWORD_EXPIRED = re.compile(r"password (has |is )?expired|password change required", re.IGNORECASE)
OTHER_USER = re.compile(r"log ?in as (the user )?[\"']?(?P<user>[a-z_][a-z0-9_-]*)", re.IGNORECASE)


@dataclass(frozen=True)
class Ended:
    """A command that ended, for messages."""

    what: str
    user: str
    argv: tuple[str, ...]

    @property
    def program(self) -> str:
        """The program, without sudo."""
        words = self.argv[len(SUDO) :] if self.argv[: len(SUDO)] == SUDO else self.argv
        return words[0].rpartition("/")[2] if words else ""


def cut(ended: Ended, why: str, said: str) -> StreamCut:
    """Return the error for an output that did not arrive whole."""
    return StreamCut(f"{ended.what}: {why}; its output is incomplete.{_last_words(said)}")


def login_refuses(ended: Ended, code: int, stdout: str, stderr: str) -> AccessDenied:
    """Return the error for a login that does not run commands."""
    said = shown(f"{stdout}\n{stderr}")
    words = f"and printed: {said}" if said else "and printed nothing"
    return AccessDenied(
        f"{ended.what}: the login does not run commands; it ended with exit code {code} {words}\n{_let_in(ended.user, said)}"
    )


def explain(
    ended: Ended, code: int, said: str, ask: Callable[[], SudoAnswer], *, started: bool | None = None
) -> EtcdkeepError:
    """
    Return the error for a command that ended with an exit code other than 0.

    :param ask: Asks ``sudo -n true``; only called where sudo's words alone do not tell.
    :param started: Whether sudo is known to have started the command.
    """
    last = _last_words(said)
    if code in SIGNALS:
        return cut(ended, f"a signal ended the command (exit code {code})", said)
    verdict: Verdict = "command"
    if ended.argv[: len(SUDO)] == SUDO and not started:
        verdict = judge(code, said)
        if verdict == "unknown":
            verdict = judge_unknown(said, ask())
    if code == SHELL_NOT_FOUND or verdict == "missing":
        return CommandMissing(
            f"{ended.what}: the node has no such program (exit code {code}).{last}\n{_install(ended.program, said)}"
        )
    if verdict == "command":
        return CommandFailed(
            f"{ended.what} ended with exit code {code}.{last}\nRun it by hand on the node to find the cause.",
            exit_code=code,
            stderr_tail=said,
        )
    why = {
        "needs-terminal": "sudo runs nothing without a terminal (requiretty)",
        "not-allowed": "sudo does not allow it without a password",
        "broken": "sudo itself does not work",
    }[verdict]
    return AccessDenied(
        f"{ended.what}: {why}. It printed: {shown(chr(10).join(sudo_words(said)) or said)}\n"
        f"{remedy(verdict, ended.user, ended.program)}"
    )


def shown(text: str) -> str:
    """Return the end of what a node printed, on one line and without control characters."""
    words = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return words if len(words) <= SHOWN_CHARACTERS else f"…{words[-SHOWN_CHARACTERS:]}"


def _last_words(said: str) -> str:
    return f" Last output: {shown(said)}" if said else ""


def _install(program: str, said: str) -> str:
    if NO_SUDO.search(said):
        return "Install sudo there: every command that needs root runs by it."
    if program in ("crictl", "docker"):
        return "Install it there, or correct control_plane.crictl."
    return f"Install {program} there, in a folder of the login's PATH and of sudo's secure_path."


def _let_in(user: str, said: str) -> str:
    if NO_LOGIN_SHELL.search(said):
        return f"User {user} has no login shell (nologin). Give it one: usermod --shell /bin/bash {user}"
    if PASSWORD_EXPIRED.search(said):
        return f"The password of {user} has expired. Renew it, or lift the limit: chage -M -1 {user}"
    if match := OTHER_USER.search(said):
        return f"Set ssh.user to {match['user']}."
    return (
        f"Give {user} a login shell that runs commands (/bin/bash), and neither a forced command in authorized_keys nor "
        "ForceCommand in sshd_config."
    )
