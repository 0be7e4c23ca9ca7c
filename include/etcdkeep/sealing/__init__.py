"""Sealing: age keys, zstd and age streams, digests, signatures, and plaintext in private files only."""
