"""
CustomResourceDefinitions: stored as ``apiextensions.k8s.io/v1beta1``, served as ``v1``.

Every API server up to now stores them in the old version, which none serves since 1.22. What all versions of a CRD
share stands there at the top of ``spec``; in v1 each version has its own.
"""

from __future__ import annotations

from typing import Any

from etcdkeep.errors import ValueDamaged

CRD_V1BETA1 = ("apiextensions.k8s.io/v1beta1", "CustomResourceDefinition")


def crd_v1(stored: dict[str, Any]) -> dict[str, Any]:
    """
    Return a stored v1beta1 CRD in v1, with the defaults of both.

    :raises ValueDamaged: when it is not shaped like one.
    """
    try:
        return _convert(stored)
    except (KeyError, TypeError, AttributeError) as err:
        raise ValueDamaged(f"it is not a CustomResourceDefinition of v1beta1: {type(err).__name__} {err}") from err


def _convert(stored: dict[str, Any]) -> dict[str, Any]:
    old = stored["spec"]
    names = _names(old["names"])
    shared = {
        new: old[name]
        for name, new in (
            ("validation", "schema"),
            ("subresources", "subresources"),
            ("additionalPrinterColumns", "additionalPrinterColumns"),
            ("selectableFields", "selectableFields"),
        )
        if name in old
    }
    versions = old.get("versions") or [{"name": old["version"], "served": True, "storage": True}]
    spec = {
        "group": old["group"],
        "names": names,
        "scope": old.get("scope") or "Namespaced",
        "versions": [_version({**version, **shared}) for version in versions],
        "conversion": _conversion(old.get("conversion") or {"strategy": "None"}),
    }
    if old.get("preserveUnknownFields") is not False:
        spec["preserveUnknownFields"] = True
    status = dict(stored.get("status") or {})
    for name in ("conditions", "storedVersions"):
        status.setdefault(name, None)
    status.setdefault("acceptedNames", {"plural": "", "kind": ""})
    if not status["storedVersions"]:
        status["storedVersions"] = [version["name"] for version in versions if version.get("storage")][:1] or None
    return {**stored, "apiVersion": "apiextensions.k8s.io/v1", "spec": spec, "status": status}


def _names(old: dict[str, Any]) -> dict[str, Any]:
    names = dict(old)
    if not names.get("singular"):
        names["singular"] = names["kind"].lower()
    if not names.get("listKind"):
        names["listKind"] = names["kind"] + "List"
    return names


def _version(version: dict[str, Any]) -> dict[str, Any]:
    columns = version.get("additionalPrinterColumns")
    if columns:
        version["additionalPrinterColumns"] = [
            {"jsonPath" if name == "JSONPath" else name: value for name, value in column.items()} for column in columns
        ]
    return version


def _conversion(old: dict[str, Any]) -> dict[str, Any]:
    new = {"strategy": old["strategy"]}
    client, reviews = old.get("webhookClientConfig"), old.get("conversionReviewVersions")
    if old["strategy"] == "Webhook" and not reviews:
        reviews = ["v1beta1"]
    if client is not None or reviews:
        new["webhook"] = {"conversionReviewVersions": reviews}
        if client is not None:
            service = client.get("service")
            new["webhook"]["clientConfig"] = (
                {**client, "service": {**service, "port": service.get("port") or 443}} if service else client
            )
    return new
