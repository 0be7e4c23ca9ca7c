"""
The record of one recovery in the repository: what was planned, who approved it, what became of each object.

Plan, manifests and report are sealed like a backup, since they hold Secrets; approvals stand in the clear.
"""

from __future__ import annotations

import hashlib
from io import BytesIO
from typing import TYPE_CHECKING

from etcdkeep.errors import IdentityMismatch, NotFound, PlanChanged, SealError
from etcdkeep.recover.plan import WRITING, parse_plan
from etcdkeep.recover.show import manifests_yaml, render_whole
from etcdkeep.repository import write
from etcdkeep.seal import seal, unseal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etcdkeep.age_keys import Identity
    from etcdkeep.approval import Answer
    from etcdkeep.ports import ObjectStore
    from etcdkeep.recover.applying import Report
    from etcdkeep.recover.plan import Plan

DIGITS = 16
_MAX_BYTES = 2**30


class RecoveryRecord:
    """
    One recovery's folder in the repository.

    :param recovery: Its id, made of the run: the same in every try.
    :param recipients: Whom to seal to.
    """

    def __init__(self, store: ObjectStore, cluster: str, recovery: str, recipients: Sequence[str]) -> None:
        self.folder = f"{cluster}/recoveries/{recovery}/"
        self._store = store
        self._recipients = recipients

    def keep_plan(self, plan: Plan, identities: Sequence[Identity]) -> str:
        """Store a plan, its manifests as YAML and all of it to read, and return the plan's digest."""
        writes = ((each.manifest, each.dropped) for each in plan.objects if each.action in WRITING)
        yaml = "".join(manifests_yaml(writes, f"{plan.cluster}/{plan.backup_id}"))
        for name, data in (
            (self._plan_name(plan.digest), plan.to_bytes()),
            (self.manifests_name(plan.digest), yaml.encode(errors="replace")),
            (self.page_name(plan.digest), render_whole(plan).encode(errors="replace")),
        ):
            self._keep(name, data, identities)
        return plan.digest

    def plan(self, digest: str, identities: Sequence[Identity]) -> Plan:
        """
        Return the plan that was approved.

        :raises PlanChanged: when the stored one is another, or gone.
        """
        try:
            return parse_plan(self._read(self._plan_name(digest), identities), digest)
        except NotFound as err:
            raise PlanChanged(
                f"the approved plan {digest[:DIGITS]}… is not stored; nothing was applied. Start a new run."
            ) from err

    def keep_report(self, report: Report, identities: Sequence[Identity]) -> str:
        """Store a report and return its name; a later try that comes to the same finds it there."""
        data = report.to_bytes()
        name = f"{self.folder}report-{hashlib.sha256(data).hexdigest()[:DIGITS]}.json.zst.age"
        self._keep(name, data, identities)
        return name

    def keep_answer(self, answer: Answer) -> None:
        """Put on record who answered what."""
        name = f"{self.folder}approvals/{answer.at:%Y%m%dT%H%M%S.%fZ}-{answer.gate}.json"
        write(self._store, name, answer.model_dump_json(indent=2).encode() + b"\n")

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
