"""
Reading an etcd over its gRPC API: its revision, all its keys, its HashKV.

The messages are described here with the fields that are read, as ``etcdserverpb`` and ``mvccpb`` number them.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from etcdkeep.drill.contents import LiveKey
from etcdkeep.errors import Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from etcdkeep.drill.credentials import DrillCredentials

_FIRST_KEY = b"\0"
_TO_THE_END = b"\0"
_PAGE_BYTES = 16 * 2**20
"""For each page etcd counts all keys behind it, so small ones are slow."""
_FIRST_PAGE_KEYS = 64
_MOST_PAGE_KEYS = 16384
_GROWTH = 8
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 50),
)
_LOOK_S = 0.1

_Type = descriptor_pb2.FieldDescriptorProto
_FIELDS: dict[str, dict[str, tuple[int, int, str]]] = {
    "Header": {"revision": (3, _Type.TYPE_INT64, "")},
    "KeyValue": {
        "key": (1, _Type.TYPE_BYTES, ""),
        "create_revision": (2, _Type.TYPE_INT64, ""),
        "mod_revision": (3, _Type.TYPE_INT64, ""),
        "version": (4, _Type.TYPE_INT64, ""),
        "value": (5, _Type.TYPE_BYTES, ""),
        "lease": (6, _Type.TYPE_INT64, ""),
    },
    "RangeRequest": {
        "key": (1, _Type.TYPE_BYTES, ""),
        "range_end": (2, _Type.TYPE_BYTES, ""),
        "limit": (3, _Type.TYPE_INT64, ""),
        "revision": (4, _Type.TYPE_INT64, ""),
        "count_only": (9, _Type.TYPE_BOOL, ""),
    },
    "RangeResponse": {
        "header": (1, _Type.TYPE_MESSAGE, "Header"),
        "kvs": (2, _Type.TYPE_MESSAGE, "KeyValue"),
        "more": (3, _Type.TYPE_BOOL, ""),
    },
    "HashKVRequest": {"revision": (1, _Type.TYPE_INT64, "")},
    "HashKVResponse": {"hash": (2, _Type.TYPE_UINT32, "")},
}
_REPEATED = {"kvs"}


class EtcdClient:
    """
    A connection to one etcd on this machine.

    :param left_s: Seconds that calls may still take.
    """

    def __init__(self, port: int, credentials: DrillCredentials, left_s: Callable[[], float]) -> None:
        client = credentials.client
        secure = grpc.ssl_channel_credentials(credentials.authority, client.key, client.certificate)
        self._channel = grpc.secure_channel(f"127.0.0.1:{port}", secure, options=_OPTIONS)
        self._left_s = left_s
        self._range = self._method("KV/Range", "Range")
        self._hash_kv = self._method("Maintenance/HashKV", "HashKV")

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def wait(self, is_alive: Callable[[], bool]) -> None:
        """
        Return when the etcd answers what only a member with a leader can answer.

        :raises Unreachable: when it is alive no more, or time is over.
        """
        call = self._range.future(
            _message("RangeRequest", key=_FIRST_KEY, count_only=True), timeout=self._left_s(), wait_for_ready=True
        )
        while True:
            try:
                call.result(timeout=_LOOK_S)
            except grpc.FutureTimeoutError:
                if not is_alive():
                    call.cancel()
                    raise Unreachable("etcd stopped before it was ready.") from None
            except grpc.RpcError as err:
                raise _unreachable(err) from err
            else:
                return

    def revision(self) -> int:
        """Return the current revision."""
        answer = self._result(self._ask(key=_FIRST_KEY, count_only=True))
        return int(answer.header.revision)

    def keys(self, revision: int) -> Iterator[list[LiveKey]]:
        """Yield every key at a revision, in key order, page by page; the next page is fetched meanwhile."""
        limit = _FIRST_PAGE_KEYS
        asked = self._ask(key=_FIRST_KEY, range_end=_TO_THE_END, revision=revision, limit=limit)
        while asked is not None:
            page = self._result(asked)
            asked = None
            if page.more:
                fitting = limit * _PAGE_BYTES // max(page.ByteSize(), 1)
                limit = max(1, min(fitting, limit * _GROWTH, _MOST_PAGE_KEYS))
                after = page.kvs[-1].key + b"\0"
                asked = self._ask(key=after, range_end=_TO_THE_END, revision=revision, limit=limit)
            yield [
                LiveKey(each.key, each.create_revision, each.mod_revision, each.version, each.lease, each.value)
                for each in page.kvs
            ]

    def hash_kv(self) -> int:
        """Return HashKV at the current revision, which etcd must not be told where it is the compacted one too."""
        request = _message("HashKVRequest")
        return int(self._result(self._hash_kv.future(request, timeout=self._left_s())).hash)

    def _ask(self, **fields: Any) -> Any:
        return self._range.future(_message("RangeRequest", **fields), timeout=self._left_s())

    def _result(self, call: Any) -> Any:
        try:
            return call.result()
        except grpc.RpcError as err:
            raise _unreachable(err) from err

    def _method(self, path: str, name: str) -> Any:
        return self._channel.unary_unary(
            f"/etcdserverpb.{path}",
            request_serializer=_class(f"{name}Request").SerializeToString,
            response_deserializer=_class(f"{name}Response").FromString,
        )


def _unreachable(err: Any) -> Unreachable:
    return Unreachable(f"etcd answered {err.code().name}: {err.details()}.")


def _message(name: str, **fields: Any) -> Any:
    return _class(name)(**fields)


@cache
def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"etcdkeep.{name}"))


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="etcdkeep/etcd.proto", package="etcdkeep", syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, of) in fields.items():
            label = _Type.LABEL_REPEATED if field in _REPEATED else _Type.LABEL_OPTIONAL
            described = message.field.add(name=field, number=number, type=kind, label=label)
            if of:
                described.type_name = f".etcdkeep.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool
