"""What the gates of one restore or recovery asked, and what people answered, in its folder of the repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcdkeep.approval.answers import (
    ANSWER,
    ASKED,
    Answer,
    Asked,
    Rules,
    check_approved,
    check_person,
    check_two_people,
)
from etcdkeep.errors import NotApproved
from etcdkeep.records import stamp

if TYPE_CHECKING:
    from datetime import datetime

    from etcdkeep.approval.answers import AnyProposal
    from etcdkeep.records import Records, Signed


class Gates:
    """
    The gates of one run.

    :param folder: Of the restore or recovery.
    :param subject: Its name.
    """

    def __init__(self, records: Records, folder: str, cluster: str, subject: str) -> None:
        self._records = records
        self._folder = folder
        self._cluster = cluster
        self._subject = subject

    def ask(self, gate: str, task_instance: str, proposal: Signed[AnyProposal]) -> Signed[Asked]:
        """
        Record that a gate asks for a proposal.

        :param task_instance: Airflow's id of this try: what Airflow shows is kept by it.
        :raises NotApproved: when Airflow still shows what this try of the gate asked before.
        """
        for earlier in self.asked():
            if earlier.body.task_instance == task_instance and earlier.body.proposal != proposal.digest:
                raise NotApproved(
                    f"gate {gate!r} shows a plan that is out of date. Nothing was done. Clear this gate to show the new plan."
                )
        body = Asked(gate=gate, task_instance=task_instance, proposal=proposal.digest)
        return self._records.append(ASKED, f"{self._folder}asked/", self._cluster, self._subject, body, f"-{gate}")

    def last_asked(self, gate: str, task_instance: str) -> Signed[Asked]:
        """
        Return what a try of a gate asked last.

        :raises NotApproved: when that is not on record, or the gate has asked again since.
        """
        last = next((each for each in reversed(self.asked()) if each.body.gate == gate), None)
        if last is None or last.body.task_instance != task_instance:
            raise NotApproved(
                f"gate {gate!r}: this answer is for a question that the gate has not asked, or has asked again since. Nothing was done. Clear "
                "it to ask again."
            )
        return last

    def keep(self, answer: Answer) -> Signed[Answer]:
        """Record who answered what, be it yes or no."""
        name = f"{self._folder}approvals/{stamp(answer.at)}-{answer.gate}.json"
        return self._records.write(ANSWER, name, self._cluster, self._subject, answer)

    def check_answer(self, answer: Answer, proposal: Signed[AnyProposal], rules: Rules) -> None:
        """
        Check an approval when it is given: this person may approve, and is not the one of a gate before.

        :raises NotApproved: when it does not count.
        """
        check_person(answer, proposal, rules)
        before = rules.gates[: rules.gates.index(answer.gate)]
        for approval in check_approved(proposal, self.asked(), self.answers(), Rules(before)):
            check_two_people(approval.body, answer)

    def check(
        self, proposal: Signed[AnyProposal], rules: Rules, *, now: datetime | None = None, ever: bool = False
    ) -> tuple[Signed[Answer], ...]:
        """Return the approvals of a proposal; see :func:`etcdkeep.approval.answers.check_approved`."""
        return check_approved(proposal, self.asked(), self.answers(), rules, now=now, ever=ever)

    def asked(self) -> list[Signed[Asked]]:
        """Return all that was asked, oldest first."""
        return self._records.in_folder(ASKED, f"{self._folder}asked/", self._cluster, self._subject)[0]

    def answers(self) -> list[Signed[Answer]]:
        """Return all that was answered, oldest first."""
        return self._records.in_folder(ANSWER, f"{self._folder}approvals/", self._cluster, self._subject)[0]
