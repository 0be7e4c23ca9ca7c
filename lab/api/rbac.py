"""
Whether a service account may do what it asks for, by the Roles and ClusterRoles of the cluster. All others may do everything.

Certificates stand for accounts: the name in one is the user's name, ``system:serviceaccount:<namespace>:<name>``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.api.registry import Listing, Registry
from lab.api.status import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterator

API = "rbac.authorization.k8s.io/v1"
ACCOUNT = "system:serviceaccount:"
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class Question:
    """What an account wants to do; `resource` has the subresource behind a slash."""

    verb: str
    group: str
    resource: str
    namespace: str
    name: str


def verbs(method: str, name: str, sub: str, *, watches: bool) -> tuple[str, ...]:
    """Return the verbs that a request needs; an exec over WebSocket is a GET, and needs `create` too."""
    if sub == "exec":
        return ("get", "create") if method == "GET" else ("create",)
    if method == "GET":
        return ("get",) if name else ("watch",) if watches else ("list",)
    return ("deletecollection",) if method == "DELETE" and not name else (VERBS[method],)


async def check(registry: Registry, user: str, question: Question) -> None:
    """
    :raises ApiError: 403, in the words of the real server.
    """
    if not user.startswith(ACCOUNT) or any(_allows(rule, question) for rule in await _rules(registry, user, question)):
        return
    where = f' in the namespace "{question.namespace}"' if question.namespace else " at the cluster scope"
    name = f' "{question.name}"' if question.name else ""
    raise ApiError(
        403, "Forbidden",
        f'{question.resource}{name} is forbidden: User "{user}" cannot {question.verb} resource "{question.resource}" '
        f'in API group "{question.group}"{where}', {},
    )  # fmt: skip


async def _rules(registry: Registry, user: str, question: Question) -> list[dict[str, Any]]:
    found = []
    for plural, namespace in (("clusterrolebindings", ""), ("rolebindings", question.namespace)):
        if plural == "rolebindings" and not namespace:
            continue
        for binding in await _list(registry, plural, namespace):
            if any(_is(user, subject) for subject in binding.get("subjects", ())):
                role = binding["roleRef"]
                kind = "clusterroles" if role["kind"] == "ClusterRole" else "roles"
                resource = await registry.resource(API, kind)
                bound = await registry.get(resource, "" if kind == "clusterroles" else namespace, role["name"])
                found += bound.get("rules") or []
    return found


async def _list(registry: Registry, plural: str, namespace: str) -> Iterator[dict[str, Any]]:
    page = await registry.list(await registry.resource(API, plural), namespace, Listing())
    return iter(page["items"])


def _is(user: str, subject: dict[str, Any]) -> bool:
    return subject["kind"] == "ServiceAccount" and user == f"{ACCOUNT}{subject.get('namespace', '')}:{subject['name']}"


def _allows(rule: dict[str, Any], question: Question) -> bool:
    def has(field: str, value: str) -> bool:
        return bool({"*", value} & set(rule.get(field, ())))

    names = rule.get("resourceNames")
    return (
        has("verbs", question.verb)
        and has("apiGroups", question.group)
        and has("resources", question.resource)
        and (not names or question.name in names)
    )
