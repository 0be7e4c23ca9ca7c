"""
The break-glass command line.

Exit codes: 0 done and good; 1 failed for a reason of its own; 2 wrong usage, configuration or unreadable file;
3 damaged or forged: a snapshot, a stored object, a signature, a set that does not verify; 4 a private key is missing or
does not fit, so the answer is not known; 5 passing trouble: try again.
"""

from __future__ import annotations

import importlib
import logging
import sys
from typing import Any

import click

from etcdkeep import errors

COMMANDS = {
    "config": "etcdkeep.cli.configuration:config",
    "drill": "etcdkeep.cli.drill:drill",
    "keygen": "etcdkeep.cli.keys:keygen",
    "kubeconfig": "etcdkeep.cli.kubeconfig:kubeconfig",
    "list": "etcdkeep.cli.sets:list_sets",
    "objects": "etcdkeep.cli.objects:objects",
    "restore-leftovers": "etcdkeep.cli.restore:restore_leftovers",
    "runbook": "etcdkeep.cli.restore:runbook",
    "show": "etcdkeep.cli.sets:show",
    "status": "etcdkeep.cli.status:status",
    "trust": "etcdkeep.cli.keys:trust",
    "unseal": "etcdkeep.cli.sets:unseal",
    "verify": "etcdkeep.cli.sets:verify",
}

EXIT_CODES: tuple[tuple[tuple[type[errors.EtcdkeepError], ...], int], ...] = (
    ((errors.ConfigError, errors.SnapshotUnreadable), 2),
    (
        (
            errors.SnapshotDamaged,
            errors.ValueDamaged,
            errors.SealError,
            errors.ObjectDamaged,
            errors.SignatureInvalid,
            errors.VerificationFailed,
        ),
        3,
    ),
    ((errors.SecretUnavailable, errors.IdentityMismatch), 4),
    ((errors.TransientError,), 5),
)


class _Commands(click.Group):
    """Imports a command's module only when it is used, so that `status` does not wait for cloud clients."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes and examples: docs/command-line.md.",
)
@click.option("-v", "--verbose", is_flag=True, help="Say what is done outside, one line each.")
@click.version_option(package_name=None, version=importlib.import_module("etcdkeep").__version__, prog_name="etcdkeep")
def cli(verbose: bool) -> None:
    """Backups of Kubernetes control planes that have been verified: list, check and open them on any machine."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s", stream=sys.stderr)
    if not verbose:  # an API that is down is told once, by the command
        logging.getLogger("urllib3").setLevel(logging.ERROR)


def printable(text: str) -> str:
    """Return text that a terminal shows and does not obey."""
    return text if text.isprintable() else text.encode("unicode_escape", "backslashreplace").decode()


def exit_code(err: errors.EtcdkeepError) -> int:
    """Return the documented exit code of an error."""
    return next((code for kinds, code in EXIT_CODES if isinstance(err, kinds)), 1)


def main(args: list[str] | None = None) -> Any:
    """Run the command line; our own errors end it with their message and exit code, never with a traceback."""
    try:
        cli.main(args=args, prog_name="python -m etcdkeep", standalone_mode=True)
    except errors.EtcdkeepError as err:
        click.echo("\n".join(map(printable, f"error: {err}".split("\n"))), err=True)
        sys.exit(exit_code(err))
    except OSError as err:
        click.echo(f"error: {err}", err=True)
        sys.exit(1)
