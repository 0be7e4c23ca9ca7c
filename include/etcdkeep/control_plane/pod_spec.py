"""
Containers as the kubelet starts them: ``$(VAR)`` expanded, ``command`` and ``args`` joined, mounts resolved to host paths.

A reference to a variable that the pod does not define stays as it is, as the kubelet leaves it. A variable that the pod
defines and whose value cannot be known from here becomes :data:`UNKNOWN`, and so does what only a shell would fill in.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from etcdkeep.errors import ConfigError
from etcdkeep.safe_yaml import read_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

UNKNOWN = "\0"
"""Stands in a value for a part that cannot be known from here; YAML cannot hold it."""
SHELLS = frozenset({"sh", "bash", "ash", "dash", "ksh", "zsh"})
WRAPPERS = frozenset({"exec", "env", "export", "command", "nohup", "time", "then", "do", "else", "{", "!"})
"""Words that may stand before a program in a shell's command."""
PUNCTUATION = "();<>|&\n"
REFERENCE = re.compile(r"\$(?:\$|\(([^()]*)\))")
SHELL_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\}|\{[^}]*\}|[@*#?!$-])")
ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


@dataclass(frozen=True)
class Downward:
    """
    What the kubelet fills into a pod and its manifest does not say.

    :param node: Name of the node.
    :param host_ips: The node's addresses, the primary one first.
    :param pod_ips: The pod's own; a pod of the host's network has the node's.
    :param pod: The pod's whole name; empty for a manifest, whose name the kubelet completes with the node's.
    """

    node: str = ""
    host_ips: tuple[str, ...] = ()
    pod_ips: tuple[str, ...] = ()
    pod: str = ""


@dataclass(frozen=True)
class Container:
    """
    One container.

    :param commands: What it starts, each from its program on: one, or several where a shell's string starts them.
    :param shell: Whether a shell's string starts them.
    :param env: The variables that the manifest sets.
    :param mounts: Path in the container → path on the host, None for a volume that is not of the host.
    """

    name: str
    image: str
    commands: tuple[tuple[str, ...], ...]
    shell: bool
    env: Mapping[str, str]
    mounts: Mapping[str, str | None]

    @property
    def flags(self) -> Mapping[str, tuple[str, ...]]:
        """Flag without dashes → its values, in order, of everything that it starts."""
        given: dict[str, list[str]] = {}
        for command in self.commands:
            for flag, value in _flags(command):
                given.setdefault(flag.replace("_", "-"), []).append(value)
        return {flag: tuple(values) for flag, values in given.items()}

    def last(self, flag: str) -> str:
        """Return a flag's value, the last one given; empty where there is none."""
        return self.flags.get(flag, ("",))[-1]

    @property
    def programs(self) -> tuple[str, ...]:
        """The base names of what it starts."""
        return tuple(posixpath.basename(command[0]) for command in self.commands)

    def only(self, program: str) -> Container | None:
        """Return it as if it started that program alone; None where a shell starts no such program, or several."""
        if not self.shell:
            return self
        found = [command for command in self.commands if posixpath.basename(command[0]) == program]
        return replace(self, commands=tuple(found)) if len(found) == 1 else None

    def host_path(self, path: str) -> str | None:
        """Map a path through the mount that is nearest to it."""
        if not path.startswith("/") or UNKNOWN in path:
            return None
        path = posixpath.normpath(path)
        over = [mount for mount in self.mounts if path == mount or path.startswith(mount.rstrip("/") + "/")]
        mount = max(over, key=len, default="")
        host = self.mounts.get(mount)
        return posixpath.normpath(posixpath.join(host, posixpath.relpath(path, mount))) if host else None


def read_pod(manifest: bytes, source: str) -> dict[str, Any]:
    """
    Read the manifest of a static pod.

    :param source: The manifest's name, for messages.
    :raises ConfigError: when it is none.
    """
    pod = read_yaml(manifest, source)
    if not isinstance(pod, dict) or pod.get("kind") != "Pod" or not isinstance(pod.get("spec"), dict):
        raise ConfigError(f"{source} is not a manifest of a static pod (kind: Pod)")
    return pod


def downward_of(pod: Mapping[str, Any]) -> Downward:
    """Return what the API says of a pod that a kubelet runs."""
    status = pod.get("status") or {}

    def addresses(one: str, many: str) -> tuple[str, ...]:
        listed = [str(each["ip"]) for each in _maps(status.get(many)) if each.get("ip")]
        return tuple(listed or ([str(status[one])] if status.get(one) else []))

    return Downward(
        node=str(pod["spec"].get("nodeName") or ""),
        host_ips=addresses("hostIP", "hostIPs"),
        pod_ips=addresses("podIP", "podIPs"),
        pod=str(pod["metadata"]["name"]),
    )


def containers(pod: Mapping[str, Any], known: Downward, *, init: bool = False) -> tuple[Container, ...]:
    """
    Return the containers of a pod.

    :param init: Init containers too, before the others.
    """
    spec = pod["spec"]
    volumes = {
        volume.get("name"): volume["hostPath"].get("path")
        for volume in _maps(spec.get("volumes"))
        if isinstance(volume.get("hostPath"), dict)
    }
    bodies = [*(_maps(spec.get("initContainers")) if init else ()), *_maps(spec.get("containers"))]
    return tuple(_container(body, pod, volumes, known) for body in bodies)


def expand(text: str, env: Mapping[str, str], *, complete: bool = True) -> str:
    """
    Expand ``$(VAR)`` as the kubelet does: ``$$`` is one dollar, and what is not defined stays.

    :param complete: Whether `env` has every variable; with ``envFrom`` it has not.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] is None:
            return "$"
        return env.get(match[1], match[0] if complete else UNKNOWN)

    return REFERENCE.sub(value, text)


def _container(
    body: Mapping[str, Any], pod: Mapping[str, Any], volumes: Mapping[Any, Any], known: Downward
) -> Container:
    env, complete = _env(body, pod, known), not body.get("envFrom")
    items = [str(item) for part in ("command", "args") for item in _list(body.get(part))]
    words = [expand(item, env, complete=complete) for item in items]
    shell = _shell_script(words)
    commands, env = _script_commands(*shell, env) if shell else ([_program(words)], env)
    return Container(
        name=str(body.get("name") or ""),
        image=str(body.get("image") or ""),
        commands=tuple(tuple(command) for command in commands if command),
        shell=shell is not None,
        env=env,
        mounts=_mounts(body, volumes, env),
    )


def _mounts(body: Mapping[str, Any], volumes: Mapping[Any, Any], env: Mapping[str, str]) -> dict[str, str | None]:
    mounts: dict[str, str | None] = {}
    for mount in _maps(body.get("volumeMounts")):
        host = volumes.get(mount.get("name"))
        inner = str(mount.get("subPath") or expand(str(mount.get("subPathExpr") or ""), env))
        usable = host and UNKNOWN not in inner
        mounts[posixpath.normpath(str(mount.get("mountPath")))] = posixpath.join(str(host), inner) if usable else None
    return mounts


def _env(body: Mapping[str, Any], pod: Mapping[str, Any], known: Downward) -> dict[str, str]:
    """Return the variables in the order in which the kubelet makes them: one may use those before it."""
    env: dict[str, str] = {}
    for variable in _maps(body.get("env")):
        source = variable.get("valueFrom")
        if isinstance(source, dict):
            reference = source.get("fieldRef")
            path = str(reference.get("fieldPath")) if isinstance(reference, dict) else ""
            value = _field(path, pod, known)
        else:
            given = variable.get("value")
            value = expand("" if given is None else str(given), env)
        env[str(variable.get("name"))] = value
    return env


def _field(path: str, pod: Mapping[str, Any], known: Downward) -> str:
    metadata = pod.get("metadata") or {}
    node = known.node or str(pod["spec"].get("nodeName") or "")
    name = known.pod or (f"{metadata.get('name')}-{node.lower()}" if node else "")
    pod_ips = known.pod_ips or known.host_ips
    fields: dict[str, Callable[[], str]] = {
        "spec.nodeName": lambda: node,
        "metadata.name": lambda: name,
        "metadata.namespace": lambda: str(metadata.get("namespace") or "default"),
        "status.hostIP": lambda: known.host_ips[0] if known.host_ips else "",
        "status.hostIPs": lambda: ",".join(known.host_ips),
        "status.podIP": lambda: pod_ips[0] if pod_ips else "",
        "status.podIPs": lambda: ",".join(pod_ips),
    }
    if path in fields:
        return fields[path]() or UNKNOWN
    entry = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    return str((metadata.get(entry[1]) or {}).get(entry[2], "")) if entry else UNKNOWN


def _flags(items: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (flag, value) from ``--flag=value`` and from ``--flag`` followed by its value; etcd also takes one dash."""
    for item, following in pairwise([*items, "-"]):
        if not item.startswith("-"):
            continue
        flag, equals, value = item.lstrip("-").partition("=")
        if not equals and not following.startswith("-"):
            value = following
        yield flag, value


# --- a shell's string ----------------------------------------------------------------------------------------------


def _shell_script(words: list[str]) -> tuple[str, list[str]] | None:
    """Return the script of ``sh -c SCRIPT ARGUMENTS…`` and its arguments, ``$0`` first; None for another program."""
    program = _program(words)
    if program and posixpath.basename(program[0]) == "busybox":
        program = program[1:]
    if not program or posixpath.basename(program[0]) not in SHELLS:
        return None
    runs_string = False
    for place, word in enumerate(program[1:], 1):
        if not word.startswith(("-", "+")):
            return (word, program[place + 1 :]) if runs_string else None
        runs_string = runs_string or (word[:2] != "--" and "c" in word)
    return None


def _script_commands(
    script: str, arguments: Sequence[str], env: Mapping[str, str]
) -> tuple[list[list[str]], dict[str, str]]:
    """
    Return the commands of a plain script, with the variables that are known from here filled in, and those variables.

    What a shell alone can tell (a command's output, a variable set elsewhere) becomes :data:`UNKNOWN`.
    """
    values = dict(env)
    commands: list[list[str]] = []
    for words in _shell_commands(script):
        command: list[str] = []
        for word in words:
            if word in ("$@", "$*", "${@}"):
                command.extend(arguments[1:])
                continue
            filled = SHELL_VARIABLE.sub(lambda match: values.get(match[1] or match[2] or "", UNKNOWN), word)
            if assigned := ASSIGNMENT.fullmatch(filled):
                values[assigned[1]] = assigned[2]
            command.append(filled)
        commands.append(_program(command))
    return commands, values


def _shell_commands(script: str) -> list[list[str]]:
    """Split a script into commands, redirections left out; nothing where even shlex cannot read it."""
    text = re.sub(r"`[^`]*`", UNKNOWN, script.replace("\\\n", " "))
    while (shorter := re.sub(r"\$\([^()]*\)", UNKNOWN, text)) != text:
        text = shorter
    lexer = shlex.shlex(text, posix=True, punctuation_chars=PUNCTUATION)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
    commands: list[list[str]] = [[]]
    skip = False
    try:
        for token in lexer:
            if token and set(token) <= set(PUNCTUATION):
                skip = "<" in token or ">" in token
                if skip and commands[-1] and commands[-1][-1].isdigit():
                    commands[-1].pop()
                elif not skip:
                    commands.append([])
            elif skip:
                skip = False
            else:
                commands[-1].append(token)
    except ValueError:
        return []
    return [command for command in commands if command]


def _program(words: list[str]) -> list[str]:
    """Return a command from its program on, without what may stand before that."""
    while words and (words[0] in WRAPPERS or posixpath.basename(words[0]) == "env" or ASSIGNMENT.fullmatch(words[0])):
        words = words[1:]
    return words


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _maps(value: Any) -> list[dict[str, Any]]:
    return [item for item in _list(value) if isinstance(item, dict)]
