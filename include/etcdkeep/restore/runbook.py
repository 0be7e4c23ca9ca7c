"""
The plan as shell lines for a person with a terminal, the files that ``unseal`` wrote, and nothing of ours.

Every line asks first whether its work is done, so the page may be pasted again from the top after a break, as the
engine's walk may be begun again.
"""

from __future__ import annotations

import json
import shlex
from functools import partial
from typing import TYPE_CHECKING, assert_never

from etcdkeep.naming import split_address
from etcdkeep.restore.actions import exists_argv, rename_argv, write_argv
from etcdkeep.restore.preflight import LIMITS
from etcdkeep.restore.steps import PHASES, Action, AnyCheck, ApiCheck, Call, Move, Phase, Plan, Put, Run, Step, Write

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from etcdkeep.config import Ssh
    from etcdkeep.restore.preflight import Objection

TITLES: dict[Phase, str] = {
    "stage": "Bring the files; nothing live is touched",
    "restore_etcd": "Restore the snapshot into an empty folder and check it; nothing live is touched",
    "stop": "Stop the control plane: the down time begins",
    "swap_pki": "Swap certificates and keys",
    "swap_etcd": "Swap etcd's data",
    "start": "Start the control plane",
    "verify": "Wait for it, and close",
}


def render_runbook(plan: Plan, ssh: Ssh, objections: Sequence[Objection] = ()) -> str:
    """
    Return the whole page: a bash script that is also meant to be read and pasted block by block.

    :param ssh: How the nodes are reached.
    :param objections: What speaks against the restore; shown at the top.
    """
    return "\n".join([*_head(plan, ssh, objections), *_forward(plan), *_backward(plan)]) + "\n"


def undo_line(plan: Plan, step: Step) -> str:
    """Return one step's way back as a line of the runbook (it uses the functions at the page's top)."""
    line = " && ".join(_guarded(plan, step, step.undo, step.undone))
    return f"{line}  # {step.name}"


def _head(plan: Plan, ssh: Ssh, objections: Sequence[Objection]) -> Iterator[str]:
    yield "#!/bin/bash"
    yield f"# Restore {plan.run} of cluster {plan.cluster} from backup {plan.backup_id}."
    yield f"# Plan {plan.digest}"
    yield "#"
    yield from (f"# {line}" for line in plan.words)
    if objections:
        yield "#"
        yield "# What speaks against it:"
        yield from (f"# - {each.severity}: {each.sentence}" for each in objections)
    yield "#"
    yield "# Limits:"
    yield from (f"# - {limit}" for limit in LIMITS)
    yield "#"
    yield f"# Before: python -m etcdkeep unseal {plan.cluster}/{plan.backup_id} --to FOLDER, then `cd FOLDER` and start `bash`."
    yield "# Paste it block by block. A block that fails ends that bash: read why, mend it, start bash and paste again from the top."
    yield "set -eu"
    yield ""
    if any(place.kind == "node" for place in plan.places):
        yield from _node_functions(plan, ssh)
    if any(place.kind == "pod" for place in plan.places):
        yield from _pod_functions(plan)
    yield 'wait_for() { local left=$1; shift; until "$@"; do left=$((left - 1)); [ "$left" -gt 0 ] || { echo "gave up: $*" >&2; return 1; }; sleep 1; done; }'
    yield 'says() { local pattern=$1; shift; "$@" | grep -Eq -- "$pattern"; }'
    yield 'silent() { local said; said=$("$@") || return 1; [ -z "$said" ]; }'
    yield 'fails() { ! "$@" 2>/dev/null; }'
    for number, names in enumerate(_endings(plan), 1):
        steps = [step for step in plan.steps if step.name in names]
        questions = (_question(plan, step.place, step.done) for step in steps if step.done)
        yield f"over_{number}() {{ {' && '.join(questions)}; }}  # past {', '.join(names)}: what led there is not to be done again"
    yield ""


def _node_functions(plan: Plan, ssh: Ssh) -> Iterator[str]:
    options = _ssh_options("ssh_key")
    if ssh.jump:
        through = _ssh_options("jump_ssh_key" if ssh.jump.key else "ssh_key")
        proxy = f"ssh {through} -W %h:%p -p {ssh.jump.port} {ssh.jump.user}@{ssh.jump.host}"
        options += f" -o {shlex.quote(f'ProxyCommand={proxy}')}"
    yield "# One login for each node, kept open for all that follows."
    yield "LOGINS=$(mktemp -d)"
    yield f'SSH=(ssh {options} -o ControlMaster=auto -o "ControlPath=$LOGINS/%C" -o ControlPersist=60)'
    for place in plan.places:
        host, port = split_address(place.address, ssh.port)
        yield from _functions(place.name, f'"${{SSH[@]}}" -p {port} {ssh.user}@{host} "$1"')


def _ssh_options(key: str) -> str:
    """Stock options: the set's key and host keys, no question asked, and a dead connection is noticed."""
    trust = "-o UserKnownHostsFile=access/known_hosts -o StrictHostKeyChecking=yes -o BatchMode=yes"
    return f"-i access/{key} -o IdentitiesOnly=yes {trust} -o ServerAliveInterval=5"


def _pod_functions(plan: Plan) -> Iterator[str]:
    yield "# Its control plane is reached through the admin cluster, whose own backups have a kubeconfig: access/kubeconfig."
    yield ': "${ADMIN_KUBECONFIG:?export it first: the path of a kubeconfig for the admin cluster}"'
    yield 'KUBECTL=(kubectl --kubeconfig "$ADMIN_KUBECONFIG")'
    for place in plan.places:
        if place.kind == "pod":
            namespace, pod, container = place.address.split("/")
            yield from _functions(
                place.name, f'"${{KUBECTL[@]}}" exec -i -n {namespace} {pod} -c {container} -- sh -c "$1"'
            )
    yield 'there() { [ -n "$("${KUBECTL[@]}" get --ignore-not-found -o name "$@")" ]; }'
    yield 'shows() { local value=$1 path=$2 found; shift 2; found=$("${KUBECTL[@]}" get -o "jsonpath={.$path}" "$@") || return 1; [ "${found:-0}" = "$value" ]; }'


def _functions(place: str, call: str) -> Iterator[str]:
    """Two ways to run a command at a place; the one without input must not read the lines that are still to be pasted."""
    yield f"{_function(place)}() {{ {call} </dev/null; }}"
    yield f"{_function(place, 'into')}() {{ {call}; }}"


def _function(place: str, how: str = "on") -> str:
    return f"{how}_{place.replace('-', '_').replace('.', '_')}"


def _forward(plan: Plan) -> Iterator[str]:
    for number, phase in enumerate(PHASES, 1):
        steps = [step for step in plan.phase(phase) if step.action is not None or step.done is not None]
        if not steps:
            continue
        yield f"# === {number}. {TITLES[phase]} ==="
        for step in steps:
            yield f"# {step.place}: {step.words}"
            ending = _endings(plan).get(step.needed_until)
            yield from _guarded(plan, step, step.action, step.done, f"over_{ending} || " if ending else "")
            if step.remedy:
                seen, mend = (
                    _question(plan, step.place, step.remedy.seen),
                    " && ".join(_lines(plan, step.place, step.remedy.action)),
                )
                yield f"#   should it not come: {seen} && {mend}   # {step.remedy.words}"
        yield ""


def _backward(plan: Plan) -> Iterator[str]:
    yield "# === Back to the state before (only if something failed): these lines, from the top, without the leading '#' ==="
    for step in reversed(plan.steps):
        if step.reversible:
            yield f"# {step.place}: undo: {step.words}"
            yield from (f"#   {line}" for line in _guarded(plan, step, step.undo, step.undone))


def _endings(plan: Plan) -> dict[tuple[str, ...], int]:
    """Number the different sets of steps after which others are no longer needed."""
    return {
        names: number
        for number, names in enumerate(dict.fromkeys(step.needed_until for step in plan.steps if step.needed_until), 1)
    }


def _guarded(plan: Plan, step: Step, action: Action | None, check: AnyCheck | None, unless: str = "") -> Iterator[str]:
    """
    Yield: unless it is done, do it; then see that it is.

    :param unless: Begins each line: a question and ``||``.
    """
    lines = [] if action is None else list(_lines(plan, step.place, action))
    question = _question(plan, step.place, check) if check else ""
    before = unless + (f"{question} || " if question and not step.always else "")
    if len(lines) == 1:
        yield before + lines[0]
    elif lines and before:
        yield f"{before}{{"
        yield from (f"  {line}" for line in lines)
        yield "}"
    else:
        yield from lines
    if question:
        yield f"{unless}wait_for {max(1, round(step.wait_s))} {question}"


def _question(plan: Plan, place: str, check: AnyCheck) -> str:
    if isinstance(check, ApiCheck):
        return _api_question(check)
    call = f"{_function(place)} {shlex.quote(shlex.join(check.argv))}"
    match check.expects:
        case "success":
            return call
        case "failure":
            return f"fails {call}"
        case "nothing":
            return f"silent {call}"
        case "match":
            return f"says {shlex.quote(check.pattern)} {call}"
        case "mismatch":
            return f"fails says {shlex.quote(check.pattern)} {call}"
        case _:
            assert_never(check.expects)


def _api_question(check: ApiCheck) -> str:
    if not check.field:
        return f"{'' if check.value else 'fails '}there {_target(check.path)}"
    negated = "fails " if check.expects == "other" else ""
    return f"{negated}shows {shlex.quote(str(check.value))} {shlex.quote(check.field)} {_target(check.path)}"


def _lines(plan: Plan, place: str, action: Action) -> Iterator[str]:
    on, into = _function(place), _function(place, "into")
    match action:
        case Run():
            yield f"{on} {shlex.quote(shlex.join(action.argv))}"
        case Put():
            yield f"{into} {shlex.quote(_write_command(action))} < {shlex.quote(action.artifact)}"
        case Write():
            yield f"printf %s {shlex.quote(action.text)} | {into} {shlex.quote(_write_command(action))}"
        case Move():
            rename = partial(rename_argv, prefix=action.prefix, gnu=bool(action.prefix))
            there = shlex.join(exists_argv(action.target, action.prefix))
            away = shlex.join(rename(action.target, action.displaced))
            if action.displaced != action.target:
                yield f"{on} {shlex.quote(f'! {there} || {away}')}"
            yield f"{on} {shlex.quote(shlex.join(rename(action.source, action.target)))}"
        case Call():
            yield _call_line(action)
        case _:
            assert_never(action)


def _write_command(action: Put | Write) -> str:
    size = action.size_bytes if isinstance(action, Put) else len(action.text.encode())
    return shlex.join(write_argv(action.path, size, 0, action.prefix))


def _call_line(call: Call) -> str:
    body = shlex.quote(json.dumps(call.body))
    match call.verb:
        case "create":
            return f'printf %s {body} | "${{KUBECTL[@]}}" create -f -'
        case "patch":
            return f'"${{KUBECTL[@]}}" patch {_target(call.path)} --type=merge -p {body}'
        case "delete":
            return f'"${{KUBECTL[@]}}" delete {_target(call.path)}'
        case _:
            assert_never(call.verb)


def _target(path: str) -> str:
    """``-n namespace kind/name`` of an API path."""
    *_, namespace, kind, name = path.split("/")
    return f"-n {namespace} {kind}/{name}"
