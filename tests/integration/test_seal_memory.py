"""Sealing and opening hold the same memory for 64 MiB as for 1 GiB; bench/ does it up to 4 GiB."""

from __future__ import annotations

import subprocess
import sys

import pytest

SMALL_MIB, LARGE_MIB, GROWTH_MAX_MIB = 64, 1024, 20

CHILD = """
import os, resource, sys
from pathlib import Path
from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.sealing.age_keys import generate_identity, parse_identities
from etcdkeep.sealing.seal import seal, unseal

size_mib, kind, root = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
text, recipient = generate_identity()
store = DirectoryStore(root)

def source():
    for mib in range(size_mib):
        if kind == "zeros":
            yield bytes(2**20)
        else:  # half of it cannot be compressed
            yield os.urandom(2**19) + bytes(2**19)

class Nowhere:
    def write(self, data):
        return len(data)

with store.create("sealed") as sink:
    facts = seal(source(), sink, [recipient])
with store.open("sealed") as stored:
    assert unseal(stored, Nowhere(), parse_identities(text.encode()), size_limit=size_mib * 2**20) == facts
store.delete("sealed")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak_mib(size_mib: int, kind: str, root: object) -> int:
    argv = (sys.executable, "-c", CHILD, str(size_mib), kind, str(root))
    done = subprocess.run(
        argv, env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=True, timeout=200
    )
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zeros", "mixed"])
def test_memory_is_flat(kind: str, tmp_path: object) -> None:
    growth = peak_mib(LARGE_MIB, kind, tmp_path) - peak_mib(SMALL_MIB, kind, tmp_path)
    assert growth < GROWTH_MAX_MIB
