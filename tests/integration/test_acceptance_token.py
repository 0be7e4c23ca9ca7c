"""The token recipe of docs/acceptance.md makes a kubeconfig of its own and leaves the active one as it is."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from etcdkeep.kubeconfig.reading import parse_kubeconfig, read_access

PAGE = Path(__file__).parents[2] / "docs/acceptance.md"
KUBECTL = r"""#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in
  "config view --minify -o jsonpath={.clusters[0].cluster.server}") printf https://10.0.0.1:6443 ;;
  "get configmap kube-root-ca.crt -n kube-system -o jsonpath={.data.ca\.crt}") printf -- '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n' ;;
  "create token etcdkeep -n kube-system --duration 8760h") printf canary.token.x ;;
  "--kubeconfig etcdkeep.kubeconfig auth can-i create pods/exec -n kube-system") echo yes ;;
  *) echo "not in the recipe: $*" >&2; exit 1 ;;
esac
"""


def commands() -> str:
    """Return the recipe's commands, without prompts and output."""
    (block,) = (
        each for each in re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL) if "create token" in each
    )
    return "\n".join(line.removeprefix("$ ") for line in block.splitlines() if line != "yes")


def test_the_recipe_writes_a_kubeconfig_of_its_own(tmp_path):
    (tmp_path / "kubectl").write_text(KUBECTL)
    (tmp_path / "kubectl").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls"), "HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands()],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "yes\n"), done.stderr
    written = tmp_path / "etcdkeep.kubeconfig"
    assert written.stat().st_mode & 0o077 == 0
    access = read_access(parse_kubeconfig(written.read_bytes()), None, None)
    assert (access.server, access.token) == ("https://10.0.0.1:6443", "canary.token.x")
    assert access.authority is not None
    assert access.authority.data == b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    calls = (tmp_path / "calls").read_text()
    assert "config set" not in calls
    assert "canary" not in calls
