"""
The one tree of errors that etcdkeep raises.

Two branches decide what a caller may do: the same inputs fail again (:class:`PermanentError`), or a later
attempt may succeed (:class:`TransientError`). Adapters translate their client's exceptions into these, always
``raise … from err``. A message names what failed, on which object, observed against expected, and the next step.
"""

from __future__ import annotations

from etcdkeep.plain_text import lines, one_line


class EtcdkeepError(Exception):
    """Anything etcdkeep says went wrong. Messages name things of clusters and stored documents; they obey no terminal."""

    def __str__(self) -> str:
        return lines(super().__str__())


class PermanentError(EtcdkeepError):
    """The same inputs give the same failure: a person has to change something."""


class TransientError(EtcdkeepError):
    """A node, a network or a store misbehaved: the same call may succeed later."""


class _Problems(PermanentError):
    """One that has several reasons: each is a line of its message."""

    def __init__(self, message: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__("\n".join((message, *(f"  {one_line(problem)}" for problem in problems))))
        self.problems = problems


# --- configuration ---------------------------------------------------------------------------------------------


class ConfigError(PermanentError):
    """
    The configuration file cannot be used.

    :param problems: Every problem found, each ``path: what is wrong``.
    """

    def __init__(self, message: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__("\n".join((message, *(f"  {problem}" for problem in problems))))
        self.problems = problems


class SecretUnavailable(PermanentError):
    """A key that the configuration refers to cannot be read here."""


# --- cluster and node ------------------------------------------------------------------------------------------


class AccessDenied(PermanentError):
    """The API server or the node refused our credentials or permissions (401, 403, wrong SSH key, sudo)."""


class NotFound(PermanentError):
    """A pod, node, Secret, file or stored object that should be there is not."""


class SetNameInvalid(NotFound):
    """What was given as a backup's name or id does not have that form, so there can be no such backup."""


class ServerUntrusted(PermanentError):
    """
    The other side is not who it should be: its certificate is expired, of another authority or for another name, or a host
    shows another key than the configured one.
    """


class MembersUnfit(TransientError):
    """No member of the cluster can give a snapshot now."""


class CommandFailed(PermanentError):
    """
    A command in a pod or on a node ended with a code other than 0.

    :param exit_code: The command's own exit code.
    :param stderr_tail: The last characters of its standard error.
    """

    def __init__(self, message: str, *, exit_code: int, stderr_tail: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.stderr_tail = stderr_tail


class OutputUnexpected(CommandFailed):
    """
    A command ended with 0 and printed something else than it should: warnings, a greeting, an error as text.

    :param said: What it printed, shortened.
    """

    def __init__(self, message: str, *, said: str = "") -> None:
        super().__init__(message, exit_code=0, stderr_tail=said)
        self.said = said


class CommandMissing(PermanentError):
    """The image or node has no such program (a distroless image, a node without the tool)."""


class Unreachable(TransientError):
    """No connection, or the connection could not be set up (refused, timed out, jump host down, API 5xx)."""


class StreamCut(TransientError):
    """A stream ended before its exit status or its announced length."""


class StreamStalled(TransientError):
    """No byte for longer than the stall limit, or the hard deadline passed."""


class HostKeyUnknown(PermanentError):
    """
    The host's key is not in the configuration.

    :param line: The exact line to add to the configuration.
    """

    def __init__(self, message: str, *, line: str, fingerprint: str) -> None:
        super().__init__(message)
        self.line = line
        self.fingerprint = fingerprint


class NoAnswer(TransientError):
    """A node, pod or API did not answer for as long as a restore waits (``limits.unreachable_s``)."""


class NoSpace(PermanentError):
    """A file system in the pod, on the node or under the spool has too little room."""


class ArchiveRefused(PermanentError):
    """A tar archive is damaged, too large, or holds what it must not: links or names that leave it, devices."""


# --- snapshot, sealing, repository -----------------------------------------------------------------------------


class SnapshotUnreadable(PermanentError):
    """The file cannot be opened or is no etcd snapshot at all."""


class SnapshotDamaged(PermanentError):
    """The bytes of a snapshot are not what etcd wrote."""


class ValueDamaged(PermanentError):
    """One value in a snapshot is not what an API server stores; the other values can still be read."""


class ValueEncrypted(ValueDamaged):
    """A value of a snapshot is encrypted, and its key is not at hand."""


class SealError(PermanentError):
    """Sealed bytes cannot be opened: altered, truncated, or not made by age and zstd."""


class IdentityMismatch(PermanentError):
    """None of the given age identities can open the artifact."""


class ObjectExists(PermanentError):
    """A create-only write met an object that is already there."""


class ObjectDamaged(PermanentError):
    """A stored object's bytes differ from the recorded length or checksum."""


class UnsafeName(PermanentError):
    """An object name that would leave the repository, or that no store of ours takes."""


class StoreUnavailable(TransientError):
    """The object store or directory did not answer or answered 429/5xx."""


class SignatureInvalid(PermanentError):
    """The manifest is not signed by a trusted key, or was altered after signing."""


class RecordRefused(PermanentError):
    """
    A signed record counts as nothing.

    :param word: ``unsigned``, ``foreign`` (altered, or by a key that is not trusted for this), ``moved`` (of something else),
        ``future`` or ``unreadable``.
    """

    def __init__(self, message: str, *, word: str) -> None:
        super().__init__(message)
        self.word = word


class VerificationFailed(_Problems):
    """
    A backup set is not good.

    :param problems: What is wrong, one sentence each.
    """


class DrillImpossible(PermanentError):
    """A drill could not be carried out on this machine; that says nothing of the backup set."""


# --- restore ---------------------------------------------------------------------------------------------------


class NotApproved(PermanentError):
    """Nobody who may do so approved what is to be done, or what is to be done is not what was approved."""


class RequestRefused(_Problems):
    """
    A restore, recovery or prune cannot be done as asked for; nothing was changed.

    :param problems: Every reason, one sentence each.
    """


class NeedsAttention(_Problems):
    """
    The work ended, and a person has to act: a backup that cannot be restored, backups that are too old, objects not recovered.

    :param problems: What, one sentence each.
    """


class StepFailed(PermanentError):
    """
    A step of a restore did not reach its end state.

    :param step: Its name in the plan.
    """

    def __init__(self, message: str, *, step: str) -> None:
        super().__init__(message)
        self.step = step


class RollbackIncomplete(PermanentError):
    """
    A restore could not be rolled back completely.

    :param remaining: The script that undoes the steps that remain, line by line; empty when nothing is known to remain.
    """

    def __init__(self, message: str, *, remaining: tuple[str, ...]) -> None:
        super().__init__("\n".join((message, *(f"  {line}" for line in remaining))))
        self.message = message
        self.remaining = remaining


# --- recovery of single objects ----------------------------------------------------------------------------------


class NotServed(NotFound):
    """The cluster's API has no such kind."""


class ObjectRefused(PermanentError):
    """
    The API server does not take an object.

    :param by_admission: Denied by a policy, quota or webhook, which look at more than the object; else it is invalid.
    :param fields: What is wrong with it: ``spec.ports[0].nodePort``.
    """

    def __init__(self, message: str, *, by_admission: bool = False, fields: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.by_admission = by_admission
        self.fields = fields


class FieldsOwned(PermanentError):
    """
    Applying would change fields that others have set.

    :param managers: Who has set them.
    :param fields: Which they are: ``.spec.replicas``.
    """

    def __init__(self, message: str, *, managers: tuple[str, ...], fields: tuple[str, ...]) -> None:
        super().__init__(message)
        self.managers = managers
        self.fields = fields


class LiveChanged(PermanentError):
    """A live object is no longer the one that was looked at: changed, deleted or made anew."""
