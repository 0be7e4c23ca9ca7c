"""
Reading and checking an etcd snapshot file, without etcd.
"""

from etcdkeep.snapshot.file import Snapshot, open_snapshot
from etcdkeep.snapshot.record import Record
from etcdkeep.snapshot.report import Progress, SnapshotReport
from etcdkeep.snapshot.scan import EncryptionUse, encryption_use

__all__ = ["EncryptionUse", "Progress", "Record", "Snapshot", "SnapshotReport", "encryption_use", "open_snapshot"]
