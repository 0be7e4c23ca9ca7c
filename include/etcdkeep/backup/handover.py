"""What the steps of a backup hand on to each other, as signed records: between them it lies where others can write."""

from __future__ import annotations

from etcdkeep.backup.copy_out import CopiedSnapshot
from etcdkeep.backup.discover import Discovery
from etcdkeep.backup.node_files import NodeFiles
from etcdkeep.backup.snapshot import SavedSnapshot
from etcdkeep.records import Kind

DISCOVERY = Kind("discovery", "backup", Discovery)
SAVED = Kind("saved snapshot", "backup", SavedSnapshot)
COPIED = Kind("copied snapshot", "backup", CopiedSnapshot)
NODE_FILES = Kind("node files", "backup", NodeFiles)
