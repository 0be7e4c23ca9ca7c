"""How a runbook asks and acts in bash: functions that it begins with, and words that are safe to paste."""

from __future__ import annotations

import json
import shlex
from typing import assert_never

from etcdkeep.errors import ObjectDamaged
from etcdkeep.naming import split_address
from etcdkeep.restore.actions import write_argv
from etcdkeep.restore.steps import ApiCheck, Call, Put, Write

QUESTIONS = (
    "# Each place answers every question with yes or no. If a place does not answer, this bash ends and nothing is changed.",
    'no_answer() { echo "no answer, nothing was changed: $*" >&2; exit 1; }',
    "ask() {",
    "  # through its input, for the login's own shell may be another than sh",
    '  local lines="echo etcdkeep-begins; ($2) 2>/dev/null </dev/null; r=\\$?; echo; echo etcdkeep-ends-\\$r."',
    """  SAID=$(printf '%s\\n' "$lines" | "into_${1#on_}" sh) || true""",
    """  case $SAID in *etcdkeep-begins*etcdkeep-ends-[0-9]*.*) ;; *) no_answer "$@" ;; esac""",
    """  STATUS=${SAID##*etcdkeep-ends-} SAID=${SAID#*etcdkeep-begins}""",
    """  STATUS=${STATUS%%.*} SAID=${SAID%etcdkeep-ends-*}""",
    "}",
    'holds() { ask "$@"; [ "$STATUS" = 0 ]; }',
    'fails() { ask "$@"; [ "$STATUS" != 0 ]; }',
    """silent() { ask "$@"; [ "$STATUS" = 0 ] || no_answer "$@"; [ -z "${SAID//[$' \\t\\r\\n']/}" ]; }""",
    'says() { ask "$2" "$3"; [ "$STATUS" = 0 ] && grep -Eq -- "$1" <<<"$SAID"; }',
    'lacks() { ask "$2" "$3"; [ "$STATUS" != 0 ] || ! grep -Eq -- "$1" <<<"$SAID"; }',
    'wait_for() { local left=$1; shift; until ("$@"); do left=$((left - 1)); [ "$left" -gt 0 ] || { echo "timed out: $*" >&2; return 1; }; sleep 1; done; }',
)
"""Bash functions; between the marks stands what the command itself printed, whatever a login says before it."""
API_QUESTIONS = (
    'get() { GOT=$("${KUBECTL[@]}" get --ignore-not-found -o "$@") || no_answer "kubectl get $*"; }',
    'there() { get name "$@"; [ -n "$GOT" ]; }',
    'away() { get name "$@"; [ -z "$GOT" ]; }',
    'shows() { local value=$1 path=$2; shift 2; get "jsonpath={.$path}" "$@"; [ "${GOT:-0}" = "$value" ]; }',
    'differs() { local value=$1 path=$2; shift 2; get "jsonpath={.$path}" "$@"; [ "${GOT:-0}" != "$value" ]; }',
)


def quoted(text: str) -> str:
    """
    Quote one word for bash, on one line.

    A line break or a control character is spelled out: pasted raw, it would be obeyed by the terminal. The shell of the
    other side is given such a character itself, in quotes of its own: POSIX knows no ``$'…'``.
    """
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(map(_spelled, text)) + "'"


def _spelled(letter: str) -> str:
    if letter in "\\'":
        return f"\\{letter}"
    if letter == "\0":
        raise ObjectDamaged(
            "this restore plan has a NUL character in a command, which no program takes; do not run it."
        )
    return letter if letter.isprintable() else "".join(f"\\x{byte:02x}" for byte in letter.encode())


def host_and_port(address: str, port: int) -> tuple[str, int]:
    """Split an address; what is not one stays as it is."""
    try:
        return split_address(address, port)
    except ValueError:
        return address, port


def login_of(user: str, host: str) -> str:
    """Return ssh's destination; a user whose name begins with a dash is not taken for an option."""
    login = quoted(f"{user}@{host}")
    return f"-- {login}" if user.startswith("-") else login


def ssh_options(key: str, *, asks: bool) -> str:
    """Stock options and no file of the user's: the set's key and host keys, and a dead connection is noticed; `asks` for a password."""
    trust = (
        f"-o UserKnownHostsFile=access/known_hosts -o StrictHostKeyChecking=yes -o BatchMode={'no' if asks else 'yes'}"
    )
    return f"-F none -i access/{key} -o IdentitiesOnly=yes {trust} -o ServerAliveInterval=5"


def api_question(check: ApiCheck) -> str:
    """Return the question to the API server."""
    if not check.field:
        return f"{'there' if check.value else 'away'} {_target(check.path)}"
    asks = "differs" if check.expects == "other" else "shows"
    return f"{asks} {quoted(str(check.value))} {quoted(check.field)} {_target(check.path)}"


def write_command(action: Put | Write) -> str:
    """Return the command that writes its input to a file, for a shell."""
    size = action.size_bytes if isinstance(action, Put) else len(action.text.encode())
    return shlex.join(write_argv(action.path, size, 0, action.prefix))


def call_line(call: Call) -> str:
    """Return the line that changes an object of the API."""
    body = quoted(json.dumps(call.body))
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
    return f"-n {quoted(namespace)} {quoted(f'{kind}/{name}')}"
