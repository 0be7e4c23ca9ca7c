"""Pod exec against an API server that speaks the protocol byte by byte, and misbehaves on demand."""

from __future__ import annotations

import json
import time
from contextlib import suppress

import pytest

from etcdkeep.adapters.kube.client import KubeApiClient, open_kubeconfig
from etcdkeep.adapters.kube.exec import ExecTiming, PodExec
from etcdkeep.errors import CommandFailed, PermanentError, StreamCut, StreamStalled
from etcdkeep.ports import PodRef, StreamLimits
from tests.exec_server import (
    ERROR,
    STDERR,
    STDOUT,
    SUCCESS,
    Certificates,
    ExecServer,
    Peer,
    close,
    failure,
    finished,
    frame,
    running,
    status,
)
from tests.process import resident_bytes

LIMITS = StreamLimits(deadline_s=20, stall_s=10)
ALL_BYTES = bytes(range(256))
POD = PodRef("kube-system", "etcd-cp-0", "etcd")
CAT = ("cat", "/tmp/a b.db")
IMPATIENT = ExecTiming(connect_s=2, ping_s=0.1, silence_s=0.6, settle_s=0.3)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def server(certificates):
    with running(ExecServer(certificates)) as started:
        yield started


def pod_exec(server: ExecServer, timing: ExecTiming | None = None, **user: str) -> PodExec:
    return KubeApiClient(open_kubeconfig(server.certificates.kubeconfig(server.url, **user)), exec_timing=timing).exec(
        POD
    )


def plays(*parts: bytes):
    def behave(peer: Peer) -> None:
        peer.send(*parts)
        peer.until_gone()

    return behave


@pytest.mark.parametrize("subprotocol", ["v5.channel.k8s.io", "v4.channel.k8s.io"])
def test_the_request_and_every_byte_of_the_output(server, subprotocol):
    server.subprotocol = subprotocol
    server.behave = plays(frame(STDERR + b"warning\n"), finished(ALL_BYTES * 3))
    result = pod_exec(server).run(CAT, LIMITS)
    assert (result.stdout, result.stderr) == (ALL_BYTES * 3, "warning")
    (peer,) = server.peers
    assert peer.path.startswith("/api/v1/namespaces/kube-system/pods/etcd-cp-0/exec?")
    assert [value for name, value in peer.query if name == "command"] == list(CAT)
    assert {name: value for name, value in peer.query if name != "command"} == {
        "container": "etcd",
        "stdin": "false",
        "stdout": "true",
        "stderr": "true",
        "tty": "false",
    }
    assert peer.headers["sec-websocket-protocol"].replace(" ", "") == "v5.channel.k8s.io,v4.channel.k8s.io"
    assert "origin" not in peer.headers
    assert peer.client_certificate


def test_fragments_pings_and_unknown_channels_between_the_data(server):
    parts = [
        frame(STDOUT + b"one ", final=False),
        frame(b"ping", 9),
        frame(b"two ", 0, final=False),
        frame(b"", 0),
        frame(b"\x04ignored"),
        frame(b"\xff\x01"),
    ]
    seen = []

    def behave(peer: Peer) -> None:
        peer.send(*parts)
        seen.append(peer.receive())
        peer.send(finished(b"three"))

    server.behave = behave
    assert pod_exec(server).run(CAT, LIMITS).stdout == b"one two three"
    assert seen == [(10, b"ping")]


@pytest.mark.parametrize("after", range(0, 60, 7))
def test_a_cut_after_any_byte_is_a_cut(server, after):
    server.behave = lambda peer: peer.send((frame(STDOUT + b"x" * 20) + status(SUCCESS))[:after])
    with pytest.raises(StreamCut, match=r"cat '/tmp/a b.db'.* in pod kube-system/etcd-cp-0 container etcd"):
        list(pod_exec(server).stream(CAT, LIMITS))


def test_what_came_before_a_cut_is_yielded_first(server):
    server.behave = lambda peer: peer.send(frame(STDOUT + b"begin"), frame(STDERR + b"oh"))
    chunks = pod_exec(server).stream(CAT, LIMITS)
    assert next(chunks) == b"begin"
    with pytest.raises(StreamCut, match="Last output: oh"):
        next(chunks)


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        pytest.param(frame(STDOUT + b"x") + close(), "1000", id="clean-close-without-status"),
        pytest.param(frame(STDOUT + b"x") + close(1011, "kubelet gone"), "1011 kubelet gone", id="close-with-reason"),
        pytest.param(frame(STDOUT + b"x") + frame(b"", 8), "without a reason", id="close-without-code"),
        pytest.param(frame(ERROR + b'{"status": "Perha') + close(), "cannot be read", id="half-a-status"),
        pytest.param(b"\xff\xff\xff\xff", "protocol error", id="no-frames"),
    ],
)
def test_no_exit_status_is_a_cut(server, wire, reason):
    server.behave = plays(wire)
    with pytest.raises(StreamCut, match=reason):
        pod_exec(server).run(CAT, LIMITS)


def test_a_status_in_pieces_counts(server):
    text = json.dumps(SUCCESS).encode()
    server.behave = plays(frame(STDOUT + b"x"), frame(ERROR + text[:9]), frame(ERROR + text[9:]), close())
    assert pod_exec(server).run(CAT, LIMITS).stdout == b"x"


def test_output_that_overtakes_nothing_after_the_status_still_counts(server):
    server.behave = plays(frame(STDOUT + b"x"), status(SUCCESS), frame(STDOUT + b"y"), close())
    assert pod_exec(server).run(CAT, LIMITS).stdout == b"xy"


def test_a_server_that_does_not_close_after_the_status_is_left(server):
    server.behave = plays(frame(STDOUT + b"x"), status(SUCCESS))
    assert pod_exec(server, IMPATIENT).run(CAT, LIMITS).stdout == b"x"


def test_only_the_end_of_standard_error_is_kept_and_anything_decodes(server):
    server.behave = plays(*[frame(STDERR + b"x" * 1000)] * 100, frame(STDERR + b"\xff\xfethe end"), finished(b""))
    text = pod_exec(server).run(CAT, LIMITS).stderr
    assert text.endswith("\ufffd\ufffdthe end")
    assert len(text) <= 4096


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"", id="from-the-start"),
        pytest.param(frame(STDOUT + b"x" * 100), id="between-frames"),
        pytest.param(frame(STDOUT + b"x" * 100)[:50], id="inside-a-frame"),
        pytest.param(b"\x82", id="inside-a-header"),
    ],
)
def test_a_stall_is_given_up(server, wire):
    server.behave = plays(wire)
    start = time.monotonic()
    with pytest.raises(StreamStalled, match=r"no output for 0\.3 s"):
        list(pod_exec(server, IMPATIENT).stream(CAT, StreamLimits(20, stall_s=0.3)))
    assert time.monotonic() - start < 18


def test_a_stall_inside_a_frame_that_ends_in_time_loses_nothing(server):
    wire = frame(STDOUT + ALL_BYTES * 200) + finished(b"end")

    def behave(peer: Peer) -> None:
        for start in range(0, len(wire), 5000):
            peer.send(wire[start : start + 5000])
            time.sleep(0.03)
        peer.until_gone()

    server.behave = behave
    assert pod_exec(server, IMPATIENT).run(CAT, LIMITS).stdout == ALL_BYTES * 200 + b"end"


def test_standard_error_is_no_progress(server):
    def behave(peer: Peer) -> None:
        while True:
            peer.send(frame(STDERR + b"still here\n"))
            time.sleep(0.02)

    server.behave = behave
    with pytest.raises(StreamStalled, match=r"no output for 0\.3 s"):
        pod_exec(server, IMPATIENT).run(CAT, StreamLimits(20, stall_s=0.3))


def test_the_deadline_holds_while_data_comes(server):
    def behave(peer: Peer) -> None:
        while True:
            peer.send(frame(STDOUT + b"x" * 1000))
            time.sleep(0.001)

    server.behave = behave
    with pytest.raises(StreamStalled, match=r"did not end within 0\.5 s"):
        list(pod_exec(server, IMPATIENT).stream(CAT, StreamLimits(0.5)))


def test_a_slow_consumer_is_no_stall(server):
    server.behave = plays(frame(STDOUT + b"a"), finished(b"b"))
    chunks = pod_exec(server, IMPATIENT).stream(CAT, StreamLimits(20, stall_s=0.3))
    seen = []
    for chunk in chunks:
        seen.append(chunk)
        time.sleep(0.8)
    assert b"".join(seen) == b"ab"


def test_silence_is_bridged_with_pings(server):
    pings = []

    def behave(peer: Peer) -> None:
        for _ in range(5):
            opcode, data = peer.receive()
            pings.append(opcode)
            peer.send(frame(data, 10))
        peer.send(finished(b"late"))

    server.behave = behave
    assert pod_exec(server, ExecTiming(ping_s=0.1, silence_s=0.3)).run(CAT, LIMITS).stdout == b"late"
    assert pings == [9] * 5


def test_a_server_that_answers_no_ping_is_dead(server):
    server.behave = plays(frame(STDOUT + b"x"))
    with pytest.raises(StreamCut, match=r"no data for 0\.6 s, not even an answer to a ping"):
        pod_exec(server, IMPATIENT).run(CAT, LIMITS)


def test_closing_the_iterator_early_closes_the_connection_in_order(server):
    seen = []

    def behave(peer: Peer) -> None:
        peer.send(frame(STDOUT + b"x" * 100))
        seen.append(peer.receive())
        peer.send(frame(STDOUT + b"y" * 100), close())
        seen.append(peer.until_gone())

    server.behave = behave
    chunks = pod_exec(server).stream(CAT, LIMITS)
    assert next(chunks).startswith(b"x")
    chunks.close()
    wait_until(lambda: len(seen) == 2)
    assert seen == [(8, (1000).to_bytes(2, "big")), []]


def test_standard_input_goes_through_while_output_comes_back(server):
    """A command such as cat answers before its input ends: neither side may wait for the other."""
    content = ALL_BYTES * 8192

    def behave(peer: Peer) -> None:
        got = bytearray()
        while True:
            opcode, data = peer.receive()
            if data[:1] == b"\xff":
                assert (opcode, data) == (2, b"\xff\x00")
                break
            assert data[:1] == b"\x00"
            got += data[1:]
            peer.send(frame(STDOUT + data[1:]))
        assert got == content
        peer.send(finished())

    server.behave = behave
    assert pod_exec(server).run(("cat",), LIMITS, stdin=content).stdout == content
    assert ("stdin", "true") in server.peers[0].query


def test_a_flood_against_a_server_that_reads_nothing_does_not_block(server):
    server.behave = lambda peer: (peer.send(frame(STDOUT + b"x" * 4_000_000), finished()), peer.until_gone())[0]
    assert len(pod_exec(server).run(("cat",), LIMITS, stdin=b"y" * 30_000_000).stdout) == 4_000_000


@pytest.mark.parametrize("released_by", ["output", "error"])
def test_a_command_is_held_until_its_output_has_arrived(server, released_by):
    """The server answers the end of standard input, and nothing else, with the command's end."""
    early = []

    def behave(peer: Peer) -> None:
        peer.send(frame(STDOUT + b"x" * 600))
        peer.wire.settimeout(0.3)
        with suppress(TimeoutError):
            early.append(peer.receive())
        peer.wire.settimeout(None)
        peer.send(frame(STDOUT + b"x" * 400) if released_by == "output" else frame(STDERR + b"cat: gone"))
        assert peer.receive() == (2, b"\xff\x00")
        peer.send(finished() if released_by == "output" else failure("NonZeroExitCode", "exit 1", 1) + close())

    server.behave = behave
    chunks = pod_exec(server).stream(("cat", "/f", "-"), LIMITS, hold_bytes=1000)
    if released_by == "output":
        assert len(b"".join(chunks)) == 1000
    else:
        with pytest.raises(CommandFailed, match="cat: gone"):
            list(chunks)
    assert early == []
    assert ("stdin", "true") in server.peers[0].query


def test_where_the_end_of_input_cannot_be_signalled_nothing_is_held(server):
    server.subprotocol = "v4.channel.k8s.io"
    server.behave = plays(finished(b"x" * 1000))
    assert len(b"".join(pod_exec(server).stream(("cat", "/f", "-"), LIMITS, hold_bytes=1000))) == 1000
    assert [dict(peer.query)["stdin"] for peer in server.peers] == ["true", "false"]


def test_standard_input_needs_v5(server):
    server.subprotocol = "v4.channel.k8s.io"
    with pytest.raises(PermanentError, match=r"v4\.channel\.k8s\.io.*v5\.channel\.k8s\.io \(Kubernetes 1\.30\)"):
        pod_exec(server).run(("cat",), LIMITS, stdin=b"x")


def test_memory_does_not_grow_with_the_output(server):
    part, count = frame(STDOUT + ALL_BYTES * 128), 4096

    def behave(peer: Peer) -> None:
        for _ in range(count):
            peer.wire.sendall(part)
        peer.send(finished())

    server.behave = behave
    size, resident = 0, []
    for chunk in pod_exec(server).stream(CAT, LIMITS):
        size += len(chunk)
        resident.append(resident_bytes())
    assert size == 128 * 1024 * 1024
    assert max(resident) - resident[0] < 20 * 1024 * 1024


def test_memory_does_not_depend_on_the_servers_frames(server):
    server.behave = lambda peer: (
        peer.send(b"\x82\x7f" + (1 << 27).to_bytes(8, "big") + STDOUT),
        [peer.send(b"x" * (1 << 20)) for _ in range(128)],
    )
    resident = []
    with pytest.raises(StreamCut):
        resident.extend(resident_bytes() for _ in pod_exec(server).stream(CAT, LIMITS))
    assert max(resident) - resident[0] < 20 * 1024 * 1024


def test_run_refuses_an_output_that_is_not_small(server, monkeypatch):
    monkeypatch.setattr("etcdkeep.adapters.commands.MAX_RUN_BYTES", 1000)
    server.behave = plays(frame(STDOUT + b"x" * 1001), finished())
    with pytest.raises(CommandFailed, match="more than 1000 bytes"):
        pod_exec(server).run(CAT, LIMITS)


def wait_until(condition) -> None:
    ends = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < ends, "it did not happen within 5 s"
        time.sleep(0.01)
