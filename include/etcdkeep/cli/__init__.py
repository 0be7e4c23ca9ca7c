"""
The break-glass command line.

Exit codes: 0 done and good; 1 failed for a reason of its own; 2 wrong usage, configuration or unreadable file;
3 damaged or forged: a snapshot, a stored object, a signature, a set that does not verify; 4 a private key is missing or
does not match, so the answer is unknown; 5 a temporary failure: retry.
"""

from __future__ import annotations

import importlib
import logging
import re
import sys
from typing import Any

import click

from etcdkeep import errors
from etcdkeep.adapters.core_dumps import forbid_core_dumps
from etcdkeep.say import PlainFormatter, say

COMMANDS = {
    "acceptance": "etcdkeep.cli.acceptance:acceptance",
    "check": "etcdkeep.cli.check:check",
    "config": "etcdkeep.cli.configuration:config",
    "drill": "etcdkeep.cli.drill:drill",
    "keygen": "etcdkeep.cli.keys:keygen",
    "kubeconfig": "etcdkeep.cli.kubeconfig:kubeconfig",
    "list": "etcdkeep.cli.listing:list_sets",
    "metrics": "etcdkeep.cli.metrics:metrics",
    "objects": "etcdkeep.cli.objects:objects",
    "pin": "etcdkeep.cli.pins:pin",
    "prune": "etcdkeep.cli.retention:prune",
    "replicate": "etcdkeep.cli.replicate:replicate",
    "restore-leftovers": "etcdkeep.cli.restore:restore_leftovers",
    "retention": "etcdkeep.cli.retention:retention",
    "runbook": "etcdkeep.cli.restore:runbook",
    "show": "etcdkeep.cli.sets:show",
    "status": "etcdkeep.cli.status:status",
    "trust": "etcdkeep.cli.keys:trust",
    "unpin": "etcdkeep.cli.pins:unpin",
    "unseal": "etcdkeep.cli.sets:unseal",
    "verify": "etcdkeep.cli.verify:verify",
}

LONGEST_SENTENCE = 300

EXIT_CODES: tuple[tuple[tuple[type[errors.EtcdkeepError], ...], int], ...] = (
    ((errors.SetNameInvalid, errors.ConfigError, errors.SnapshotUnreadable), 2),
    (
        (
            errors.SnapshotDamaged,
            errors.ValueDamaged,
            errors.SealError,
            errors.ObjectDamaged,
            errors.SignatureInvalid,
            errors.RecordRefused,
            errors.VerificationFailed,
        ),
        3,
    ),
    ((errors.SecretUnavailable, errors.IdentityMismatch), 4),
    ((errors.TransientError,), 5),
)


class Group(click.Group):
    """Lists its commands with the first sentence of each, whole: click cuts it at the width of the terminal."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, command.get_short_help_str(limit=LONGEST_SENTENCE))
                    for name, command in commands.items()
                    if command
                ]
            )


class _Commands(Group):
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
@click.option("-v", "--verbose", is_flag=True, help="Log each outside action in one line.")
@click.version_option(package_name=None, version=importlib.import_module("etcdkeep").__version__, prog_name="etcdkeep")
def cli(verbose: bool) -> None:
    """List, check and open backups of Kubernetes control planes, on any machine."""
    shown = logging.StreamHandler(sys.stderr)
    shown.setFormatter(PlainFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[shown])
    if not verbose:  # an API that is down is told once, by the command
        logging.getLogger("urllib3").setLevel(logging.ERROR)


def exit_code(err: errors.EtcdkeepError) -> int:
    """Return the documented exit code of an error."""
    return next((code for kinds, code in EXIT_CODES if isinstance(err, kinds)), 1)


def main(args: list[str] | None = None) -> Any:
    """Run the command line; our own errors end it with their message and exit code, never with a traceback."""
    forbid_core_dumps()
    try:
        cli.main(args=args, prog_name="python -m etcdkeep", standalone_mode=True)
    except (errors.EtcdkeepError, OSError) as err:
        # What a message continues with is indented, so that nothing in it can pass for a line of ours.
        say(re.sub(r"\n(?! )", "\n  ", f"error: {err}"), err=True)
        sys.exit(exit_code(err) if isinstance(err, errors.EtcdkeepError) else 1)
