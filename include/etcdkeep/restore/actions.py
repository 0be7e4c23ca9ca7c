"""Carrying out one action of a plan, and answering one check, over the ports."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any, Protocol, assert_never

from etcdkeep.control_plane.node_archive import SUDO
from etcdkeep.errors import CommandFailed, NotFound, TransientError
from etcdkeep.ports import StreamLimits
from etcdkeep.restore.steps import Action, AnyCheck, ApiCheck, Call, Check, Move, Put, Run, Write

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from etcdkeep.ports import CommandRunner, KubeApi

CHECK_S = 60.0
PIECE_BYTES = 16 * 2**20
"""Files travel in pieces, each a command of its own: constant memory, and no wait for an end of input that some exec protocols cannot signal."""
WRITE_BLOCK_BYTES = 2**20
NOTHING_THERE = 44
KILLED = (137, 143)
"""Exit codes of a command that was ended from outside: with its container, or for want of memory."""


class World(Protocol):
    """Where a plan acts. Runners may be asked for again and again: after a cut, a new connection is in order."""

    def runner(self, place: str) -> CommandRunner:
        """Return a runner for a node or pod of the plan."""

    def api(self) -> KubeApi:
        """Return the Kubernetes API (kubeception: the admin cluster's)."""

    def artifact(self, name: str) -> Iterator[bytes]:
        """Yield the plaintext of an artifact of the set."""


def holds(world: World, place: str, check: AnyCheck) -> bool:
    """
    Answer a check.

    :raises EtcdkeepError: when the place does not answer; that is neither yes nor no.
    """
    if isinstance(check, ApiCheck):
        return _shows(world.api(), check)
    try:
        output = world.runner(place).run(check.argv, StreamLimits(check.limit_s)).stdout.decode(errors="replace")
    except CommandFailed as err:
        if err.exit_code in KILLED:
            raise TransientError(f"unknown, the check was killed: {err}") from err
        if check.expects == "nothing":
            raise TransientError(f"unknown, and a node that has just booted may answer later: {err}") from err
        return check.expects in ("failure", "mismatch")
    found = any(re.search(check.pattern, line) for line in output.splitlines())
    match check.expects:
        case "success":
            return True
        case "failure":
            return False
        case "nothing":
            return not output.strip()
        case "match":
            return found
        case "mismatch":
            return not found
        case _:
            assert_never(check.expects)


def all_hold(world: World, place: str, checks: Sequence[AnyCheck]) -> bool:
    """
    Tell whether all of these hold, in as few commands as that takes: each costs a way there and back.

    :return: True only when each holds; on False, ask one by one which does not, and whether it could be asked at all.
    :raises EtcdkeepError: as :func:`holds`.
    """
    together = [check for check in checks if isinstance(check, Check) and check.expects in ("success", "nothing")]
    alone = [check for check in checks if check not in together]
    try:
        if together:
            limits = StreamLimits(max(check.limit_s for check in together))
            world.runner(place).run(together_argv(together), limits)
    except CommandFailed:
        return False
    return all(holds(world, place, check) for check in alone)


def together_argv(checks: Sequence[Check]) -> tuple[str, ...]:
    """
    Return the call that succeeds when all these commands succeed, and print nothing where they are to.

    Where all run by sudo, one sudo runs them all: what it prints itself is then no answer to any.
    """
    by_sudo = all(check.argv[: len(SUDO)] == SUDO for check in checks)
    skipped = len(SUDO) if by_sudo else 0
    questions = (
        shlex.join(check.argv[skipped:]) + (" >/dev/null" if check.expects == "success" else "") for check in checks
    )
    script = 'for question; do said=$(eval "$question") && [ -z "$said" ] || exit; done'
    return (*SUDO[:skipped], "sh", "-c", script, "sh", *questions)


def act(world: World, place: str, action: Action) -> None:
    """Carry one action out; repeating it is harmless."""
    match action:
        case Run():
            world.runner(place).run(action.argv, StreamLimits(action.limit_s))
        case Put():
            _put(world.runner(place), action, world.artifact(action.artifact))
        case Write():
            _put(world.runner(place), action, [action.text.encode()])
        case Move():
            _move(world.runner(place), action)
        case Call():
            _call(world.api(), action)
        case _:
            assert_never(action)


def exists_argv(path: str, prefix: tuple[str, ...]) -> tuple[str, ...]:
    """Return the call that succeeds when there is anything of that name, a dangling link included."""
    return (*prefix, "test", "-e", path, "-o", "-L", path)


def rename_argv(source: str, target: str, prefix: tuple[str, ...], *, gnu: bool) -> tuple[str, ...]:
    """
    Return the call that renames; whatever stands at `target` keeps its content under a numbered name.

    :param gnu: Nodes have GNU's mv; a utility pod may have BusyBox's only, where what is moved takes the numbered name.
    """
    if gnu:
        return (*prefix, "mv", "-T", "--backup=numbered", source, target)
    script = 't=$2; n=1; while [ -e "$t" ]; do t=$2.~$n~; n=$((n + 1)); done; mv "$1" "$t"'
    return (*prefix, "sh", "-c", script, "sh", source, target)


def move_argv(move: Move) -> tuple[str, ...]:
    """Return the call that makes a whole move, and ends with :data:`NOTHING_THERE` when there is nothing to move nor moved."""
    gnu = bool(move.prefix)
    there, taken = (shlex.join(exists_argv(path, ())) for path in (move.source, move.target))
    go = shlex.join(rename_argv(move.source, move.target, (), gnu=gnu))
    if move.displaced != move.target:
        go = f"{{ ! {taken} || {shlex.join(rename_argv(move.target, move.displaced, (), gnu=gnu))}; }} && {go}"
    return (*move.prefix, "sh", "-c", f"if {there}; then {go}; else {taken} || exit {NOTHING_THERE}; fi")


def _move(runner: CommandRunner, move: Move) -> None:
    try:
        runner.run(move_argv(move), StreamLimits(CHECK_S))
    except CommandFailed as err:
        if err.exit_code != NOTHING_THERE:
            raise
        raise NotFound(f"{runner.where}: neither {move.source} nor {move.target} exists; nothing was renamed.") from err


def write_argv(path: str, size_bytes: int, block: int, prefix: tuple[str, ...]) -> tuple[str, ...]:
    """
    Return the call that writes `size_bytes` of its input to a file, from the given MiB on.

    It reads no further than that. The first piece makes the file anew, readable by its owner only. The shell's own
    standard output stays open (no ``> file``): when it closes early, containerd cuts standard input off, silently.
    """
    keep = " conv=notrunc" if block else ""
    script = f'umask 077; head -c "$1" | dd of="$2" bs={WRITE_BLOCK_BYTES} seek="$3" iflag=fullblock{keep}'
    return (*prefix, "sh", "-c", script, "sh", str(size_bytes), path, str(block))


def _put(runner: CommandRunner, action: Put | Write, chunks: Iterable[bytes]) -> None:
    block = 0
    for piece in _pieces(chunks):
        runner.run(write_argv(action.path, len(piece), block, action.prefix), StreamLimits(CHECK_S), stdin=piece)
        block += PIECE_BYTES // WRITE_BLOCK_BYTES


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut a stream into pieces of equal size; the last is shorter, and an empty stream is one empty piece."""
    piece = bytearray()
    sent = False
    for chunk in chunks:
        piece += chunk
        while len(piece) >= PIECE_BYTES:
            yield bytes(piece[:PIECE_BYTES])
            del piece[:PIECE_BYTES]
            sent = True
    if piece or not sent:
        yield bytes(piece)


def _call(api: KubeApi, call: Call) -> None:
    match call.verb:
        case "create":
            body = call.body or {}
            if body.get("kind") == "Pod":
                _clear_ended(api, f"{call.path}/{body['metadata']['name']}")
            api.create(call.path, body)
        case "patch":
            api.patch(call.path, call.body or {})
        case "delete":
            api.delete(call.path)
        case _:
            assert_never(call.verb)


def _clear_ended(api: KubeApi, path: str) -> None:
    """Delete a pod that was evicted or has ended: one of its name cannot be created before."""
    try:
        found = api.get(path)
    except NotFound:
        return
    if (found.get("status") or {}).get("phase") in ("Failed", "Succeeded"):
        api.delete(path)


def _shows(api: KubeApi, check: ApiCheck) -> bool:
    try:
        found: Any = api.get(check.path)
    except NotFound:
        return not check.value if not check.field else check.expects == "other"
    if not check.field:
        return bool(check.value)
    if check.field == "status.phase" and found["metadata"].get("deletionTimestamp"):
        return check.expects == "other"  # still "Running", and about to go: kubectl calls it Terminating
    for part in check.field.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return bool((found or 0) == (check.value or 0)) != (check.expects == "other")
