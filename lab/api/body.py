"""Request bodies: JSON, YAML for server-side apply, and the protobuf that ``kubectl create`` sends for built-in kinds."""

from __future__ import annotations

import json
from typing import Any

from lab.api.status import bad_request

PROTOBUF_MARK = b"k8s\x00"


def read_body(data: bytes) -> dict[str, Any]:
    """Return the object in a request's body; an empty body is an empty object."""
    if not data:
        return {}
    if data.startswith(PROTOBUF_MARK):
        return _from_protobuf(data)
    try:
        body = json.loads(data)
    except ValueError as err:
        raise bad_request(f"the body of the request is not JSON: {err}") from err
    if not isinstance(body, dict):
        raise bad_request("the body of the request is not an object")
    return body


def _from_protobuf(data: bytes) -> dict[str, Any]:
    """Decode by the product's own schema: the lab has none, and the objects come back to kubectl to be compared."""
    from etcdkeep.errors import EtcdkeepError
    from etcdkeep.objects.decoding.decode import decode

    try:
        body = decode(b"/request", data, mod_revision=0).json
    except EtcdkeepError as err:
        raise bad_request(f"the body of the request is not decodable: {err}") from err
    for field in ("resourceVersion", "creationTimestamp"):
        body["metadata"].pop(field, None)
    return body
