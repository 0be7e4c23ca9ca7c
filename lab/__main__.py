"""``python -m lab up | down | status``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from lab.site import Lab, LabError, Site


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lab", description="A stand-in site on one machine.")
    parser.add_argument("command", choices=("up", "down", "status"))
    parser.add_argument("--dir", type=Path, default=Path(".lab"), help="the site's folder (default: .lab)")
    parser.add_argument("--detach", action="store_true", help="up: return when the site is ready, and leave it running")
    options = parser.parse_args()
    lab = Lab(options.dir)
    if options.command == "down":
        lab.down()
        print(f"{lab.root}: down")
        return 0
    if options.command == "status":
        print(f"{lab.root}: {lab.state}")
        if lab.state == "ready":
            describe(lab.wait())
        return 0 if lab.state == "ready" else 3
    if options.detach or lab.running:
        try:
            describe(lab.up())
        except LabError as err:
            print(err, file=sys.stderr)
            return 1
        return 0
    os.execv(sys.executable, [sys.executable, "-m", "lab.supervisor", str(lab.root)])


def describe(site: Site) -> None:
    for cluster in site.clusters.values():
        nodes = ", ".join(f"{node.name} {node.address}:{node.ssh.port}" for node in cluster.nodes)
        print(f"{cluster.name:8} kubeconfig {cluster.kubeconfig}  nodes {nodes}")
    print(f"jump     {site.jump.address}:{site.jump.port}  user {site.ssh_user}  key {site.ssh_key}")
    print(f"store    STORAGE_EMULATOR_HOST={site.gcs_url}  bucket {site.bucket}")
    print(f"config   {site.config}")


if __name__ == "__main__":
    sys.exit(main())
