"""
Carrying out an approved plan, one object after the other, and telling of each what became of it.

Nothing is remembered between tries: what an earlier try did shows in the live objects themselves, so that a killed
worker's successor goes on behind it and ends in the same report. Nothing is ever deleted.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from etcdkeep.documents import Document
from etcdkeep.errors import AccessDenied, FieldsOwned, LiveChanged, NotFound, NotServed, ObjectRefused
from etcdkeep.objects.decoding import exact_json
from etcdkeep.recover.draft import label
from etcdkeep.recover.gather import DEFINITIONS
from etcdkeep.recover.live import get_if_there, refusal, with_owners
from etcdkeep.recover.plan import WRITING, Planned, RecoveryPlan, state_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from etcdkeep.ports import KubeApi

log = logging.getLogger(__name__)
Outcome = Literal["created", "overwritten", "unchanged", "left", "skipped", "refused"]
MANAGER = "etcdkeep"
ESTABLISHED_WITHIN_S = 60.0
_LOOK_EVERY_S = 1.0
_WITHOUT_WRITING: dict[str, Outcome] = {
    "leave": "left",
    "unchanged": "unchanged",
    "skip": "skipped",
    "refuse": "refused",
}


class Applied(Document):
    """What became of one object; `why` says it where that is not plain."""

    outcome: Outcome
    kind: str
    namespace: str
    name: str
    why: str = ""

    @property
    def label(self) -> str:
        """``Deployment shop/web``."""
        return label(self.kind, self.namespace, self.name)


class RecoveryReport(Document):
    """What became of every object of a plan."""

    schema_version: Literal[1] = 1
    cluster: str
    backup_id: str
    recovery_id: str
    plan_digest: str
    objects: tuple[Applied, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many objects there are by outcome."""
        return dict(Counter(each.outcome for each in self.objects))

    def failures(self, plan: RecoveryPlan) -> tuple[str, ...]:
        """Return what was to be applied and was refused, a sentence each."""
        ends = zip(plan.objects, self.objects, strict=True)
        return tuple(
            f"{applied.label}: {applied.why}"
            for planned, applied in ends
            if planned.action in WRITING and applied.outcome == "refused"
        )

    def to_bytes(self) -> bytes:
        """Return the bytes that are stored."""
        return self.model_dump_json(indent=1).encode() + b"\n"


def apply_plan(api: KubeApi, plan: RecoveryPlan, *, pause: Callable[[float], None] = time.sleep) -> RecoveryReport:
    """
    Apply what a plan makes or overwrites; an object that is not as it was when the plan was made is refused.

    What the API server refuses is reported, and the others go on.

    :raises TransientError: when the API cannot be reached; a later call goes on.
    """
    applying = _Applying(api, plan, pause)
    objects = []
    for each in plan.objects:
        applied = applying.one(each)
        level = logging.DEBUG if applied.outcome == "skipped" else logging.INFO
        log.log(level, "%-11s %s%s", applied.outcome, applied.label, f": {applied.why}" if applied.why else "")
        objects.append(applied)
    return RecoveryReport(
        cluster=plan.cluster,
        backup_id=plan.backup_id,
        recovery_id=plan.recovery_id,
        plan_digest=plan.digest,
        objects=tuple(objects),
    )


class _Applying:
    def __init__(self, api: KubeApi, plan: RecoveryPlan, pause: Callable[[float], None]) -> None:
        self._api = api
        self._pause = pause
        self._owners = {each.uid: each.path for each in plan.objects if each.uid and each.manifest}
        self._new_kinds = {
            (manifest["spec"]["group"], manifest["spec"]["names"]["kind"])
            for manifest in (
                exact_json.loads(each.manifest) for each in plan.objects if f"/{DEFINITIONS}/" in each.path
            )
        }

    def one(self, each: Planned) -> Applied:
        """Return what became of one object."""
        outcome, why = _WITHOUT_WRITING.get(each.action, "refused"), each.why
        if each.action in WRITING:
            try:
                manifest = with_owners(exact_json.loads(each.manifest), self._owners, self._get, _no_owner)
                outcome, why = (
                    self._create(each, manifest) if each.action == "create" else self._overwrite(each, manifest)
                )
            except (AccessDenied, FieldsOwned, LiveChanged, NotFound, ObjectRefused) as err:
                outcome, why = "refused", refusal(each.kind, err)
        return Applied(outcome=outcome, kind=each.kind, namespace=each.namespace, name=each.name, why=why)

    def _create(self, each: Planned, manifest: dict[str, Any], *, again: bool = True) -> tuple[Outcome, str]:
        live = self._get(each.path)
        if live is None or _made_with_its_namespace(each):
            try:
                self._apply_when_served(each, manifest)
            except LiveChanged:
                if not again:
                    raise
                return self._create(each, manifest, again=False)  # made by somebody in that very moment: look at it
            return "created", ""
        is_ours = _is_applied_by_us(live)
        try:
            result = self._api.apply(each.path, manifest, dry_run=True)
        except FieldsOwned as err:
            if is_ours:
                return "created", "and has been changed since"
            raise LiveChanged(f"it was created after the plan, and differs ({', '.join(err.fields)}).") from err
        if state_digest(result) != state_digest(live):
            raise LiveChanged("it was created after the plan, and differs.")
        return ("created", "") if is_ours else ("unchanged", "it was created after the plan, and is the same")

    def _overwrite(self, each: Planned, manifest: dict[str, Any]) -> tuple[Outcome, str]:
        live = self._get(each.path)
        if live is None or live["metadata"]["uid"] != each.live_uid:
            raise LiveChanged("it was deleted after the plan was made. Start a new run.")
        state = state_digest(live)
        if state == each.result_digest:
            return "overwritten", ""
        if state != each.live_digest:
            raise LiveChanged("it was changed after the plan was made. Start a new run to see how it differs now.")
        precondition = {name: live["metadata"][name] for name in ("uid", "resourceVersion")}
        metadata = {**manifest["metadata"], **precondition}
        self._api.apply(each.path, {**manifest, "metadata": metadata}, force=True)
        return "overwritten", ""

    def _apply_when_served(self, each: Planned, manifest: dict[str, Any]) -> None:
        """Apply an object; for a kind that this plan itself defines, wait until the API server serves it."""
        group = each.api_version.rpartition("/")[0]
        waited_s = 0.0
        while True:
            try:
                self._api.apply(each.path, manifest)
                break
            except NotServed:
                if (group, each.kind) not in self._new_kinds or waited_s >= ESTABLISHED_WITHIN_S:
                    raise
                self._pause(_LOOK_EVERY_S)
                waited_s += _LOOK_EVERY_S
        if f"/{DEFINITIONS}/" in each.path:
            self._wait_until_established(each)

    def _wait_until_established(self, each: Planned) -> None:
        waited_s = 0.0
        while not _is_established(self._get(each.path) or {}):
            if waited_s >= ESTABLISHED_WITHIN_S:
                raise ObjectRefused(
                    f"the API server does not serve its kind within {ESTABLISHED_WITHIN_S:.0f} s; "
                    f"see `kubectl get crd {each.name} -o yaml`."
                )
            self._pause(_LOOK_EVERY_S)
            waited_s += _LOOK_EVERY_S

    def _get(self, path: str) -> dict[str, Any] | None:
        return get_if_there(self._api, path)


def _no_owner(reference: Mapping[str, Any]) -> None:
    """An object whose owner is not there would be deleted with it by the garbage collector."""
    raise ObjectRefused(f"its owner {reference.get('kind')} {reference.get('name')} does not exist.")


def _is_applied_by_us(live: Mapping[str, Any]) -> bool:
    """Whether an object that was not there when the plan was made is the work of an earlier try."""
    entries = live["metadata"].get("managedFields") or ()
    return any((entry.get("manager"), entry.get("operation")) == (MANAGER, "Apply") for entry in entries)


def _made_with_its_namespace(each: Planned) -> bool:
    """Whether the cluster may have made an empty one meanwhile, which ours only adds to."""
    return (each.kind, each.name) == ("ServiceAccount", "default")


def _is_established(definition: Mapping[str, Any]) -> bool:
    conditions = (definition.get("status") or {}).get("conditions") or ()
    return any((each.get("type"), each.get("status")) == ("Established", "True") for each in conditions)
