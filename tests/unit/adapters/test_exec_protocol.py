"""Frames, channels and exit statuses of pod exec, whatever way the bytes are cut."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdkeep.adapters.kube.exec_protocol import (
    BINARY,
    CLOSING,
    PING,
    PONG,
    STDERR,
    STDOUT,
    ExitStatus,
    FrameDecoder,
    ProtocolError,
    parse_exit_status,
    says_program_missing,
)
from tests.exec_server import frame

MESSAGES = st.lists(
    st.tuples(
        st.sampled_from((STDOUT, STDERR)),
        st.lists(st.one_of(st.binary(max_size=40), st.integers(100, 70_000).map(bytes)), min_size=1, max_size=4),
    ),
    max_size=6,
)


def decode(data: bytes, cuts: list[int]) -> tuple[dict[int, bytes], list[tuple[int, bytes]]]:
    """Return what each channel got, and the control frames in order."""
    decoder = FrameDecoder()
    channels: dict[int, bytes] = {}
    control = []
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        for opcode, channel, payload in decoder.feed(data[start:end]):
            if opcode == BINARY:
                channels[channel] = channels.get(channel, b"") + bytes(payload)
            else:
                control.append((opcode, bytes(payload)))
    return channels, control


@given(MESSAGES, st.lists(st.integers(0, 1 << 20), max_size=12))
def test_channels_come_out_as_they_went_in_however_bytes_and_messages_are_cut(messages, cuts):
    wire, expected, pings = b"", {}, []
    for number, (channel, fragments) in enumerate(messages):
        for index, fragment in enumerate(fragments):
            body = bytes([channel]) + fragment if index == 0 else fragment
            wire += frame(body, 2 if index == 0 else 0, final=index == len(fragments) - 1)
            wire += frame(b"%d" % number, PING)
            pings.append((PING, b"%d" % number))
        if content := b"".join(fragments):
            expected[channel] = expected.get(channel, b"") + content
    assert decode(wire, cuts) == (expected, pings)


def test_every_single_cut_of_a_message_gives_the_same():
    wire = (
        frame(b"\x01" + bytes(range(256)), 2, final=False)
        + frame(b"", PONG)
        + frame(b"", 0)
        + frame(b"\x03\xe8bye", CLOSING)
    )
    whole = ({1: bytes(range(256))}, [(PONG, b""), (CLOSING, b"\x03\xe8bye")])
    assert {repr(decode(wire, [cut])) for cut in range(len(wire))} == {repr(whole)}


def test_data_is_handed_on_before_its_frame_is_complete():
    decoder = FrameDecoder()
    head = b"\x82\x7f" + (1 << 40).to_bytes(8, "big") + b"\x01"
    assert [bytes(piece.payload) for piece in decoder.feed(head + b"start")] == [b"start"]
    assert [bytes(piece.payload) for piece in decoder.feed(b"more")] == [b"more"]


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"\xc2\x01\x01", id="reserved-bit"),
        pytest.param(b"\x82\x81\0\0\0\0\x01", id="masked"),
        pytest.param(b"\x83\x01\x01", id="unknown-opcode"),
        pytest.param(frame(b"\x01x", 0), id="continuation-of-nothing"),
        pytest.param(frame(b"\x01x", 2, final=False) + frame(b"\x01y", 2), id="message-inside-a-message"),
        pytest.param(b"\x89\x7e\x01\x00", id="long-ping"),
        pytest.param(b"HTTP/1.1 502 Bad Gateway", id="not-websocket"),
    ],
)
def test_what_is_no_frame_of_a_server_is_refused(wire):
    with pytest.raises(ProtocolError):
        decode(wire, [])


@given(st.binary(max_size=300))
def test_any_bytes_decode_or_are_refused(data):
    try:
        channels, _ = decode(data, [])
    except ProtocolError:
        return
    assert sum(map(len, channels.values())) <= len(data)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param({"metadata": {}, "status": "Success"}, ExitStatus(0), id="success"),
        pytest.param(
            {
                "status": "Failure",
                "message": "command terminated with non-zero exit code: exit status 3",
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
            },
            ExitStatus(3, "command terminated with non-zero exit code: exit status 3"),
            id="exit-code",
        ),
        pytest.param(
            {
                "status": "Failure",
                "reason": "InternalError",
                "message": "no",
                "details": {"causes": [{"message": "no"}]},
                "code": 500,
            },
            ExitStatus(None, "no"),
            id="not-started",
        ),
        pytest.param(
            {"status": "Failure", "reason": "NonZeroExitCode"}, ExitStatus(None, "NonZeroExitCode"), id="no-code"
        ),
    ],
)
def test_exit_status(document, expected):
    assert parse_exit_status(json.dumps(document).encode()) == expected


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"{}", b'{"status": "Perhaps"}'])
def test_what_is_no_status_is_refused(raw):
    with pytest.raises(ValueError, match=r".*"):
        parse_exit_status(raw)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            'failed to exec in container: failed to start exec "1": OCI runtime exec failed: exec failed: unable to start container process: '
            'exec: "cat": executable file not found in $PATH: unknown',
            id="containerd-path",
        ),
        pytest.param(
            'unable to start container process: exec: "/bin/cat": stat /bin/cat: no such file or directory: unknown',
            id="containerd-absolute",
        ),
        pytest.param("executable file `cat` not found in $PATH: No such file or directory", id="crio-crun"),
        pytest.param(
            'OCI runtime exec failed: exec failed: container_linux.go:348: starting container process caused "exec: \\"cat\\": '
            'executable file not found in $PATH": unknown',
            id="docker",
        ),
        pytest.param('rpc status: code: INTERNAL message: "the file /bin/cat was not found"', id="kata"),
    ],
)
def test_runtimes_that_miss_the_program(text):
    assert says_program_missing(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('container not found ("etcd")', id="container-gone"),
        pytest.param("cat: /tmp/snapshot.db: No such file or directory", id="file-missing"),
        pytest.param("Error: stat /tmp/snapshot.db: no such file or directory", id="etcdctl-misses-a-file"),
        pytest.param(
            "exec failed: error closing exec fds: open /proc/self/fd: no such file or directory: unknown",
            id="runtime-broken",
        ),
        pytest.param("task 5ad0 not found: not found", id="task-gone"),
    ],
)
def test_other_failures_are_not_taken_for_a_missing_program(text):
    assert not says_program_missing(text)
