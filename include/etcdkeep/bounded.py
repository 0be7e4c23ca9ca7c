"""
Field types for stored documents: numbers and text whose size no attacker chooses.

A document that is larger than life is refused where it is parsed, with its field's name, and not where it is shown.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field

MAX_COUNT = 2**63 - 1
"""etcd's revisions and every file's size are signed 64-bit numbers."""

Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
"""Revisions, sizes, numbers of keys."""
Hash32 = Annotated[int, Field(ge=0, lt=2**32)]
"""CRC-32C, etcd's hash of a snapshot, HashKV."""
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
"""How long something took."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Word = Annotated[str, Field(max_length=300)]
"""Names: of nodes, pods, members, files, versions, keys, users."""
Sentence = Annotated[str, Field(max_length=4_000)]
"""Reasons, notes, problems, warnings."""
Sentences = Annotated[tuple[Sentence, ...], Field(max_length=10_000)]
Words = Annotated[tuple[Word, ...], Field(max_length=1_000)]
Moment = AwareDatetime
"""A time that says its zone."""
