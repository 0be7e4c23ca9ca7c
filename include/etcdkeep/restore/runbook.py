"""
The plan as shell lines for a person with a terminal, the files that ``unseal`` wrote, and nothing of ours.

Every line asks first whether its work is done, so the page may be pasted again from the top after a break, as the
engine's walk may be begun again. What a plan says in words stands in comments of one line, whatever it contains; what it
names stands in quotes, and a control character in it is spelled out.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, assert_never

from etcdkeep.plain_text import one_line
from etcdkeep.restore.actions import move_argv
from etcdkeep.restore.runbook_shell import (
    API_QUESTIONS,
    QUESTIONS,
    api_question,
    call_line,
    host_and_port,
    login_of,
    quoted,
    ssh_options,
    write_command,
)
from etcdkeep.restore.steps import PHASES, Action, AnyCheck, ApiCheck, Call, Move, Phase, Plan, Put, Run, Step, Write
from etcdkeep.restore.vendor_limits import LIMITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from etcdkeep.config.access import Ssh
    from etcdkeep.restore.judge.finding import Finding
    from etcdkeep.restore.steps import Place

TITLES: dict[Phase, str] = {
    "stage": "Copy the files; nothing live is changed",
    "restore_etcd": "Restore the snapshot into an empty folder and check it; nothing live is changed",
    "stop": "Stop the control plane: the downtime begins",
    "swap_pki": "Swap certificates and keys",
    "swap_etcd": "Swap etcd's data",
    "start": "Start the control plane",
    "verify": "Wait for it",
    "close": "Close: from here on this restore cannot be rolled back",
}
_PLAIN_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]*")


def render_runbook(plan: Plan, ssh: Ssh, findings: Sequence[Finding] = ()) -> str:
    """
    Return the whole page: a bash script that is also meant to be read and pasted block by block.

    :param ssh: How the nodes are reached.
    :param findings: Of preflight; shown at the top.
    """
    page = _Page(plan, ssh)
    return "\n".join([*page.head(findings), *page.functions(), *page.forward(), *page.backward()]) + "\n"


def rollback_script(plan: Plan, steps: Iterable[Step], ssh: Ssh) -> tuple[str, ...]:
    """
    Return a whole bash script that rolls back some steps, line by line; it uses the same functions as the runbook.

    :param steps: In the order in which they are undone.
    :param ssh: How the nodes are reached.
    """
    page = _Page(plan, ssh)
    return (*page.rollback_head(), *page.functions(), *page.rollback(steps))


@dataclass(frozen=True)
class _Page:
    plan: Plan
    ssh: Ssh

    def head(self, findings: Sequence[Finding]) -> Iterator[str]:
        plan = self.plan
        yield "#!/bin/bash"
        yield _comment(f"Restore {plan.run} of cluster {plan.cluster} from backup {plan.backup_id}.")
        yield f"# Plan {plan.digest}"
        yield "#"
        yield from (_comment(line) for line in plan.words)
        if findings:
            yield "#"
            yield "# Findings of preflight:"
            yield from (_comment(f"- {each.severity}: {each.sentence}") for each in findings)
        yield "#"
        yield "# Limits:"
        yield from (_comment(f"- {limit}") for limit in LIMITS)
        yield "#"
        yield from self._before()
        yield "# Paste it block by block. A block that fails ends that bash: read why, repair the cause, start bash and paste again from the top."

    def rollback_head(self) -> Iterator[str]:
        yield "#!/bin/bash"
        yield _comment(f"Roll back restore {self.plan.run} of cluster {self.plan.cluster}: the steps that remain.")
        yield from self._before()
        yield "# A line that fails ends the script: read why, repair the cause, and run the whole script again."

    def _before(self) -> Iterator[str]:
        unseal = f"python -m etcdkeep unseal {self.plan.cluster}/{self.plan.backup_id} --to FOLDER"
        yield _comment(f"Before: {unseal}, then `cd FOLDER` and start `bash`.")

    def functions(self) -> Iterator[str]:
        """Yield what the lines call; a script begins with it."""
        kinds = {place.kind for place in self.plan.places}
        yield "set -eu"
        yield ""
        yield from QUESTIONS
        if "node" in kinds:
            yield from self._node_functions()
        if "pod" in kinds or "api" in kinds:
            yield from self._pod_functions()
        for names, number in self._undo_endings.items():
            past = _comment(f"{', '.join(names)} undone: what prepared it is not repeated")
            yield f"back_{number}() {{ {self._all(names, 'undone')}; }}  {past}"
        yield ""

    def forward(self) -> Iterator[str]:
        """Yield the way forward, block by block."""
        for names, number in self._endings.items():
            past = _comment(f"past {', '.join(names)}: what led there is not repeated")
            yield f"over_{number}() {{ {self._all(names, 'done')}; }}  {past}"
        yield ""
        for number, phase in enumerate(PHASES, 1):
            steps = [step for step in self.plan.phase(phase) if step.action is not None or step.done is not None]
            if not steps:
                continue
            yield f"# === {number}. {TITLES[phase]} ==="
            for step in steps:
                yield _comment(f"{step.place}: {step.words}")
                ending = self._endings.get(step.needed_until)
                yield from self._guarded(step, step.action, step.done, f"over_{ending} || " if ending else "")
                if step.remedy:
                    mend = " && ".join(self._lines(step.place, step.remedy.action))
                    seen, words = self._question(step.place, step.remedy.seen), _comment(step.remedy.words)
                    yield f"#   if it does not start: {seen} && {mend}   {words}"
            yield ""

    def backward(self) -> Iterator[str]:
        """Yield all ways back, commented out."""
        yield "# === Back to the state before (only if something failed): these lines, from the top, without the leading '#' ==="
        for step in reversed(self.plan.steps):
            if step.reversible:
                yield _undo_comment(step)
                yield from (f"#   {line}" for line in self._undoing(step))

    def rollback(self, steps: Iterable[Step]) -> Iterator[str]:
        """Yield the ways back of some steps, not commented out."""
        for step in steps:
            yield _undo_comment(step)
            yield from self._undoing(step)

    # --- functions -----------------------------------------------------------------------------------------------

    @cached_property
    def _functions_of(self) -> dict[str, str]:
        """Place → what the names of its functions end in: letters, digits and ``_``, and no two alike."""
        found: dict[str, str] = {}
        for place in self._places:
            name = re.sub(r"[^A-Za-z0-9_]", "_", place)
            while name in found.values():
                name += "_"
            found[place] = name
        return found

    @cached_property
    def _places(self) -> dict[str, Place]:
        return {place.name: place for place in reversed(self.plan.places)}

    def _on(self, place: str) -> str:
        return f"on_{self._functions_of[place]}"

    def _into(self, place: str) -> str:
        return f"into_{self._functions_of[place]}"

    def _node_functions(self) -> Iterator[str]:
        yield "# One login for each node, kept open for all that follows."
        yield "LOGINS=$(mktemp -d)"
        options = ssh_options("ssh_key", asks=self.ssh.may_ask)
        yield f'SSH=(ssh {options} -o ControlMaster=auto -o "ControlPath=$LOGINS/%C" -o ControlPersist=60)'
        if self.ssh.jump:
            yield f"THROUGH=(-o {quoted(self._proxy('%h:%p'))})"
        for place in self._places.values():
            if place.kind == "node":
                host, port = host_and_port(place.address, self.ssh.port)
                through = f" {self._through(host, port)}" if self.ssh.jump else ""
                call = f'"${{SSH[@]}}"{through} -p {port} {login_of(self.ssh.user, host)} "$1"'
                yield from self._two_functions(place, call)

    def _through(self, host: str, port: int) -> str:
        """A host that is no host's name must not reach the shell that runs the ProxyCommand, as ``%h`` would."""
        if _PLAIN_HOST.fullmatch(host):
            return '"${THROUGH[@]}"'
        return f"-o {quoted(self._proxy(quoted(f'{host}:{port}').replace('%', '%%')))}"

    def _proxy(self, target: str) -> str:
        jump = self.ssh.jump
        if jump is None:
            raise ValueError("there is no jump host")
        options = ssh_options("jump_ssh_key" if jump.key else "ssh_key", asks=jump.may_ask)
        login = login_of(jump.user, jump.host).replace("%", "%%")
        return f"ProxyCommand=ssh {options} -W {target} -p {jump.port} {login}"

    def _pod_functions(self) -> Iterator[str]:
        yield "# Its control plane is reached through the admin cluster, whose own backups have a kubeconfig: access/kubeconfig."
        yield ': "${ADMIN_KUBECONFIG:?export it first: the path of a kubeconfig for the admin cluster}"'
        yield 'KUBECTL=(kubectl --kubeconfig "$ADMIN_KUBECONFIG")'
        for place in self._places.values():
            if place.kind == "pod":
                namespace, pod, container = (*map(quoted, place.address.split("/", 2)), "''", "''")[:3]
                call = f'"${{KUBECTL[@]}}" exec -i -n {namespace} {pod} -c {container} -- sh -c "$1"'
                yield from self._two_functions(place, call)
        yield from API_QUESTIONS

    def _two_functions(self, place: Place, call: str) -> Iterator[str]:
        """Two ways to run a command at a place; the one without input must not read the lines that are still to be pasted."""
        yield f"{self._on(place.name)}() {{ {call} </dev/null; }}"
        yield f"{self._into(place.name)}() {{ {call}; }}"

    # --- lines ---------------------------------------------------------------------------------------------------

    @cached_property
    def _endings(self) -> dict[tuple[str, ...], int]:
        """Number the different sets of steps after which others are no longer needed."""
        return _numbered(step.needed_until for step in self.plan.steps)

    @cached_property
    def _undo_endings(self) -> dict[tuple[str, ...], int]:
        """Likewise, on the way back."""
        return _numbered(step.undo_needed_until for step in self.plan.steps)

    def _all(self, names: Sequence[str], direction: Literal["done", "undone"]) -> str:
        """Ask whether all of these steps are done, or all undone, as the engine does; one without such a check never is."""
        steps = [step for step in self.plan.steps if step.name in names and (direction == "done" or step.reversible)]
        checks = [(step.place, step.done if direction == "done" else step.undone) for step in steps]
        return " && ".join(self._question(place, check) if check else "false" for place, check in checks) or "false"

    def _undoing(self, step: Step) -> Iterator[str]:
        ending = self._undo_endings.get(step.undo_needed_until)
        return self._guarded(step, step.undo, step.undone, f"back_{ending} || " if ending else "")

    def _guarded(self, step: Step, action: Action | None, check: AnyCheck | None, unless: str = "") -> Iterator[str]:
        """
        Yield: unless it is done, do it; then see that it is.

        :param unless: Begins each line: a question and ``||``.
        """
        lines = [] if action is None else list(self._lines(step.place, action))
        question = self._question(step.place, check) if check else ""
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

    def _question(self, place: str, check: AnyCheck) -> str:
        if isinstance(check, ApiCheck):
            return api_question(check)
        call = f"{self._on(place)} {quoted(shlex.join(check.argv))}"
        match check.expects:
            case "success":
                return f"holds {call}"
            case "failure":
                return f"fails {call}"
            case "nothing":
                return f"silent {call}"
            case "match":
                return f"says {quoted(check.pattern)} {call}"
            case "mismatch":
                return f"lacks {quoted(check.pattern)} {call}"
            case _:
                assert_never(check.expects)

    def _lines(self, place: str, action: Action) -> Iterator[str]:
        match action:
            case Run():
                yield f"{self._on(place)} {quoted(shlex.join(action.argv))}"
            case Put():
                yield f"{self._into(place)} {quoted(write_command(action))} < {quoted(action.artifact)}"
            case Write():
                yield f"printf %s {quoted(action.text)} | {self._into(place)} {quoted(write_command(action))}"
            case Move():
                yield f"{self._on(place)} {quoted(shlex.join(move_argv(action)))}"
            case Call():
                yield call_line(action)
            case _:
                assert_never(action)


def _numbered(names: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], int]:
    return {each: number for number, each in enumerate(dict.fromkeys(filter(None, names)), 1)}


def _comment(text: str) -> str:
    return f"# {one_line(text)}"


def _undo_comment(step: Step) -> str:
    return _comment(f"{step.place}: undo: {step.words} (step {step.name})")
