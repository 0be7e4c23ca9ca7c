"""The lab's configuration for two kinds of workers that share no private key, as deploy/clusters.yaml has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import load_pem_private_key

from etcdkeep.acceptance.celery_airflow import Kind
from etcdkeep.records import PURPOSES
from etcdkeep.sealing.signature import generate_signing_key, public_key_text

if TYPE_CHECKING:
    from pathlib import Path

    from lab.site import Site


def kinds_of(site: Site) -> tuple[Kind, ...]:
    """Return the two kinds. Neither sees the lab's own signing key, which signs everything."""
    keys = site.root / "keys"
    everything, identity = keys / "signing.pem", keys / "age.txt"
    verifying = tuple(_key_file(keys, purpose) for purpose in PURPOSES if purpose != "backup")
    return (
        Kind("backup", ("backup", "default"), (everything, identity, *verifying)),
        Kind("verify", ("verify",), (everything, _key_file(keys, "backup"))),
    )


def split(document: dict[str, Any], site: Site) -> None:
    """Give a configuration of the lab a signing key for each purpose, made at the first call, and the two queues."""
    defaults = document["defaults"]
    before = defaults["signing"]["public_keys"]  # what was signed by the one key stays good
    signing = {purpose: _signing_key(_key_file(site.root / "keys", purpose)) for purpose in PURPOSES}
    for each in signing.values():
        each["public_keys"] += before
    defaults["signing"] = {"public_keys": [*signing["backup"]["public_keys"]], **signing}
    defaults |= {"queue": "backup", "verify_queue": "verify"}


def _key_file(keys: Path, purpose: str) -> Path:
    return keys / f"signing_{purpose}.pem"


def _signing_key(path: Path) -> dict[str, Any]:
    if not path.exists():
        path.touch(mode=0o600)
        path.write_bytes(generate_signing_key()[0])
    public = public_key_text(load_pem_private_key(path.read_bytes(), None).public_key())  # type: ignore[arg-type]
    return {"key": {"path": str(path)}, "public_keys": [public]}
