"""What deploy/compose.yaml gives to whom: read as compose reads it, and made by deploy/make_secrets.py."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[1]
DEPLOY = PROJECT / "deploy"
MOUNTED = "/run/secrets"


@cache
def compose() -> dict[str, Any]:
    """Return the compose file; anchors and merges are resolved."""
    document: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return document


def secrets_of(service: str) -> dict[str, str]:
    """Return the secrets of a service: name → path in its container."""
    given = compose()["services"][service].get("secrets", [])
    whole = [{"source": each, "target": each} if isinstance(each, str) else each for each in given]
    return {each["source"]: f"{MOUNTED}/{each['target']}" for each in whole}


def option(service: str, name: str) -> str:
    """Return the value of an option of a service's command."""
    command = compose()["services"][service]["command"]
    return str(command[command.index(name) + 1])


def make_secrets(folder: Path) -> dict[str, Any]:
    """Run deploy/make_secrets.py, and return what it says belongs into `defaults`."""
    argv = [sys.executable, str(DEPLOY / "make_secrets.py"), str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


def configuration(made: dict[str, Any], repository: Path, mounted: Path | str = MOUNTED) -> str:
    """Return deploy/clusters.yaml as an administrator fills it in, with secrets mounted in another folder."""
    document = yaml.safe_load((DEPLOY / "clusters.yaml").read_text())
    document["defaults"] |= {**made, "repository": f"file://{repository}"}
    del document["defaults"]["repository_connection"]  # a directory needs none
    return yaml.safe_dump(document).replace(MOUNTED, str(mounted))
