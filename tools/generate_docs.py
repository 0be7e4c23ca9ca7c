"""Writes the pages that come from the configuration's models; a test fails when they are stale."""

from __future__ import annotations

import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT / "include"))

from etcdkeep.config import pages as config_pages  # noqa: E402 - the path comes first

PAGES = {
    "docs/configuration.md": config_pages.reference,
    "docs/clusters.schema.json": config_pages.json_schema,
    "include/clusters.yaml": config_pages.example,
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (PROJECT / name).write_text(page(), encoding="utf-8")
