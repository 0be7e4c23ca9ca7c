"""The command line on files and sets of Kubernetes objects."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from click.testing import CliRunner

from etcdkeep import errors
from etcdkeep.cli import cli, exit_code


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def rows(self):
        """The cells of a table, without its head."""
        return [line.split() for line in self.out.splitlines()[1:]]


@pytest.fixture
def run():
    """Run ``objects …``."""

    def invoke(*args):
        result = CliRunner().invoke(cli, ["objects", *map(str, args)])
        error = result.exception
        if isinstance(error, errors.EtcdkeepError):
            return Answer(exit_code(error), result.stdout, f"{result.stderr}error: {error}")
        if error is not None and not isinstance(error, SystemExit):
            raise error
        return Answer(result.exit_code, result.stdout, result.stderr)

    return invoke
