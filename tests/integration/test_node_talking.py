"""Logins that talk, refuse or run nothing: a real OpenSSH server, a real shell, and sudos that people have."""

from __future__ import annotations

import re
import shlex
import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from etcdkeep.adapters.ssh.node import open_node
from etcdkeep.errors import AccessDenied, CommandFailed, CommandMissing, OutputUnexpected, StreamCut
from etcdkeep.ports import StreamLimits
from tests.etcd import free_ports
from tests.openssh import make_key, needs_sshd, running_sshd
from tests.ssh_server import KEY, Node, running, says

if TYPE_CHECKING:
    from pathlib import Path

LIMITS = StreamLimits(deadline_s=30, stall_s=10)
ADDRESS = "127.0.0.1"
ALL_BYTES = bytes(range(256)) * 3000
SUDO = 'while [ "$1" = -n ]; do shift; done\n'
RUN = SUDO + 'exec "$@"\n'
ONLY_DOCUMENTED = SUDO + (
    'case $1 in cat|find|tar) exec "$@";; esac\n'
    "echo \"Sorry, user ubuntu is not allowed to execute '$*' as root on cp-0.\" >&2; exit 1\n"
)
GREETS = 'echo "Welcome to cp-0"\n'
SUDOERS_LINE = r"ALL=\(root\) NOPASSWD: /usr/bin/cat, /usr/bin/find, /usr/bin/tar$"


class Site:
    """A server whose login has a home, a shell and a sudo of the test's own."""

    def __init__(self, folder: Path, server) -> None:
        self.bin, self.home, self.server = folder / "bin", folder / "server", server
        self.bin.mkdir()

    def program(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}")
        path.chmod(0o755)

    def open(self):
        return open_node(self.server.target(), self.server.key)


@pytest.fixture
def start(tmp_path):
    """Start a server; further lines of its configuration may be given."""
    with ExitStack() as stack:

        def begin(*options: str, sudo: str = RUN) -> Site:
            make_key(tmp_path / "user", "ed25519")
            (port,) = free_ports(1)
            # the first SetEnv counts, so HOME is given along
            home = f"SetEnv HOME={tmp_path}/server PATH={tmp_path}/bin:/usr/bin:/bin"
            server = stack.enter_context(
                running_sshd(
                    tmp_path / "server",
                    ADDRESS,
                    port,
                    tmp_path / "user",
                    *options,
                    environment=home,
                    kinds=("ed25519",),
                )
            )
            site = Site(tmp_path, server)
            site.program("sudo", sudo)
            return site

        yield begin


@pytest.fixture
def node():
    with running(Node()) as started:
        yield started


pytestmark = needs_sshd


# --- greetings --------------------------------------------------------------------------------------------------

NOISES = [
    pytest.param(".bashrc", 'echo "Welcome to cp-0"\n', id="bashrc"),
    pytest.param(".bashrc", "printf '\\033[1mno line break'\n", id="bashrc-without-line-break"),
    pytest.param(".bashrc", "head -c 3000000 /dev/zero | tr '\\0' x\n", id="bashrc-megabytes"),
    pytest.param(".bashrc", "trap 'echo bye' EXIT\n", id="bashrc-says-good-bye"),
    pytest.param(".bashrc", 'echo "<etcdkeep-00000000000000000000000000000000>"\n', id="bashrc-with-a-mark"),
    pytest.param(
        ".bashrc",
        'echo "Willkommen" >&2; export LC_ALL=de_DE.UTF-8 LANG=de_DE.UTF-8\n',
        id="bashrc-of-another-language",
    ),
]


@pytest.mark.parametrize(("file", "text"), NOISES)
def test_what_a_shell_prints_at_each_command_does_no_harm(start, file, text):
    site = start()
    (site.home / file).write_text(text)
    (site.home / "bytes").write_bytes(ALL_BYTES)
    with site.open() as shell:
        assert shell.run(("cat", f"{site.home}/bytes"), LIMITS).stdout == ALL_BYTES
        assert b"".join(shell.stream(("sudo", "-n", "cat", f"{site.home}/bytes"), LIMITS)) == ALL_BYTES
        assert shell.run(("cat",), LIMITS, stdin=ALL_BYTES).stdout == ALL_BYTES
        assert shell.run(("true",), LIMITS).stdout == b""
        with pytest.raises(CommandFailed) as caught:
            shell.run(("sh", "-c", "echo some output; exit 3"), LIMITS)
    assert caught.value.exit_code == 3


def test_a_profile_that_talks_does_no_harm(start):
    site = start('ForceCommand exec bash -l -c "$SSH_ORIGINAL_COMMAND"')
    (site.home / ".profile").write_text('echo "You have mail."\n')
    with site.open() as shell:
        assert shell.run(("printf", "%s", "a b"), LIMITS).stdout == b"a b"


def test_a_command_that_is_wrapped_in_words_keeps_its_own_exit_code(start):
    site = start('ForceCommand echo begin; sh -c "$SSH_ORIGINAL_COMMAND"; echo end')
    with site.open() as shell:
        assert shell.run(("printf", "%s", "a b"), LIMITS).stdout == b"a b"
        with pytest.raises(CommandFailed) as caught:
            shell.run(("sh", "-c", "exit 4"), LIMITS)
    assert caught.value.exit_code == 4


SUDOS_THAT_TALK = [
    pytest.param(GREETS + RUN, id="before"),
    pytest.param(GREETS + SUDO + '"$@"; s=$?; echo bye; exit $s\n', id="before-and-after"),
    pytest.param("date +%s%N\n" + RUN, id="another-word-each-time"),
    pytest.param("printf %s greeting\n" + RUN, id="without-line-break"),
    pytest.param(GREETS + ONLY_DOCUMENTED, id="only-the-documented-programs"),
    pytest.param(
        GREETS + ONLY_DOCUMENTED.replace('exec "$@"', '"$@"; s=$?; echo bye; exit $s'), id="documented-before-and-after"
    ),
]


@pytest.mark.parametrize("sudo", SUDOS_THAT_TALK)
def test_what_sudo_prints_at_each_command_does_no_harm(start, sudo):
    site = start(sudo=sudo)
    (site.home / "bytes").write_bytes(ALL_BYTES)
    (site.home / "empty").write_bytes(b"")
    with site.open() as shell:
        assert shell.run(("sudo", "-n", "cat", f"{site.home}/bytes"), LIMITS).stdout == ALL_BYTES
        assert shell.run(("sudo", "-n", "cat", f"{site.home}/empty"), LIMITS).stdout == b""
        assert b"".join(shell.stream(("sudo", "-n", "cat", f"{site.home}/bytes"), LIMITS)) == ALL_BYTES
        with pytest.raises(CommandFailed, match="No such file") as caught:
            shell.run(("sudo", "-n", "cat", "/no/such/file"), LIMITS)
    assert not isinstance(caught.value, OutputUnexpected)
    assert caught.value.exit_code == 1


def test_a_greeting_that_cannot_be_told_apart_is_named(start):
    site = start(sudo="date +%s%N\n" + ONLY_DOCUMENTED)
    with site.open() as shell, pytest.raises(OutputUnexpected, match=r"sudo prints .*\n.*standard error"):
        shell.run(("sudo", "-n", "cat", "/etc/hostname"), LIMITS)


@pytest.mark.parametrize("login_shell", ["fish", "tcsh", "zsh", "bash", "dash"])
def test_any_login_shell_will_do(start, login_shell):
    if shutil.which(login_shell) is None:
        pytest.skip(f"needs {login_shell}")
    site = start(f'ForceCommand {login_shell} -c "$SSH_ORIGINAL_COMMAND"')
    with site.open() as shell:
        assert shell.run(("printf", "%s", "it's $HOME; a"), LIMITS).stdout == b"it's $HOME; a"
        assert shell.run(("sudo", "-n", "printf", "%s", "a b"), LIMITS).stdout == b"a b"


# --- four ways not to get an answer ----------------------------------------------------------------------------------

REFUSALS = [
    pytest.param("sudo: a password is required", id="sudo"),
    pytest.param("sudo: a terminal is required to read the password; either use the -S option …", id="sudo-terminal"),
    pytest.param("sudo: interactive authentication is required", id="sudo-rs"),
    pytest.param("sudo: Ein Passwort ist notwendig", id="german"),
    pytest.param("sudo: il est nécessaire de saisir un mot de passe", id="french"),
    pytest.param("sudo: パスワードが必要です", id="japanese"),
    pytest.param("sudo: unable to resolve host cp-0\nsudo: a password is required", id="after-a-warning"),
    pytest.param("Sorry, user ubuntu is not allowed to execute '/usr/bin/cat /f' as root on cp-0.", id="rule"),
    pytest.param("ubuntu is not in the sudoers file.\nThis incident has been reported to the administrator.", id="no-sudoer"),
    pytest.param("sudo: I'm sorry ubuntu. I'm afraid I can't do that", id="sudo-rs-rule"),
]  # fmt: skip


@pytest.mark.parametrize("words", REFUSALS)
def test_a_refused_command_names_the_documented_line_and_no_wider_one(start, words):
    site = start(sudo=f"echo {shlex.quote(words)} >&2; exit 1\n")
    with site.open() as shell, pytest.raises(AccessDenied) as caught:
        shell.run(("sudo", "-n", "cat", "/f"), LIMITS)
    said = str(caught.value)
    assert words.splitlines()[-2 if "incident" in words else -1] in said
    assert re.search(SUDOERS_LINE, said)
    assert "NOPASSWD: ALL" not in said


def test_one_program_that_only_a_restore_needs_is_not_answered_by_a_line_that_allows_all(start):
    site = start(sudo=ONLY_DOCUMENTED)
    with site.open() as shell, pytest.raises(AccessDenied, match=r"docs/restore\.md") as caught:
        shell.run(("sudo", "-n", "systemctl", "stop", "kubelet"), LIMITS)
    assert "NOPASSWD" not in str(caught.value)


def test_sudo_that_wants_a_terminal_is_given_another_remedy(start):
    site = start(sudo="echo 'sudo: sorry, you must have a tty to run sudo' >&2; exit 1\n")
    with (
        site.open() as shell,
        pytest.raises(AccessDenied, match=r"requiretty(.|\n)*Defaults:\w+ !requiretty") as caught,
    ):
        shell.run(("sudo", "-n", "cat", "/f"), LIMITS)
    assert "NOPASSWD" not in str(caught.value)


def test_a_sudo_that_is_broken_is_called_that(start):
    site = start(sudo="echo 'sudo: /usr/bin/sudo must be owned by uid 0 and have the setuid bit set' >&2; exit 1\n")
    with site.open() as shell, pytest.raises(AccessDenied, match=r"itself does not work(.|\n)*sudo -n true") as caught:
        shell.run(("sudo", "-n", "cat", "/f"), LIMITS)
    assert "NOPASSWD" not in str(caught.value)


WARNINGS = [
    pytest.param("sudo: unable to resolve host cp-0: Name or service not known", id="known"),
    pytest.param("sudo: Rechner cp-0 kann nicht aufgelöst werden", id="of-another-language"),
]


@pytest.mark.parametrize("words", WARNINGS)
def test_a_command_that_fails_in_silence_under_a_sudo_that_warns_has_failed_itself(start, words):
    site = start(sudo=f"echo {shlex.quote(words)} >&2\n{RUN}")
    with site.open() as shell:
        with pytest.raises(CommandFailed) as caught:
            shell.run(("sudo", "-n", "test", "-d", "/no/such/folder"), LIMITS)
        assert shell.run(("sudo", "-n", "echo", "out"), LIMITS).stdout == b"out\n"
    assert caught.value.exit_code == 1


def test_sudo_is_asked_once_and_only_when_its_words_do_not_tell(start):
    site = start(sudo=f'echo "$*" >> "$HOME/asked"\necho "sudo: achtung" >&2\n{RUN}')
    with site.open() as shell:
        shell.run(("sudo", "-n", "true"), LIMITS)
        for _ in range(3):
            with pytest.raises(CommandFailed):
                shell.run(("sudo", "-n", "test", "-d", "/no/such/folder"), LIMITS)
    asked = (site.home / "asked").read_text().splitlines()
    assert asked.count("-n true") == 2
    assert asked.count("-n cat") == 2


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        pytest.param(("sudo", "-n", "crictl", "ps"), r"no such program(.|\n)*control_plane\.crictl", id="crictl"),
        pytest.param(("no-such-program",), r"no such program(.|\n)*Install no-such-program", id="plain"),
        pytest.param(("sudo", "-n", "/opt/x"), r"no such program", id="path"),
    ],
)
def test_a_missing_program_is_called_that(start, argv, text):
    site = start(
        sudo=SUDO + 'command -v "$1" >/dev/null || { echo "sudo: $1: command not found" >&2; exit 1; }\nexec "$@"\n'
    )
    with site.open() as shell, pytest.raises(CommandMissing, match=text):
        shell.run(argv, LIMITS)


def test_a_node_without_sudo_is_told_to_install_it(node):
    node.behave = says(stderr=b"sh: 1: sudo: not found\n", code=127)
    with open_node(node.target(), KEY) as shell, pytest.raises(CommandMissing, match="Install sudo there"):
        shell.run(("sudo", "-n", "cat", "/f"), LIMITS)


def test_the_words_of_a_command_are_shown_without_control_characters(start):
    site = start()
    with site.open() as shell, pytest.raises(CommandFailed) as caught:
        shell.run(("sh", "-c", "printf 'oh\\033]0;title\\007 no' >&2; exit 3"), LIMITS)
    assert "\x1b" not in str(caught.value)
    assert "Last output: oh" in str(caught.value)


# --- logins that run nothing -------------------------------------------------------------------------------------------

LOGINS = [
    pytest.param("/usr/sbin/nologin", r"currently not available(.|\n)*usermod --shell", id="nologin"),
    pytest.param("/bin/false", r"exit code 1 and printed nothing(.|\n)*/bin/bash", id="false"),
    pytest.param("/bin/true", r"exit code 0 and printed nothing(.|\n)*/bin/bash", id="true"),
    pytest.param(
        'echo \'Please login as the user "ubuntu" rather than the user "root".\'; exit 142',
        r"Please login as(.|\n)*Set ssh\.user to ubuntu",
        id="cloud-image",
    ),
    pytest.param(
        "echo 'WARNING: Your password has expired.'; echo 'Password change required but no TTY available.'; exit 1",
        r"has expired(.|\n)*chage",
        id="expired",
    ),
    pytest.param("echo '1) status 2) reboot'", r"1\) status(.|\n)*ForceCommand", id="menu"),
]


@pytest.mark.parametrize(("command", "text"), LOGINS)
def test_a_login_that_runs_nothing_is_named(start, command, text):
    site = start(f"ForceCommand {command}")
    with site.open() as shell, pytest.raises(AccessDenied, match=text) as caught:
        shell.run(("sudo", "-n", "cat", "/f"), LIMITS)
    assert "does not run commands" in str(caught.value)
    assert "NOPASSWD" not in str(caught.value)


# --- what the wire may do to the marks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 40, 41, 1000])
def test_marks_may_come_in_pieces(node, size):
    async def behave(command):
        whole = (
            b"noise<etcdkeep"
            + f"<{command.mark}>".encode()
            + ALL_BYTES[:5000]
            + f"<{command.mark} 0>".encode()
            + b"bye"
        )
        for start in range(0, len(whole), size):
            command._process.stdout.write(whole[start : start + size])
            await command._process.stdout.drain()
        command._process.exit(0)

    node.behave = behave
    node.begins = False
    with open_node(node.target(), KEY) as shell:
        assert shell.run(("true",), LIMITS).stdout == ALL_BYTES[:5000]


def test_an_output_without_its_end_is_not_complete_whatever_the_exit_code(node):
    async def behave(command):
        command.stdout.write(b"half")
        command._process.exit(0)

    node.behave = behave
    with open_node(node.target(), KEY) as shell, pytest.raises(StreamCut, match="end of its output is missing"):
        shell.run(("cat",), LIMITS)


def test_an_answer_without_marks_is_no_output(node):
    node.framed = False
    node.behave = says(b"This account is currently not available.\n", code=1)
    with open_node(node.target(), KEY) as shell, pytest.raises(AccessDenied, match="nologin"):
        list(shell.stream(("cat",), LIMITS))


def test_no_end_of_output_is_held_back(node):
    """A long-running command's last bytes are seen at once."""

    async def behave(command):
        command.stdout.write(b"tick <etc")
        await command.channel.wait_closed()

    node.behave = behave
    with open_node(node.target(), KEY) as shell:
        assert next(iter(shell.stream(("tail", "-f"), LIMITS))) == b"tick "
