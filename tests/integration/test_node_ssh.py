"""Commands on nodes over SSH: an in-process server that misbehaves on demand."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING

import asyncssh
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

from etcdkeep.adapters.node import NodeTarget, open_node, scan_host_keys
from etcdkeep.errors import (
    AccessDenied,
    CommandFailed,
    CommandMissing,
    ConfigError,
    HostKeyChanged,
    HostKeyUnknown,
    StreamCut,
    StreamStalled,
    Unreachable,
)
from etcdkeep.host_keys import parse_host_key
from etcdkeep.ports import StreamLimits
from tests.process import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

LIMITS = StreamLimits(deadline_s=20, stall_s=10)
ALL_BYTES = bytes(range(256))
PEM, NO_PASSWORD = serialization.Encoding.PEM, serialization.NoEncryption()
OPENSSH, PKCS8, TRADITIONAL = (
    serialization.PrivateFormat.OpenSSH,
    serialization.PrivateFormat.PKCS8,
    serialization.PrivateFormat.TraditionalOpenSSL,
)
USER_KEYS = {
    "rsa": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ecdsa": ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
}
KEY = USER_KEYS["ed25519"].private_bytes(PEM, OPENSSH, NO_PASSWORD)
ED25519, ECDSA, RSA = "ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"
HOST_KEYS = {name: asyncssh.generate_private_key(name) for name in (ED25519, ECDSA, RSA)}
OTHER_HOST_KEY = asyncssh.generate_private_key(ED25519)


def line(key: asyncssh.SSHKey) -> str:
    return key.export_public_key().decode().strip()


@dataclass
class Node:
    """
    An SSH server in a thread of its own.

    :param behave: What a command does; gets the process, whose stdin, stdout and stderr are bytes.
    """

    behave: Callable[[asyncssh.SSHServerProcess[bytes]], Awaitable[None]] | None = None
    host_keys: tuple[str, ...] = (ED25519, ECDSA, RSA)
    forwarding: bool = True
    port: int = 0
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    connections: list[asyncssh.SSHServerConnection] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)

    def target(self, *lines: str, user: str = "ubuntu") -> NodeTarget:
        return NodeTarget("127.0.0.1", self.port, user, lines or (line(HOST_KEYS[ED25519]),))

    async def start(self) -> None:
        node = self

        class Server(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                node.connections.append(conn)

            def begin_auth(self, username: str) -> bool:
                node.logins.append(username)
                return True

            def public_key_auth_supported(self) -> bool:
                return True

            def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
                known = {
                    user.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
                    for user in USER_KEYS.values()
                }
                return username == "ubuntu" and key.export_public_key().strip() in known

            def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
                if not node.forwarding:
                    raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "no")
                return True

        async def process(command: asyncssh.SSHServerProcess[bytes]) -> None:
            assert self.behave is not None
            try:
                await self.behave(command)
            except (asyncssh.Error, OSError, ConnectionError):
                command.close()

        listener = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=Server,
            server_host_keys=[HOST_KEYS[name] for name in self.host_keys],
            process_factory=process,
            encoding=None,
        )
        self.port = listener.get_port()

    def cut(self) -> None:
        """Drop every connection."""
        for connection in self.connections:
            self.loop.call_soon_threadsafe(connection.abort)


@contextmanager
def running(node: Node) -> Iterator[Node]:
    logging.getLogger("asyncssh").setLevel(logging.CRITICAL)
    thread = Thread(target=node.loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(node.start(), node.loop).result(10)
    yield node
    node.cut()
    node.loop.call_soon_threadsafe(node.loop.stop)
    thread.join(10)


@pytest.fixture
def node():
    with running(Node()) as started:
        yield started


@pytest.fixture
def jump_host():
    with running(Node()) as started:
        yield started


def says(
    stdout: bytes = b"", stderr: bytes = b"", code: int | None = 0
) -> Callable[[asyncssh.SSHServerProcess[bytes]], Awaitable[None]]:
    async def behave(command: asyncssh.SSHServerProcess[bytes]) -> None:
        command.stdout.write(stdout)
        command.stderr.write(stderr)
        if code is None:
            command.channel.close()
        else:
            command.exit(code)

    return behave


async def hangs(command: asyncssh.SSHServerProcess[bytes]) -> None:
    command.stdout.write(b"begin")
    await asyncio.sleep(60)


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
        pytest.param(3, b"oh\n", CommandFailed, "exit code 3. Its last words: oh", id="exit-code"),
        pytest.param(
            127, b"bash: line 1: crictl: command not found\n", CommandMissing, "no such program.*crictl", id="missing"
        ),
        pytest.param(
            1, b"sudo: crictl: command not found\n", CommandMissing, "no such program.*crictl", id="missing-under-sudo"
        ),
        pytest.param(
            1, b"sudo: a password is required\n", AccessDenied, "ubuntu ALL=.root. NOPASSWD: ALL", id="sudo-password"
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
    assert time.monotonic() - start < 5


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


# --- host keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [ED25519, ECDSA, RSA])
def test_each_type_of_host_key_is_enough_by_itself(node, algorithm):
    node.behave = says()
    with open_node(node.target(line(HOST_KEYS[algorithm])), KEY) as shell:
        shell.run(("true",), LIMITS)


def test_one_of_several_lines_is_enough_and_other_hosts_lines_do_not_count(node):
    node.behave = says()
    lines = (line(OTHER_HOST_KEY), f"[127.0.0.1]:{node.port} {line(HOST_KEYS[ED25519])} comment")
    with open_node(node.target(*lines), KEY) as shell:
        shell.run(("true",), LIMITS)
    with pytest.raises(HostKeyUnknown), open_node(node.target(f"10.0.0.9 {line(HOST_KEYS[ED25519])}"), KEY):
        pass


def test_an_unknown_host_is_refused_with_the_line_to_paste(node):
    node.behave = says()
    target = NodeTarget("127.0.0.1", node.port, "ubuntu", ())
    with pytest.raises(HostKeyUnknown) as caught, open_node(target, KEY):
        pass
    assert caught.value.line == f"[127.0.0.1]:{node.port} {line(HOST_KEYS[ED25519])}"
    assert caught.value.fingerprint == HOST_KEYS[ED25519].get_fingerprint()
    assert caught.value.line in str(caught.value)
    assert caught.value.fingerprint in str(caught.value)
    assert node.logins == []
    with open_node(node.target(caught.value.line), KEY) as shell:
        shell.run(("true",), LIMITS)


@pytest.mark.parametrize(
    "offered",
    [pytest.param((ED25519,), id="same-type"), pytest.param((RSA,), id="only-another-type")],
)
def test_a_changed_host_key_is_refused_before_anything_is_sent(offered):
    with running(Node(host_keys=offered)) as node:
        with pytest.raises(HostKeyChanged) as caught, open_node(node.target(line(OTHER_HOST_KEY)), KEY):
            pass
        assert OTHER_HOST_KEY.get_fingerprint() in str(caught.value)
        assert HOST_KEYS[offered[0]].get_fingerprint() in str(caught.value)
        assert node.logins == []


def test_a_line_that_is_no_host_key(node):
    with pytest.raises(ConfigError, match="host key line"), open_node(node.target("ssh-ed25519 AAAA"), KEY):
        pass


def test_host_keys_are_scanned_without_a_login(node):
    keys = scan_host_keys(NodeTarget("127.0.0.1", node.port, "ubuntu", ()))
    assert [key.line for key in keys] == [
        f"[127.0.0.1]:{node.port} {line(HOST_KEYS[name])}" for name in (ED25519, ECDSA, RSA)
    ]
    assert [key.fingerprint for key in keys] == [HOST_KEYS[name].get_fingerprint() for name in (ED25519, ECDSA, RSA)]
    assert all(parse_host_key(key.line) for key in keys)
    assert node.logins == []


def test_nothing_of_the_user_is_read(node, monkeypatch, tmp_path):
    """A known_hosts file and an agent that would make the login work are not asked."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{node.port} {line(HOST_KEYS[ED25519])}\n")
    (tmp_path / ".ssh" / "id_ed25519").write_bytes(KEY)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(HostKeyUnknown), open_node(NodeTarget("127.0.0.1", node.port, "ubuntu", ()), KEY):
        pass
    stranger = ed25519.Ed25519PrivateKey.generate().private_bytes(PEM, OPENSSH, NO_PASSWORD)
    with pytest.raises(AccessDenied, match="refused the key"), open_node(node.target(), stranger):
        pass


# --- our key -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", USER_KEYS)
@pytest.mark.parametrize("form", [OPENSSH, PKCS8, TRADITIONAL], ids=["openssh", "pkcs8", "traditional"])
def test_keys_in_every_usual_format(node, kind, form):
    if kind == "ed25519" and form is TRADITIONAL:
        form = OPENSSH
    node.behave = says(b"in")
    text = USER_KEYS[kind].private_bytes(PEM, form, NO_PASSWORD)
    with open_node(
        node.target(), b"\n" + text.replace(b"\n", b"\r\n") if form is not OPENSSH else text.rstrip()
    ) as shell:
        assert shell.run(("true",), LIMITS).stdout == b"in"


ENCRYPTED = serialization.BestAvailableEncryption(b"secret")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(b"", "no private key", id="empty"),
        pytest.param(KEY[:200], "no private key", id="cut-off"),
        pytest.param(line(OTHER_HOST_KEY).encode(), "no private key", id="public-key"),
        pytest.param(USER_KEYS["ed25519"].private_bytes(PEM, PKCS8, ENCRYPTED), "passphrase", id="encrypted-pem"),
        pytest.param(USER_KEYS["rsa"].private_bytes(PEM, TRADITIONAL, ENCRYPTED), "passphrase", id="encrypted-rsa"),
        pytest.param(
            USER_KEYS["ed25519"].private_bytes(PEM, OPENSSH, ENCRYPTED),
            "passphrase",
            id="encrypted-openssh",
        ),
        pytest.param(
            ec.generate_private_key(ec.SECP256K1()).private_bytes(PEM, PKCS8, NO_PASSWORD),
            "SSH does not use",
            id="other-curve",
        ),
        pytest.param(
            dsa.generate_private_key(1024).private_bytes(PEM, PKCS8, NO_PASSWORD),
            "expected RSA, ECDSA or Ed25519",
            id="dsa",
        ),
    ],
)
def test_an_unusable_key_is_explained_without_being_shown(node, text, reason):
    with pytest.raises(AccessDenied, match=reason) as caught, open_node(node.target(), text):
        pass
    assert "ubuntu@127.0.0.1" in str(caught.value)
    assert caught.value.__cause__ is None
    assert not any(len(part) > 12 and part in str(caught.value) for part in text.decode().splitlines()[1:])


def test_a_refused_key_names_user_host_and_fingerprint(node):
    with (
        pytest.raises(AccessDenied, match=f"root@127.0.0.1:{node.port}: the server refused the key SHA256:"),
        open_node(node.target(user="root"), KEY),
    ):
        pass


# --- the way there -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        pytest.param("127.0.0.1", "refused", id="refused"),
        pytest.param("no-such-host.invalid", "no connection", id="name-unknown"),
    ],
)
def test_an_unreachable_host(host, reason):
    target = NodeTarget(host, 1, "ubuntu", (line(OTHER_HOST_KEY),))
    with pytest.raises(Unreachable, match=f"ubuntu@{host}:1: .*{reason}"), open_node(target, KEY):
        pass


def test_a_port_that_is_no_ssh_server(tmp_path):
    from tests.exec_server import Certificates, ExecServer
    from tests.exec_server import running as serving

    with serving(ExecServer(Certificates(tmp_path))) as web:
        port = int(web.url.rsplit(":", 1)[1])
        target = NodeTarget("127.0.0.1", port, "ubuntu", (line(OTHER_HOST_KEY),))
        with pytest.raises(Unreachable, match="no SSH session"), open_node(target, KEY, connect_s=0.5):
            pass


def test_through_a_jump_host_with_its_own_user_keys_and_host_keys(node, jump_host):
    node.behave = says(ALL_BYTES * 10_000)
    jump = (jump_host.target(line(HOST_KEYS[RSA])), USER_KEYS["rsa"].private_bytes(PEM, TRADITIONAL, NO_PASSWORD))
    with open_node(node.target(), KEY, jump=jump) as shell:
        assert shell.run(("cat",), LIMITS).stdout == ALL_BYTES * 10_000
    assert len(jump_host.logins) == 1


def test_host_keys_are_scanned_through_a_jump_host(node, jump_host):
    keys = scan_host_keys(NodeTarget("127.0.0.1", node.port, "ubuntu", ()), jump=(jump_host.target(), KEY))
    assert len(keys) == 3


def test_both_hops_host_keys_are_checked(node, jump_host):
    with (
        pytest.raises(HostKeyUnknown, match=f":{node.port}"),
        open_node(NodeTarget("127.0.0.1", node.port, "ubuntu", ()), KEY, jump=(jump_host.target(), KEY)),
    ):
        pass
    stranger = jump_host.target(line(OTHER_HOST_KEY))
    with pytest.raises(HostKeyChanged, match=f":{jump_host.port}"), open_node(node.target(), KEY, jump=(stranger, KEY)):
        pass
    assert node.logins == []


@pytest.mark.parametrize(
    ("prepare", "error", "text"),
    [
        pytest.param(
            lambda jump, node: setattr(jump, "forwarding", False),
            AccessDenied,
            "through the jump host .*forbids.*AllowTcpForwarding",
            id="forbidden",
        ),
        pytest.param(
            lambda jump, node: setattr(node, "port", 1),
            Unreachable,
            "the jump host ubuntu@127.0.0.1:.* cannot reach 127.0.0.1:1",
            id="node-down",
        ),
        pytest.param(
            lambda jump, node: setattr(jump, "port", 1),
            Unreachable,
            "SSH to ubuntu@127.0.0.1:1: no connection",
            id="jump-host-down",
        ),
    ],
)
def test_a_jump_host_that_does_not_help(node, jump_host, prepare, error, text):
    prepare(jump_host, node)
    with pytest.raises(error, match=text), open_node(node.target(), KEY, jump=(jump_host.target(), KEY)):
        pass


def test_a_jump_host_that_goes_down_in_the_middle(node, jump_host):
    node.behave = hangs
    with open_node(node.target(), KEY, jump=(jump_host.target(), KEY)) as shell:
        chunks = shell.stream(("cat",), LIMITS)
        next(chunks)
        jump_host.cut()
        with pytest.raises(StreamCut):
            next(chunks)


def test_clients_own_log_stays_quiet(node, caplog):
    with pytest.raises(HostKeyChanged), open_node(node.target(line(OTHER_HOST_KEY)), KEY):
        pass
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
