"""A namespace with a bit of everything, as a backup has it."""

from __future__ import annotations

from typing import Any

from tests.live_api import config_map, definition, named, owned_by

SHOP = named("Namespace", "shop")
DEPLOYMENT = named(
    "Deployment",
    "web",
    "shop",
    "apps/v1",
    spec={"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}}},
)  # fmt: skip
REPLICAS = named("ReplicaSet", "web-1", "shop", "apps/v1", spec={}, metadata=owned_by(DEPLOYMENT))
POD = named("Pod", "web-1-a", "shop", spec={"containers": []}, metadata=owned_by(REPLICAS))
WIDGET = named("Widget", "gear", "shop", "shop.example.com/v1", spec={"size": 3})
WIDGETS = definition("widgets", "Widget")
PASSWORD = named("Secret", "gear", "shop", type="Opaque", data={"password": "Y2FuYXJ5"}, metadata=owned_by(WIDGET))
SETTINGS = config_map("settings", color="blue")
SETTINGS_PATH = "/api/v1/namespaces/shop/configmaps/settings"


def live(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return an object as it lives: with a uid of its own."""
    return {**content, **changes, "metadata": {**content["metadata"], "uid": "alive"}}
