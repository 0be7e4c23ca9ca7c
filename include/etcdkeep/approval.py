"""What people answered at an approval gate, and whether that allows what they were asked for."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from etcdkeep.errors import NotApproved
from etcdkeep.manifest import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

APPROVE = "Approve"


class Answer(Record):
    """
    One person's answer.

    :param gate: The task that asked.
    :param user_id: What tells one person from another.
    :param digest: Of what was shown: the answer is given for that and nothing else.
    """

    gate: str
    choice: str
    user_id: str
    user_name: str
    at: datetime
    digest: str

    @property
    def approved(self) -> bool:
        """Whether it is a yes."""
        return self.choice == APPROVE


def read_answer(gate: str, response: Mapping[str, Any], digest: str) -> Answer:
    """
    Return an answer as Airflow reports it.

    :param response: ``chosen_options``, ``responded_at``, ``responded_by_user``.
    :raises NotApproved: when it does not say who answered.
    """
    user = response.get("responded_by_user") or {}
    if not user.get("id"):
        raise NotApproved(
            f"gate {gate!r}: the answer does not say whose it is; nothing was done. Clear it to ask again."
        )
    return Answer(
        gate=gate,
        choice=response["chosen_options"][0],
        user_id=str(user["id"]),
        user_name=str(user.get("name") or user["id"]),
        at=response["responded_at"],
        digest=digest,
    )


def check_second(answer: Answer, first: Mapping[str, Any] | None) -> None:
    """
    Check that an approval is a second person's, for the very thing that the first one approved.

    :param first: The first gate's answer; None when that gate was passed without one.
    :raises NotApproved: when it is not.
    """
    gate = f"gate {answer.gate!r}"
    if first is None or not (before := Answer.model_validate(first)).approved:
        raise NotApproved(f"{gate}: nobody has approved before; nothing was done. Clear the first gate to ask again.")
    if before.user_id == answer.user_id:
        raise NotApproved(
            f"{gate}: {answer.user_name} has approved already at gate {before.gate!r}, and two different people have to; nothing "
            "was done. Clear this task, and let somebody else answer."
        )
    if before.digest != answer.digest:
        raise NotApproved(
            f"{gate}: {before.user_name} approved {before.digest[:16]}…, {answer.user_name} {answer.digest[:16]}…: what is asked for "
            "changed in between; nothing was done. Clear both gates to ask again."
        )
