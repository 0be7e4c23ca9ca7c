"""Runs a kubeconfig's exec plugin: within a deadline, without a terminal, and only when the configuration allows it."""

from __future__ import annotations

import logging
import os
import selectors
import shutil
import signal
import subprocess
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from etcdkeep.adapters.commands import Tail
from etcdkeep.errors import ConfigError, TransientError
from etcdkeep.kubeconfig.exec_credential import (
    Credential,
    check_variables,
    hide_secrets,
    parse_credential,
    plugin_environment,
    plugin_secrets,
)
from etcdkeep.kubeconfig.fields import KubeconfigProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etcdkeep.kubeconfig.reading import ExecPlugin

log = logging.getLogger(__name__)

MAX_OUTPUT_BYTES = 2**20
READ_BYTES = 64 * 1024


class _TooMuch(Exception):
    """A plugin prints more than any credential is long."""


def find_plugin(plugin: ExecPlugin, allowed: Sequence[str]) -> str:
    """
    Return the path of a plugin that may run.

    :param allowed: Programs by name (found on PATH) or by path.
    :raises ConfigError: when it may not, or is not installed.
    """
    found = shutil.which(plugin.command)
    hint = f" The kubeconfig says how to install it:\n{plugin.install_hint}" if plugin.install_hint else ""
    if found is None:
        raise ConfigError(
            f"exec plugin {plugin.command!r} of the kubeconfig is not on this machine, or not executable. Install it on this machine, or use other credentials.{hint}"
        )
    if not _is_allowed(plugin.command, found, allowed):
        raise ConfigError(
            f"exec plugin {plugin.command!r} of the kubeconfig is not allowed here. exec_plugins holds: "
            f"{', '.join(allowed) or 'nothing'}. If you trust the plugin and the author of this kubeconfig, add to the cluster's entry: kubeconfig: {{exec_plugins: [{plugin.command}], …}}.{hint}"
        )
    try:
        check_variables(plugin)
    except KubeconfigProblem as err:
        raise ConfigError(f"{err}.") from None
    return found


def _is_allowed(command: str, found: str, allowed: Sequence[str]) -> bool:
    paths = (command_path for entry in allowed if (command_path := shutil.which(entry)))
    return command in allowed or os.path.realpath(found) in map(os.path.realpath, paths)


def run_plugin(plugin: ExecPlugin, program: str, info: str, timeout_s: float) -> Credential:
    """
    Run a plugin and return its credentials, which stay in memory.

    Its standard input is empty and it has no terminal, so that it cannot wait for a person unnoticed.

    :param info: Its input, ``KUBERNETES_EXEC_INFO``.
    :raises TransientError: when it gives none in time; with its own last words.
    """
    log.debug("exec plugin %s", program)
    try:
        process = subprocess.Popen(
            [program, *plugin.args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=plugin_environment(plugin, os.environ, info),
            start_new_session=True,
        )
    except (OSError, ValueError) as err:
        reason = err.strerror if isinstance(err, OSError) else "its arguments are not usable"
        raise TransientError(_message(plugin, f"cannot be run: {reason}", "", b"")) from None
    output, words = bytearray(), Tail()
    try:
        code = _wait(process, output, words, timeout_s)
    except (TimeoutError, subprocess.TimeoutExpired):
        _kill(process)  # a program that it started may hold its output open
        text = f"did not end within {timeout_s:g} s and was stopped. Does it wait for a login? Log in for it, or use other credentials"
        raise TransientError(_message(plugin, text, words.text(), bytes(output))) from None
    except _TooMuch:
        text = f"printed more than {MAX_OUTPUT_BYTES} bytes, too many for a credential, and was stopped"
        raise TransientError(_message(plugin, text, words.text(), b"")) from None
    finally:
        _stop(process)
    if code:
        raise TransientError(_message(plugin, f"ended with exit code {code}", words.text(), bytes(output)))
    try:
        return parse_credential(plugin, bytes(output))
    except KubeconfigProblem as err:
        raise TransientError(_message(plugin, str(err), words.text(), bytes(output))) from None


def _wait(process: subprocess.Popen[bytes], output: bytearray, words: Tail, timeout_s: float) -> int:
    """Collect what a process prints until it ends, and return its exit code."""
    ends = monotonic() + timeout_s
    with selectors.DefaultSelector() as waiting:
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                waiting.register(stream, selectors.EVENT_READ)
        while waiting.get_map():
            if (left_s := ends - monotonic()) <= 0:
                raise TimeoutError
            for key, _ in waiting.select(left_s):
                data = os.read(key.fd, READ_BYTES)
                if not data:
                    waiting.unregister(key.fileobj)
                elif key.fileobj is process.stderr:
                    words.write(data)
                else:
                    output += data
            if len(output) > MAX_OUTPUT_BYTES:
                raise _TooMuch
    return process.wait(max(0.0, ends - monotonic()))


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a plugin that still runs, with all that it started."""
    if process.poll() is None:
        _kill(process)
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _message(plugin: ExecPlugin, what: str, words: str, output: bytes) -> str:
    said = hide_secrets(words, plugin_secrets(plugin, output)).strip()
    parts = [f"exec plugin {plugin.command!r} of the kubeconfig {what}."]
    parts += [f"Last output: {said}"] if said else []
    parts += [f"The kubeconfig says about it: {plugin.install_hint}"] if plugin.install_hint else []
    return "\n".join(parts)
