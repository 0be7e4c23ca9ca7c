"""Reading YAML that may hold secrets: what goes wrong is told by line, never by quoting the text."""

from __future__ import annotations

from typing import Any

import yaml

from etcdkeep.errors import ConfigError


def read_yaml(data: bytes, source: str) -> Any:
    """
    Return the first document of `data` as plain Python values.

    :param source: The file's name, for the message.
    :raises ConfigError: when it is not YAML.
    """
    try:
        return next(iter(yaml.safe_load_all(data)), None)
    except yaml.MarkedYAMLError as err:
        line = f" at line {err.problem_mark.line + 1}" if err.problem_mark else ""
    except (yaml.YAMLError, ValueError, RecursionError):
        line = ""
    # PyYAML's own message quotes the offending line, which may be a key: it is not chained.
    raise ConfigError(f"{source} is not valid YAML{line}; read it on the node and repair it")
