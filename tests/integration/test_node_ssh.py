"""Commands on nodes over SSH: an in-process server that misbehaves on demand."""

from __future__ import annotations

import asyncio
import time

import pytest

from etcdkeep.adapters.ssh.node import open_node
from etcdkeep.errors import (
    AccessDenied,
    CommandFailed,
    CommandMissing,
    StreamCut,
    StreamStalled,
    Unreachable,
)
from etcdkeep.ports import StreamLimits
from tests.process import resident_bytes
from tests.ssh_server import KEY, Node, hangs, running, says

LIMITS = StreamLimits(deadline_s=20, stall_s=10)
ALL_BYTES = bytes(range(256))


@pytest.fixture
def node():
    with running(Node()) as started:
        yield started


def test_every_byte_of_the_output_and_the_command_line(node):
    seen = []

    async def behave(command):
        seen.append(command.command)
        command.stderr.write(b"warning\n")
        command.stdout.write(ALL_BYTES * 3000)
        command.exit(0)

    node.behave = behave
    with open_node(node.target(), KEY) as shell:
        result = shell.run(("cat", "/a b", "$HOME;", "it's"), LIMITS)
        assert b"".join(shell.stream(("true",), LIMITS)) == ALL_BYTES * 3000
    assert (result.stdout, result.stderr) == (ALL_BYTES * 3000, "warning")
    assert seen == ["cat '/a b' '$HOME;' 'it'\"'\"'s'", "true"]
    assert shell.where == f"node ubuntu@127.0.0.1:{node.port}"


@pytest.mark.parametrize(
    ("code", "stderr", "error", "text"),
    [
        pytest.param(3, b"oh\n", CommandFailed, "exit code 3. Last output: oh", id="exit-code"),
        pytest.param(
            127, b"bash: line 1: crictl: command not found\n", CommandMissing, "no such program.*crictl", id="missing"
        ),
        pytest.param(
            1, b"sudo: crictl: command not found\n", CommandMissing, "no such program.*crictl", id="missing-under-sudo"
        ),
        pytest.param(
            1,
            b"sudo: a password is required\n",
            AccessDenied,
            "ubuntu ALL=.root. NOPASSWD: /usr/bin/crictl",
            id="sudo-password",
        ),
        pytest.param(
            1,
            b"sudo: unable to resolve host a\nsudo: a password is required\n",
            AccessDenied,
            "sudoers.d",
            id="sudo-says-more",
        ),
        pytest.param(
            1,
            b"Sorry, user ubuntu is not allowed to execute '/bin/tar' as root on a.\n",
            AccessDenied,
            "sudoers.d",
            id="sudo-rule",
        ),
        pytest.param(1, b"ubuntu is not in the sudoers file.\n", AccessDenied, "sudoers.d", id="sudo-user"),
        pytest.param(None, b"Killed\n", StreamCut, "no exit status.*Killed", id="no-exit-status"),
    ],
)
def test_how_a_command_fails(node, code, stderr, error, text):
    node.behave = says(b"some output", stderr, code)
    with (
        open_node(node.target(), KEY) as shell,
        pytest.raises(error, match=f"(?s)on node ubuntu@127.0.0.1:{node.port}.*{text}"),
    ):
        shell.run(("sudo", "-n", "crictl"), LIMITS)


def test_a_command_ended_by_a_signal_has_no_exit_status(node):
    async def behave(command):
        command.exit_with_signal("KILL")

    node.behave = behave
    with open_node(node.target(), KEY) as shell, pytest.raises(StreamCut, match="signal"):
        shell.run(("true",), LIMITS)


def test_a_connection_cut_in_the_middle(node):
    node.behave = hangs
    with open_node(node.target(), KEY) as shell:
        chunks = shell.stream(("cat",), LIMITS)
        assert next(chunks) == b"begin"
        node.cut()
        with pytest.raises(StreamCut, match="cut"):
            next(chunks)
        with pytest.raises(Unreachable, match="could not be started"):
            shell.run(("true",), LIMITS)


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        pytest.param(StreamLimits(20, stall_s=0.3), r"no output for 0\.3 s .after 5 bytes", id="stall"),
        pytest.param(StreamLimits(0.5), r"did not end within 0\.5 s", id="deadline"),
    ],
)
def test_a_stall_is_given_up(node, limits, text):
    node.behave = hangs
    start = time.monotonic()
    with open_node(node.target(), KEY) as shell, pytest.raises(StreamStalled, match=text):
        shell.run(("cat",), limits)
    assert time.monotonic() - start < 18


def test_the_deadline_holds_after_the_output_ended(node):
    async def behave(command):
        command.stdout.write_eof()
        await asyncio.sleep(60)

    node.behave = behave
    with open_node(node.target(), KEY) as shell, pytest.raises(StreamStalled, match=r"within 0\.5 s"):
        shell.run(("cat",), StreamLimits(0.5))


def test_the_deadline_holds_while_only_standard_error_comes(node):
    async def behave(command):
        while True:
            command.stderr.write(b"x" * 10_000)
            await command.stderr.drain()

    node.behave = behave
    with open_node(node.target(), KEY) as shell, pytest.raises(StreamStalled, match=r"within 0\.5 s"):
        shell.run(("cat",), StreamLimits(0.5))


def test_a_flood_of_standard_error_does_not_block_the_output(node):
    async def behave(command):
        for _ in range(40):
            command.stderr.write(b"x" * 250_000)
            await command.stderr.drain()
        command.stderr.write(b"the end")
        command.stdout.write(b"done")
        command.exit(0)

    node.behave = behave
    with open_node(node.target(), KEY) as shell:
        result = shell.run(("tar",), LIMITS)
    assert result.stdout == b"done"
    assert result.stderr.endswith("xthe end")
    assert len(result.stderr) <= 4096


def test_standard_input_goes_through_while_output_comes_back(node):
    async def behave(command):
        while data := await command.stdin.read(65536):
            command.stdout.write(data)
            await command.stdout.drain()
        command.exit(0)

    node.behave = behave
    content = ALL_BYTES * 40_000
    with open_node(node.target(), KEY) as shell:
        assert shell.run(("cat",), LIMITS, stdin=content).stdout == content
        assert shell.run(("cat",), LIMITS).stdout == b""


def test_a_command_that_does_not_read_its_input_ends_with_its_own_status(node):
    node.behave = says(stderr=b"no", code=5)
    with open_node(node.target(), KEY) as shell, pytest.raises(CommandFailed) as caught:
        shell.run(("true",), LIMITS, stdin=b"x" * 10_000_000)
    assert (caught.value.exit_code, caught.value.stderr_tail) == (5, "no")


def test_memory_does_not_grow_with_the_output(node):
    async def behave(command):
        for _ in range(128):
            command.stdout.write(b"x" * 1024 * 1024)
            await command.stdout.drain()
        command.exit(0)

    node.behave = behave
    size, resident = 0, []
    with open_node(node.target(), KEY) as shell:
        for chunk in shell.stream(("cat",), LIMITS):
            size += len(chunk)
            resident.append(resident_bytes())
    assert size == 128 * 1024 * 1024
    assert max(resident) - resident[0] < 30 * 1024 * 1024


def test_closing_the_iterator_early_closes_the_channel(node):
    gone = []

    async def behave(command):
        command.stdout.write(b"begin")
        await command.channel.wait_closed()
        gone.append(True)

    node.behave = behave
    with open_node(node.target(), KEY) as shell:
        chunks = shell.stream(("cat",), LIMITS)
        next(chunks)
        chunks.close()
        ends = time.monotonic() + 5
        while not gone:
            assert time.monotonic() < ends
            time.sleep(0.01)
