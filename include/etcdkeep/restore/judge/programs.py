"""Whether crictl and curl of a node are good enough: why not, from how the probe of each ended."""

from __future__ import annotations

from etcdkeep.control_plane.sudo import command_words
from etcdkeep.errors import AccessDenied, CommandFailed, CommandMissing, OutputUnexpected

CRICTL_PURPOSE = "which is needed to stop containers"
CURL_PURPOSE = "which is needed to query etcd and the API server"

Failure = AccessDenied | CommandFailed | CommandMissing


def crictl_problem(err: Failure) -> str:
    """Return why a node's crictl cannot be used, and the next step."""
    if isinstance(err, CommandMissing):
        return f"the node has no crictl, {CRICTL_PURPOSE}. Install it, or set control_plane.crictl"
    if isinstance(err, OutputUnexpected):
        return (
            f"crictl printed unexpected output: {err.said!r}. Make it print no warnings to standard output "
            "(runtime-endpoint in /etc/crictl.yaml)"
        )
    return (
        f"cannot run crictl, {CRICTL_PURPOSE}: {why_it_failed(err)}. Run it on the node by hand, and correct /etc/crictl.yaml or "
        "control_plane.crictl"
    )


def curl_problem(err: Failure) -> str:
    """Return why a node's curl cannot be used, and the next step."""
    if isinstance(err, CommandMissing):
        return f"the node has no curl, {CURL_PURPOSE}. Install it"
    return f"cannot run curl, {CURL_PURPOSE}: {why_it_failed(err)}"


def why_it_failed(err: Failure) -> str:
    """Return why a command gave no answer, to follow a colon: its exit code and its own words."""
    if not isinstance(err, CommandFailed) or isinstance(err, OutputUnexpected):
        return " ".join(str(err).split())
    words = command_words(err.stderr_tail)
    return f"exit code {err.exit_code}, {words!r}" if words else f"exit code {err.exit_code}, no output"
