"""
Make the secrets that deploy/compose.yaml mounts, and print what goes into clusters.yaml.

    python deploy/make_secrets.py deploy/secrets

Files are 0400 and belong to the image's user (50000) where this runs as root. Nothing is ever overwritten: what exists stays.
`connections.yaml` and `page_connections.yaml` are left to you: the Airflow connections of your site (docs/connections.md).
"""

from __future__ import annotations

import argparse
import base64
import os
import secrets
import sys
from pathlib import Path

import yaml

from etcdkeep.records import PURPOSES
from etcdkeep.sealing.age_keys import generate_identity
from etcdkeep.sealing.signature import generate_signing_key

AIRFLOW_USER = 50000
POSTGRES_USER = 999
MOUNTED = "/run/secrets"
YOURS = ("connections.yaml", "page_connections.yaml")


def main(folder: Path) -> None:
    """Make what is missing, and print the public halves of new keys."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _airflows_own(folder)
    found = _of_the_backups(folder)
    print(
        f"# Into `defaults` of clusters.yaml; {folder}/age_identity opens every backup: keep a copy where no attacker and no fire"
    )
    print("# reaches both it and the backups.")
    print(yaml.safe_dump(found, sort_keys=False, width=200), end="")
    missing = [str(folder / name) for name in YOURS if not (folder / name).exists()]
    print(f"# Still missing: {', '.join(missing)}" if missing else "# Complete.")


def _airflows_own(folder: Path) -> None:
    database, redis = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    if not (folder / "postgres_password").exists():  # each pair names one password
        _write(folder / "postgres_password", database, POSTGRES_USER)
        _write(folder / "database_url", f"postgresql+psycopg2://airflow:{database}@postgres/airflow")
    if not (folder / "redis.conf").exists():
        _write(folder / "redis.conf", f'requirepass {redis}\nsave ""\nappendonly no\n')
        _write(folder / "redis_url", f"redis://:{redis}@redis:6379/0")
    for name, key in (
        ("fernet_key", base64.urlsafe_b64encode(os.urandom(32)).decode()),
        ("jwt_secret", secrets.token_urlsafe(64)),
        ("api_secret_key", secrets.token_urlsafe(32)),
    ):
        if not (folder / name).exists():
            _write(folder / name, key)


def _of_the_backups(folder: Path) -> dict[str, object]:
    """
    Make the keys of the backups, and return what the configuration says of them.

    Where all but the key for indexes exist, which older versions did not make, that one is made alone.

    :raises SystemExit: when some exist already: their public halves are in the configuration.
    """
    names = ["age_identity", *(f"signing_{purpose}" for purpose in PURPOSES)]
    if existing := [name for name in names if (folder / name).exists()]:
        if existing == names and not (folder / "index_identity").exists():
            return _for_indexes(folder)
        sys.exit(
            f"{folder} has {', '.join(existing)}: a key that backups may need is never replaced. Give another folder to make new ones."
        )
    identity, recipient = generate_identity()
    _write(folder / "age_identity", identity)
    signing: dict[str, object] = {}
    for purpose in PURPOSES:
        pem, public = generate_signing_key()
        _write(folder / f"signing_{purpose}", pem.decode())
        signing[purpose] = {"key": {"path": f"{MOUNTED}/signing_{purpose}"}, "public_keys": [public]}
        signing.setdefault("public_keys", [public])
    return {
        "age_recipients": [recipient],
        "age_identity": {"path": f"{MOUNTED}/age_identity"},
        **_for_indexes(folder),
        "signing": signing,
    }


def _for_indexes(folder: Path) -> dict[str, object]:
    identity, recipient = generate_identity()
    _write(folder / "index_identity", identity)
    return {"index_recipients": [recipient], "index_identity": {"path": f"{MOUNTED}/index_identity"}}


def _write(path: Path, text: str, user: int = AIRFLOW_USER) -> None:
    with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o400)) as file:
        file.write(text)
        if os.geteuid() == 0:
            os.fchown(file.fileno(), user, 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("deploy/secrets"), help="default: %(default)s")
    main(parser.parse_args().folder)
