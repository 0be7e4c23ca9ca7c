"""A control-plane node as data: a file tree, a kubelet, containers; it understands the very commands that a plan gives."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import shlex
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from etcdkeep.errors import CommandFailed, StreamStalled, Unreachable
from etcdkeep.ports import CommandResult, StreamLimits
from etcdkeep.restore.actions import NOTHING_THERE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LINK = "→"


class Killed(BaseException):
    """The worker is gone; nothing of ours may catch it."""


@dataclass
class Fault:
    """
    What happens at the n-th command: ``kill`` the worker, ``reboot`` the node, ``cut``; ``fail`` or ``timeout``, and then always.

    :param before: Whether the command had no effect.
    """

    at: int
    kind: str
    before: bool


@dataclass
class Machine:
    """
    One node.

    :param files: Path → content; a folder's content is None.
    """

    name: str
    files: dict[str, str | None] = field(default_factory=dict)
    kubelet: bool = True
    running: set[str] = field(default_factory=set)
    data_dir: str = "/var/lib/etcd"
    manifests: str = "/etc/kubernetes/manifests"
    fault: Fault | None = None
    count: int = 0
    watch: Callable[[Machine], None] = lambda machine: None
    where: str = "node"
    denied: bool = False

    # --- the world's own life ------------------------------------------------------------------------------------

    def live(self) -> None:
        """Do what a kubelet does: run what has a manifest, and end what has none."""
        if not self.kubelet:
            return
        wanted = {posixpath.basename(path)[:-5] for path in self.children(self.manifests) if path.endswith(".yaml")}
        self.running = wanted
        member = f"{self.data_dir}/member"
        if "etcd" in self.running and self.data_dir in self.files and member not in self.files:
            self.put(f"{member}/snap/db", "an empty etcd's")

    def in_use(self) -> bool:
        """Say whether something works on the live files."""
        return bool(self.running)

    def reboot(self) -> None:
        """All processes end; the kubelet starts by itself."""
        self.running = set()
        self.kubelet = True
        self.live()

    # --- files ---------------------------------------------------------------------------------------------------

    def put(self, path: str, content: str | None = None) -> None:
        """Make a file, or a folder where there is no content, and the folders above."""
        parent = posixpath.dirname(path)
        if parent != path and parent not in self.files:
            self.put(parent)
        self.files[path] = content

    def children(self, folder: str) -> list[str]:
        """Return what lies directly in a folder."""
        above = f"{folder}/"
        return [path for path in self.files if path.startswith(above) and "/" not in path[len(above) :]]

    def tree(self, folder: str) -> dict[str, str | None]:
        """Return everything below a path, by relative name."""
        return {
            path[len(folder) :]: content
            for path, content in self.files.items()
            if path == folder or path.startswith(folder + "/")
        }

    def exists(self, path: str) -> bool:
        """Say whether there is something; a link counts when its target is there."""
        content = self.files.get(path)
        if content is not None and content.startswith(LINK):
            return self.exists(content[1:])
        return path in self.files

    def rename(self, source: str, target: str) -> None:
        """rename(2): the target must not be a folder with something in it."""
        moved = self.tree(source)
        for name in moved:
            del self.files[source + name]
        assert posixpath.dirname(target) in self.files, f"{target} has no folder"
        assert target not in self.files
        self.files |= {target + name: content for name, content in moved.items()}

    # --- commands ------------------------------------------------------------------------------------------------

    def run(self, argv: Sequence[str], limits: StreamLimits, *, stdin: bytes = b"") -> CommandResult:
        """Implement :class:`~etcdkeep.ports.CommandRunner`."""
        del limits
        self.count += 1
        fault = self.fault if self.fault and self.count >= self.fault.at else None
        if fault and fault.before:
            self._strike(fault)
        output = self._command(list(argv), stdin)
        self.live()
        self.watch(self)
        if fault and not fault.before:
            self._strike(fault)
        return CommandResult(output.encode())

    def stream(self, argv: Sequence[str], limits: StreamLimits) -> Iterator[bytes]:
        """Not used by a restore."""
        yield self.run(argv, limits).stdout

    def _strike(self, fault: Fault) -> None:
        if fault.kind not in ("fail", "timeout"):
            self.fault = None
        if fault.kind == "kill":
            raise Killed
        if fault.kind == "reboot":
            self.reboot()
        if fault.kind == "killed":
            raise CommandFailed("killed with its container", exit_code=137)
        if fault.kind == "fail":
            raise CommandFailed("it does not work", exit_code=1)
        if fault.kind == "timeout":
            raise StreamStalled("the deadline passed")
        raise Unreachable("the connection was cut")

    def _command(self, argv: list[str], stdin: bytes) -> str:
        if argv[:2] == ["sudo", "-n"]:
            argv = argv[2:]
        name, *args = argv
        method = getattr(self, f"_{name.replace('-', '_')}", None)
        assert method is not None, f"the machine knows no {argv}"
        return str(method(args, stdin) or "")

    def _test(self, args: list[str], stdin: bytes) -> None:
        del stdin
        words = iter(" ".join(args).split(" -o "))
        if not any(all(self._term(term.split()) for term in each.split(" -a ")) for each in words):
            raise CommandFailed("test", exit_code=1)

    def _term(self, words: list[str]) -> bool:
        negated = words[0] == "!"
        flag, path = words[-2:]
        content = self.files.get(path) or ""
        found = {"-e": self.exists(path), "-L": content.startswith(LINK), "-d": path in self.files and not content}[
            flag
        ]
        return found != negated

    def _mv(self, args: list[str], stdin: bytes) -> None:
        del stdin
        assert args[:2] == ["-T", "--backup=numbered"], args
        source, target = args[2:]
        for live in (f"{self.data_dir}/member", "/etc/kubernetes/pki"):
            assert live not in (source, target) or not self.in_use(), f"{live} is renamed under a running control plane"
        if source not in self.files:
            raise CommandFailed(f"mv: cannot stat {source}", exit_code=1)
        if target in self.files:
            number = next(n for n in range(1, 99) if f"{target}.~{n}~" not in self.files)
            self.rename(target, f"{target}.~{number}~")
        self.rename(source, target)

    def _mkdir(self, args: list[str], stdin: bytes) -> None:
        del stdin
        for path in args[args.index("-m") + 2 :] if "-m" in args else args[1:]:
            if path in self.files and "-p" not in args:
                raise CommandFailed(f"mkdir: {path}: File exists", exit_code=1)
            if path not in self.files:
                self.put(path)

    def _install(self, args: list[str], stdin: bytes) -> None:
        del stdin
        if args[-1] not in self.files:
            self.put(args[-1])

    def _claim(self, target: str, link: str, words: str) -> None:
        if link in self.files:
            raise CommandFailed(f"locked by {(self.files[link] or '')[1:]}. {words}", exit_code=1)
        self.put(link, LINK + target)

    def _readlink(self, args: list[str], stdin: bytes) -> str:
        del stdin
        content = self.files.get(args[-1]) or ""
        if not content.startswith(LINK):
            raise CommandFailed("readlink", exit_code=1)
        return content[1:] + "\n"

    def _cat(self, args: list[str], stdin: bytes) -> str:
        del stdin
        if not self.files.get(args[0]):
            raise CommandFailed(f"cat: {args[0]}: No such file or directory", exit_code=1)
        return self.files[args[0]] or ""

    def _ls(self, args: list[str], stdin: bytes) -> str:
        del stdin
        if args[-1] not in self.files:
            raise CommandFailed("ls", exit_code=1)
        return "\n".join(posixpath.basename(path) for path in sorted(self.children(args[-1])))

    def _sha256sum(self, args: list[str], stdin: bytes) -> str:
        del stdin
        if args[0] not in self.files:
            raise CommandFailed("sha256sum", exit_code=1)
        return f"{hashlib.sha256((self.files[args[0]] or '').encode()).hexdigest()}  {args[0]}\n"

    def _sh(self, args: list[str], stdin: bytes) -> str:
        script = args[1]
        if "dd of=" in script:
            path, block = args[4], int(args[5])
            before = self.files.get(path) or "" if block else ""
            self.put(path, before[: block * 2**20] + stdin.decode())
        elif "question" in script:
            for question in args[3:]:
                argv, muted, _ = question.partition(" >/dev/null")
                if self._command(shlex.split(argv), b"") and not muted:
                    raise CommandFailed("that said something", exit_code=1)
        elif "ln -s -n" in script:
            self._claim(*args[3:])
        elif script.startswith("chown"):
            self._chown(args, b"")
        elif "exec" in script:
            return self._env(args[5:], b"")
        elif "/cmdline" in script or "stat -c %u:%g" in script:
            return ""
        elif "mv " in script:
            self._move(script)
        elif "crictl stop" in script:
            self.running = set()
            self.live()
        elif "crictl pods" in script:
            return "\n".join(self.running)
        elif "crictl logs" in script:
            return "mkdir /var/lib/etcd/member/snap: permission denied" if self.denied else ""
        else:
            raise AssertionError(f"the machine knows no script {script!r}")
        return ""

    def _move(self, script: str) -> None:
        """What :func:`etcdkeep.restore.actions.move_argv` says: renames, of which the last is the move."""
        words = shlex.shlex(script, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        commands = [list(group) for is_word, group in groupby(words, lambda word: word[0] not in ";&|") if is_word]
        *away, (source, target) = [command[-2:] for command in commands if {"mv", "sh"} & set(command)]
        if source in self.files:
            for taken, displaced in away:
                if taken in self.files:
                    self._mv(["-T", "--backup=numbered", taken, displaced], b"")
            self._mv(["-T", "--backup=numbered", source, target], b"")
        elif target not in self.files:
            raise CommandFailed("nothing to move", exit_code=NOTHING_THERE)

    def _crictl(self, args: list[str], stdin: bytes) -> str:
        del stdin
        assert args[0] == "ps"
        return "\n".join(sorted(name for name in self.running if re.search(args[args.index("--name") + 1], name)))

    def _systemctl(self, args: list[str], stdin: bytes) -> None:
        del stdin
        if args[0] == "is-active":
            if not self.kubelet:
                raise CommandFailed("inactive", exit_code=3)
        else:
            self.kubelet = args[0] == "start"

    def _env(self, args: list[str], stdin: bytes) -> str:
        del stdin
        program, _, verb, path, *flags = args[1:]
        assert program == "etcdutl"
        if path not in self.files:
            raise CommandFailed(f"etcdutl: {path}: no such file or directory", exit_code=1)
        if verb == "status":
            return json.dumps({"revision": int(str(self.files[path]).split("@")[1])})
        target = next(flag for flag in flags if flag.startswith("--data-dir=")).partition("=")[2]
        bump = sum(int(flag.partition("=")[2]) for flag in flags if flag.startswith("--bump-revision="))
        if target in self.files:
            raise CommandFailed(f"data-dir {target} exists", exit_code=1)
        name, revision = str(self.files[path]).split("@")
        self.put(f"{target}/member/wal")
        self.put(f"{target}/member/snap/db", f"{name}@{int(revision) + bump}")
        return ""

    def _cp(self, args: list[str], stdin: bytes) -> None:
        del stdin
        assert args[:2] == ["-a", "-T"], args
        source, target = args[2:]
        for name, content in self.tree(source).items():
            self.files[target + name] = content

    def _tar(self, args: list[str], stdin: bytes) -> None:
        del stdin
        folder, archive = args[args.index("--directory") + 1], args[args.index("--file") + 1]
        for name, content in json.loads(self.files[archive] or "").items():
            self.put(posixpath.join(folder, name), content)

    def _stat(self, args: list[str], stdin: bytes) -> str:
        del stdin
        if args[-1] not in self.files:
            raise CommandFailed("stat", exit_code=1)
        label = "system_u:object_r:etcd_t:s0"
        return {"%u:%g": "2001:2001", "%a": "700", "%u:%g %a": "2001:2001 700", "%C": label}[args[1]] + "\n"

    def _chown(self, args: list[str], stdin: bytes) -> None:
        del stdin
        if args[-1] == f"{self.data_dir}/member":
            self.denied = False

    def _chmod(self, args: list[str], stdin: bytes) -> None:
        del args, stdin

    _chcon = _chmod

    def _curl(self, args: list[str], stdin: bytes) -> str:
        del stdin
        wanted = "kube-apiserver" if args[-1].endswith("/readyz") else "etcd"
        if wanted not in self.running or (wanted == "etcd" and self.denied):
            raise CommandFailed("curl: (7) connection refused", exit_code=7)
        return "ok" if wanted == "kube-apiserver" else '{"health":"true"}'
