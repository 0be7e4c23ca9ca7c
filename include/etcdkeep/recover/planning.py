"""Making the plan: clean manifests in order, each compared with the live cluster by a server-side dry run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from etcdkeep.errors import (
    AccessDenied,
    FieldsOwned,
    LiveChanged,
    NotFound,
    NotServed,
    ObjectRefused,
    RequestRefused,
    TransientError,
    ValueDamaged,
)
from etcdkeep.objects.decoding import exact_json
from etcdkeep.objects.live_cluster import cluster_uid, served_kinds
from etcdkeep.recover.clean import check_draft, clean
from etcdkeep.recover.difference import only_in, shown_diff
from etcdkeep.recover.draft import Draft, collection_path, group_of
from etcdkeep.recover.gather import DEFINITIONS, Gathered
from etcdkeep.recover.kinds import drop_node_ports
from etcdkeep.recover.left_out import controller_of, why_left_out
from etcdkeep.recover.live import Live, refusal
from etcdkeep.recover.order import BUILT_IN_GROUPS, in_order
from etcdkeep.recover.plan import Action, Planned, RecoveryPlan, state_digest
from etcdkeep.recover.versions import served_by, use_served_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from etcdkeep.objects.source import Source
    from etcdkeep.ports import KubeApi

_STAND_IN = "default"
"""A namespace that is always there: where an object is tried whose own namespace is not."""
_REFUSED = (AccessDenied, FieldsOwned, LiveChanged, NotFound, ObjectRefused)


def plan_recovery(
    api: KubeApi,
    gathered: Gathered,
    *,
    cluster: str,
    backup_id: str,
    recovery_id: str,
    reason: str,
    meant: str,
    overwrite: bool,
    include_left_out: bool,
) -> RecoveryPlan:
    """
    Return what would happen to each object; nothing is changed in the cluster.

    :param meant: The selection, in words.
    :param overwrite: Whether live objects that differ are to be overwritten, once that was approved.
    :param include_left_out: Whether objects are wanted too that the cluster makes by itself or that have had their time.
    :raises TransientError: when a namespace is on its way out.
    """
    planned = _Planning(api, gathered, overwrite=overwrite, include_left_out=include_left_out).objects()
    return RecoveryPlan(
        cluster=cluster,
        backup_id=backup_id,
        recovery_id=recovery_id,
        reason=reason,
        meant=meant,
        overwrite=overwrite,
        cluster_uid=cluster_uid(api),
        objects=tuple(planned),
        unread=tuple(str(err) for err in gathered.failures),
    )


def check_same_cluster(api: KubeApi, source: Source) -> None:
    """
    Make sure that a backup is of the cluster that the API is of.

    :raises RequestRefused: when it is of another one.
    """
    try:
        uid = source.decode(source.find("namespace", "", "kube-system")).json["metadata"].get("uid")
    except NotFound:
        uid = None
    live = cluster_uid(api)
    if uid != live:
        raise RequestRefused(
            f"backup {source.name} belongs to another cluster: its namespace kube-system has the uid {uid}, the live one {live}. "
            "Check the cluster's kubeconfig; for a cluster that was set up again, export the YAML: "
            "python -m etcdkeep objects recover --to FOLDER."
        )


class _Planning:
    def __init__(self, api: KubeApi, gathered: Gathered, *, overwrite: bool, include_left_out: bool) -> None:
        self._api = api
        self._overwrite = overwrite
        self._include_left_out = include_left_out
        self._live = Live(api, served_kinds(api))
        self._every = gathered.drafts
        self._uids = {draft.uid for draft in self._every if draft.uid}
        self._drafts: list[Draft] = []

    def objects(self) -> list[Planned]:
        """Return the plan's objects: those that could be applied in their order, then the others."""
        others: list[Planned] = []
        for draft in self._every:
            if draft.needed_by and self._live.get(draft.path) is not None:
                continue
            why = "" if self._include_left_out else self._why_left_out(draft)
            if why:
                others.append(_planned(draft, "skip", why))
                continue
            try:
                use_served_version(draft, self._versions(draft), self._definition(draft))
            except NotServed as err:
                others.append(_planned(draft, "refuse", f"{err}."))
            else:
                self._drafts.append(draft)
        self._check_namespaces()
        surroundings = _LiveSurroundings(self._live, self._drafts)
        for draft in in_order(self._drafts):
            try:
                check_draft(draft)
                clean(draft, surroundings)
            except ValueDamaged as err:
                self._drafts.remove(draft)
                others.append(_planned(draft, "refuse", f"{err}."))
        self._drafts = in_order(self._drafts)
        owners = {draft.uid: draft.path for draft in self._drafts if draft.uid}
        return [*(self._judge(draft, owners) for draft in self._drafts), *others]

    def _why_left_out(self, draft: Draft) -> str:
        owner = controller_of(draft.manifest)
        if owner and (owner.get("uid") in self._uids or self._live.owner(owner, draft.namespace) is not None):
            return f"{owner['kind']} {owner['name']} makes it"
        return why_left_out(draft.manifest)

    def _versions(self, draft: Draft) -> tuple[str, ...]:
        versions = self._live.versions(draft)
        definition = None if versions else self._definition(draft)
        return served_by(definition) if definition else versions

    def _definition(self, draft: Draft) -> Mapping[str, Any] | None:
        """Return the definition of a custom kind: the live one, else the one that is recovered too."""
        group = group_of(draft.api_version)
        if group in BUILT_IN_GROUPS:
            return None
        name = f"{draft.plural}.{group}"
        path = f"{collection_path('apiextensions.k8s.io/v1', DEFINITIONS, '')}/{name}"
        recovered = (each.manifest for each in self._every if (each.plural, each.name) == (DEFINITIONS, name))
        return self._live.get(path) or next(recovered, None)

    def _check_namespaces(self) -> None:
        for name in sorted({draft.namespace for draft in self._drafts if draft.namespace}):
            live = self._live.namespace(name)
            if live is not None and live["metadata"].get("deletionTimestamp"):
                raise TransientError(
                    f"namespace {name} is being deleted: nothing can be created in it until it is gone. If it stays, look for finalizers that nothing removes: kubectl get namespace {name} -o yaml."
                )

    def _judge(self, draft: Draft, owners: Mapping[str, str]) -> Planned:
        try:
            live = self._live.get(draft.path)
            manifest = self._live.with_owners(draft.manifest, owners)
            if live is None:
                return self._create(draft, manifest)
            if live["metadata"].get("deletionTimestamp"):
                return _planned(draft, "refuse", "the live object is being deleted. Start a new run when it is gone.")
            return self._compare(draft, manifest, live)
        except _REFUSED as err:
            return _planned(draft, "refuse", refusal(draft.kind, err))

    def _create(self, draft: Draft, manifest: dict[str, Any]) -> Planned:
        if draft.namespace and self._live.namespace(draft.namespace) is None:
            if not any((each.kind, each.name) == ("Namespace", draft.namespace) for each in self._drafts):
                return _planned(
                    draft, "refuse", f"namespace {draft.namespace} exists neither in the cluster nor in the backup."
                )
            return self._try_elsewhere(draft, manifest)
        if not self._live.versions(draft):
            return _planned(draft, "create")
        try:
            self._api.apply(draft.path, manifest, dry_run=True)
        except ObjectRefused as err:
            if draft.kind != "Service" or not any(field.lower().endswith("nodeport") for field in err.fields):
                raise
            drop_node_ports(draft)
            draft.warnings.append("its node ports are in use now: the cluster assigns other ones.")
            self._api.apply(draft.path, draft.manifest, dry_run=True)
        return _planned(draft, "create", checked="here")

    def _try_elsewhere(self, draft: Draft, manifest: dict[str, Any]) -> Planned:
        """Dry-run an object in a namespace that is there: what is wrong with the object itself shows there as well."""
        metadata = {**manifest["metadata"], "namespace": _STAND_IN}
        metadata.pop("ownerReferences", None)
        path = f"{collection_path(draft.api_version, draft.plural, _STAND_IN)}/{draft.name}"
        if not self._live.versions(draft) or self._live.get(path) is not None:
            return _planned(draft, "create")
        try:
            self._api.apply(path, {**manifest, "metadata": metadata}, dry_run=True)
        except ObjectRefused as err:
            if not err.by_admission:
                raise
            draft.warnings.append(
                f"in namespace {_STAND_IN}, where it was tried, it is refused: {refusal(draft.kind, err)}"
            )
            return _planned(draft, "create")
        return _planned(draft, "create", checked="elsewhere")

    def _compare(self, draft: Draft, manifest: dict[str, Any], live: dict[str, Any]) -> Planned:
        managers: tuple[str, ...] = ()
        try:
            result = self._api.apply(draft.path, manifest, dry_run=True)
        except FieldsOwned as err:
            managers = err.managers
            result = self._api.apply(draft.path, manifest, dry_run=True, force=True)
        facts: dict[str, Any] = {
            "checked": "here",
            "live_uid": str(live["metadata"]["uid"]),
            "live_digest": state_digest(live),
            "result_digest": state_digest(result),
            "stays": self._stays(draft, live),
        }
        draft.warnings.clear()  # they are of an object that is made anew
        if facts["live_digest"] == facts["result_digest"]:
            if facts["stays"]:
                return _planned(
                    draft,
                    "leave",
                    "it has everything that the backup has, and more, which applying would keep",
                    **facts,
                )
            return _planned(draft, "unchanged", **facts)
        why = f"it was changed by {', '.join(managers)}" if managers else "it differs"
        action: Action = "overwrite" if self._overwrite else "leave"
        return _planned(draft, action, why, diff=shown_diff(live, result), **facts)

    def _stays(self, draft: Draft, live: dict[str, Any]) -> tuple[str, ...]:
        """Name what the live object has more than the backup: both cleaned, so that what is only bookkeeping does not show."""
        other = replace(draft, manifest=live, dropped=[], warnings=[]).copy()
        clean(other, _EverythingIsThere())
        return tuple(only_in(other.manifest, draft.manifest))


class _LiveSurroundings:
    """What will be there when an object is made: what lives, and what is recovered."""

    def __init__(self, live: Live, drafts: Iterable[Draft]) -> None:
        self._live = live
        self._uids = {draft.uid for draft in drafts if draft.uid}
        self._volumes = {draft.name: draft.manifest for draft in drafts if draft.kind == "PersistentVolume"}

    def has_owner(self, reference: Mapping[str, Any], namespace: str) -> bool:
        return reference.get("uid") in self._uids or self._live.is_alive(reference, namespace)

    def volume(self, name: str) -> Mapping[str, Any] | None:
        return self._live.volume(name) or self._volumes.get(name)


class _EverythingIsThere:
    def has_owner(self, reference: Mapping[str, Any], namespace: str) -> bool:
        return True

    def volume(self, name: str) -> Mapping[str, Any] | None:
        return None


def _planned(draft: Draft, action: Action, why: str = "", **facts: Any) -> Planned:
    return Planned(
        action=action,
        api_version=draft.api_version,
        kind=draft.kind,
        namespace=draft.namespace,
        name=draft.name,
        path=draft.path,
        uid=draft.uid,
        why=why,
        dropped=tuple(draft.dropped),
        warnings=tuple(draft.warnings),
        manifest=exact_json.dumps(draft.manifest) if action not in ("skip", "refuse") else "",
        **facts,
    )
