"""
The record of one recovery in the repository: what was proposed, who approved it, what became of each object.

::

    <cluster>/recoveries/<recovery>/proposals/<time>.json   signed; names the plan by its digest
                                    plan-<digest>.json.zst.age, manifests-<digest>.yaml.zst.age, plan-<digest>.md.zst.age
                                    asked/, approvals/      signed
                                    reports/<time>.json     signed; names report-<digest>.json.zst.age

Plan, manifests and report are sealed like a backup, since they hold Secrets; what is signed names them by their digests.
"""

from __future__ import annotations

import hashlib
from io import BytesIO
from typing import TYPE_CHECKING

from etcdkeep.approval.answers import Proposal
from etcdkeep.approval.gates import Gates
from etcdkeep.documents import Document
from etcdkeep.errors import IdentityMismatch, NotApproved, NotFound, RequestRefused, SealError
from etcdkeep.records import Kind
from etcdkeep.recover.approval_page import manifests_yaml, render_whole
from etcdkeep.recover.plan import WRITING, parse_plan
from etcdkeep.sealing.seal import seal, unseal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etcdkeep.records import Records, Signed
    from etcdkeep.recover.applying import RecoveryReport
    from etcdkeep.recover.plan import RecoveryPlan
    from etcdkeep.sealing.age_keys import Identity

DIGITS = 16
GATES = ("approve",)
_MAX_BYTES = 2**30


class RecoveryProposal(Proposal):
    """What is proposed; the plan itself is sealed."""


class KeptReport(Document):
    """
    That a plan was applied, and how that ended.

    :param proposal: Digest of the record of the proposal.
    :param sha256: Of the sealed report's plaintext.
    :param counts: Objects by outcome.
    """

    proposal: str
    file: str
    sha256: str
    counts: dict[str, int]
    complete: bool


PROPOSAL = Kind("recovery-proposal", "restore", RecoveryProposal)
REPORT = Kind("recovery-report", "restore", KeptReport)


class RecoveryRecord:
    """
    One recovery's folder in the repository.

    :param recovery: Its id, made of the run: the same in every try.
    :param recipients: Whom to seal to.
    """

    def __init__(self, records: Records, cluster: str, recovery: str, recipients: Sequence[str]) -> None:
        self.folder = f"{cluster}/recoveries/{recovery}/"
        self.gates = Gates(records, self.folder, cluster, recovery)
        self._records = records
        self._store = records.store
        self._cluster = cluster
        self._recovery = recovery
        self._recipients = recipients

    def keep_plan(self, plan: RecoveryPlan, identities: Sequence[Identity]) -> None:
        """Store a plan, its manifests as YAML and all of it to read."""
        writes = ((each.manifest, each.dropped) for each in plan.objects if each.action in WRITING)
        yaml = "".join(manifests_yaml(writes, f"{plan.cluster}/{plan.backup_id}"))
        for name, data in (
            (self._plan_name(plan.digest), plan.to_bytes()),
            (self.manifests_name(plan.digest), yaml.encode(errors="replace")),
            (self.page_name(plan.digest), render_whole(plan).encode(errors="replace")),
        ):
            self._keep(name, data, identities)

    def propose(self, proposal: RecoveryProposal) -> Signed[RecoveryProposal]:
        """Sign and store what people are asked to approve. It takes the place of what was proposed before."""
        return self._records.append(PROPOSAL, f"{self.folder}proposals/", self._cluster, self._recovery, proposal)

    def proposal(self) -> Signed[RecoveryProposal]:
        """
        Return what was proposed last.

        :raises RequestRefused: when nothing was.
        """
        folder = f"{self.folder}proposals/"
        found = self._records.in_folder(PROPOSAL, folder, self._cluster, self._recovery)[0]
        if not found:
            raise RequestRefused(
                f"recovery {self._recovery!r} of cluster {self._cluster!r} has no signed plan. Nothing was applied. Clear the task `plan`."
            )
        return found[-1]

    def plan(self, digest: str, identities: Sequence[Identity]) -> RecoveryPlan:
        """
        Return the plan of a digest.

        :raises NotApproved: when the stored one is another, or gone.
        """
        try:
            return parse_plan(self._read(self._plan_name(digest), identities), digest)
        except (NotFound, SealError, IdentityMismatch) as err:
            raise NotApproved(
                f"the approved plan {digest[:DIGITS]}… is no longer stored. Nothing was applied. Start a new run."
            ) from err

    def keep_report(
        self,
        proposal: Signed[RecoveryProposal],
        report: RecoveryReport,
        identities: Sequence[Identity],
        *,
        complete: bool,
    ) -> str:
        """Store a report, and sign that this proposal was applied; return the sealed report's name."""
        data = report.to_bytes()
        digest = hashlib.sha256(data).hexdigest()
        name = f"{self.folder}report-{digest[:DIGITS]}.json.zst.age"
        self._keep(name, data, identities)
        body = KeptReport(proposal=proposal.digest, file=name, sha256=digest, counts=report.counts, complete=complete)
        self._records.append(REPORT, f"{self.folder}reports/", self._cluster, self._recovery, body)
        return name

    def applied(self, proposal: Signed[RecoveryProposal]) -> KeptReport | None:
        """Return how a proposal was applied, which spent its approval; None while it was not."""
        found = self._records.in_folder(REPORT, f"{self.folder}reports/", self._cluster, self._recovery)[0]
        return next((each.body for each in reversed(found) if each.body.proposal == proposal.digest), None)

    def page_name(self, digest: str) -> str:
        """Return the object that holds the plan to read, uncut."""
        return f"{self.folder}plan-{digest[:DIGITS]}.md.zst.age"

    def manifests_name(self, digest: str) -> str:
        """Return the object that holds the clean manifests."""
        return f"{self.folder}manifests-{digest[:DIGITS]}.yaml.zst.age"

    def _plan_name(self, digest: str) -> str:
        return f"{self.folder}plan-{digest[:DIGITS]}.json.zst.age"

    def _keep(self, name: str, data: bytes, identities: Sequence[Identity]) -> None:
        """Store sealed bytes; what is there already stays when it opens to the same, as an earlier try left it."""
        try:
            if self._store.stat(name) is not None and self._read(name, identities) == data:
                return
        except (SealError, IdentityMismatch):
            pass
        self._store.delete(name)
        with self._store.create(name) as sink:
            seal([data], sink, self._recipients)

    def _read(self, name: str, identities: Sequence[Identity]) -> bytes:
        plain = BytesIO()
        with self._store.open(name) as stored:
            unseal(stored, plain, identities, size_limit=_MAX_BYTES)
        return plain.getvalue()
