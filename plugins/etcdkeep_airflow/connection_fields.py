"""
The fields of an Airflow connection. Each is known to the type's reader: it is honoured, or refused by its name with what
to do instead. No message quotes a value.
"""

from __future__ import annotations

import difflib
import json
import math
from typing import TYPE_CHECKING, Any

from etcdkeep.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Connection

TRUE, FALSE = ("true", "1", "yes", "y", "t", "on"), ("false", "0", "no", "n", "f", "off", "")
WHERE = "Correct it under Admin → Connections, or in your secrets backend."


class Fields:
    """
    What a connection of one type says.

    :param known: Fields of the extra that are honoured.
    :param refused: Field of the extra → what to do instead, for those that the provider's hook honours and we do not.
    :param prefix: What Airflow before 2.3 wrote before every field of this type.
    :param columns: Fields beside the extra that are honoured: host, login, password, port.
    :raises ConfigError: for another type, an extra that is no JSON object, and a field that is unknown or refused.
    """

    def __init__(
        self,
        connection: Connection,
        conn_type: str,
        known: Sequence[str],
        refused: Mapping[str, str],
        *,
        prefix: str = "",
        columns: Sequence[str] = (),
    ) -> None:
        self.name = f"Airflow connection {connection.conn_id!r}"
        self._prefix = prefix
        if connection.conn_type != conn_type:
            raise ConfigError(f"{self.name} is of type {connection.conn_type!r}; expected {conn_type!r}. {WHERE}")
        self._known, self._refused = tuple(known), refused
        self.values = self._read(connection.extra)
        for column in ("host", "login", "password", "port", "schema"):
            if getattr(connection, column) and column not in columns:
                raise self.wrong(column, f"has no meaning in a connection of type {conn_type!r}", "Remove it.")

    def _read(self, text: str | None) -> dict[str, Any]:
        """Return the fields that hold something; the form of Airflow's interface saves empty ones too."""
        try:
            parsed = json.loads(text) if text and text.strip() else {}
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict):
            raise ConfigError(f"{self.name}: its extra is not a JSON object. {WHERE}")
        values: dict[str, Any] = {}
        for full_name, value in parsed.items():
            name = full_name.removeprefix(self._prefix)
            if name not in self._known and name not in self._refused:
                raise ConfigError(f"{self.name}: its extra has the unknown field {full_name!r}{self._meant(name)}")
            if value in (None, "", {}, []) or (isinstance(value, str) and not value.strip()):
                continue
            if name in values and values[name] != value:
                raise ConfigError(f"{self.name}: its extra gives {name!r} twice. Remove {self._prefix + name!r}.")
            values[name] = value
        return values

    def _meant(self, name: str) -> str:
        near = difflib.get_close_matches(name.lower(), (*self._known, *self._refused), 1)
        return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(self._known)}."

    def refuse(self, *, harmless: Mapping[str, bool] | None = None) -> None:
        """
        Refuse what is not honoured.

        :param harmless: Flag → the value with which it changes nothing.
        :raises ConfigError: naming the field, and what to do instead.
        """
        for name, instead in self._refused.items():
            if name not in self.values:
                continue
            if harmless is None or name not in harmless or self.flag(name) != harmless[name]:
                raise ConfigError(f"{self.name} sets {name}, which is not supported. {instead}")

    def flag(self, name: str) -> bool:
        """Return a flag, false when it is not given."""
        word = str(self.values.get(name, False)).strip().lower()
        if word not in (*TRUE, *FALSE):
            raise ConfigError(f"{self.name}: {name} of its extra is neither true nor false. {WHERE}")
        return word in TRUE

    def text(self, name: str) -> str | None:
        """Return a text, or None when it is not given."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"{self.name}: {name} of its extra is of the wrong type; expected text. {WHERE}")
        return value

    def path(self, name: str) -> str | None:
        """Return the path of a file, or None when it is not given."""
        value = self.text(name)
        return None if value is None else file_path(self.name, name, value)

    def number(self, name: str, *, least: float, whole: bool = False) -> float | None:
        """Return a number, given as one or as text, or None when it is not given."""
        value = self.values.get(name)
        if value is None:
            return None
        kind = "a whole number" if whole else "a number"
        try:
            found = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            found = math.nan
        if not least <= found < math.inf or (whole and found != int(found)):
            raise self.wrong(name, f"is not usable: expected {kind} of at least {least:g}")
        return found

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of names, given as one, as JSON text, or separated by commas."""
        value = self.decoded(name)
        words = value.split(",") if isinstance(value, str) else value
        if words is None:
            return ()
        if not isinstance(words, list) or not all(isinstance(each, str) and each.strip() for each in words):
            raise self.wrong(name, "is not usable: expected a list of names")
        return tuple(each.strip() for each in words)

    def decoded(self, name: str) -> Any:
        """Return a field whose value may stand there as JSON text, as it does in a URI."""
        value = self.values.get(name)
        if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
            try:
                return json.loads(value)
            except (ValueError, RecursionError):
                raise self.wrong(name, "begins like JSON, and is none") from None
        return value

    def wrong(self, name: str, problem: str, cure: str = WHERE) -> ConfigError:
        """Return the error for a field."""
        return ConfigError(f"{self.name}: {name} {problem}. {cure}")


def file_path(source: str, name: str, value: str) -> str:
    """
    Return a path that a field gives. What else stands there may be the key itself, and messages quote paths.

    :raises ConfigError: when it is no absolute path.
    """
    if not value.startswith("/") or not value.isprintable():
        raise ConfigError(f"{source}: {name} of its extra is not usable: expected the absolute path of a file. {WHERE}")
    return value
