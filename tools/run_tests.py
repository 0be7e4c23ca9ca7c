"""
Runs the whole suite as parts side by side, each a pytest process.

Most parts wait most of the time: for labs, for Airflow. What waits for less is given less of the machine, so that nothing in
the others runs into its deadlines, and what only computes has what they leave. That holds where the kernel does not share the
machine between sessions first (``kernel.sched_autogroup_enabled``: `.ci/run` turns it off). Each part has a lab and an
Airflow of its own where it needs one. A test file belongs to the part that names it or the nearest folder above it, so that a
new file is in exactly one. The output of a part is shown when it has ended; what failed is repeated at the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

PARTS = {
    "e2e": ("tests/e2e",),
    "restores": (
        "tests/integration/restore",
        "tests/integration/test_untidy_manifests.py",
        "tests/integration/test_untidy_members.py",
    ),
    "integration": ("tests/integration",),
    "image": ("tests/image",),
    "unit": ("tests/unit",),
    "airflow": ("tests",),
}
NICE = {"e2e": 0, "restores": 5, "integration": 5, "image": 8, "unit": 12, "airflow": 12}
FAILED = (b"FAILED ", b"ERROR ")


@dataclass(frozen=True)
class Ended:
    """
    A part that has ended.

    :param busy_s: Processor time of the part and of what it started and waited for.
    """

    name: str
    code: int
    seconds: float
    busy_s: float
    output: bytes

    @property
    def headline(self) -> str:
        return f"{self.name}: exit {self.code} after {self.seconds:.0f} s, {self.busy_s:.0f} s of processor"


def arguments_of(name: str) -> list[str]:
    """Return what a part gives to pytest: its paths, without those of other parts below them."""
    mine = [Path(path) for path in PARTS[name]]
    others = [Path(path) for part, paths in PARTS.items() if part != name for path in paths]
    below = [path for path in others if any(folder in path.parents for folder in mine)]
    return [*map(str, mine), *(f"--ignore={path}" for path in below)]


def pytest(name: str, *arguments: str) -> Ended:
    """Run a part."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:
        line = ("nice", "-n", str(NICE.get(name, 0)), sys.executable, "-m", "pytest", *arguments)
        _, status, used = os.wait4(subprocess.Popen(line, stdout=output, stderr=subprocess.STDOUT).pid, 0)
        output.seek(0)
        seconds, busy_s = time.monotonic() - started, used.ru_utime + used.ru_stime
        return Ended(name, os.waitstatus_to_exitcode(status), seconds, busy_s, output.read())


def show(part: Ended) -> None:
    """Print a part's output under a headline that tells how it ended."""
    sys.stdout.flush()
    sys.stdout.buffer.write(f"\n##### {part.headline}\n\n".encode() + part.output)
    sys.stdout.flush()


def summary(parts: list[Ended]) -> str:
    """Return one line for each part, and below it what failed there."""
    lines = []
    for part in sorted(parts, key=lambda part: bool(part.code)):
        lines.append(part.headline)
        failures = [line for line in part.output.splitlines() if line.startswith(FAILED)] if part.code else []
        lines += [f"  {line.decode(errors='replace')}" for line in failures]
    return "\n".join(lines)


def exit_code(parts: list[Ended]) -> int:
    """Return 0 when each part ended well, else 1: one that a signal ended has a negative code."""
    return int(any(part.code for part in parts))


def run_part(name: str) -> Ended:
    """Run a part, and show it when it has ended."""
    ended = pytest(name, *arguments_of(name))
    show(ended)
    return ended


def run_all() -> int:
    """Run every part, and return the exit code."""
    with ThreadPoolExecutor(len(PARTS)) as pool:
        parts = list(pool.map(run_part, PARTS))
    print(f"\n##### all parts\n\n{summary(parts)}")
    return exit_code(parts)


def main(arguments: list[str]) -> int:
    """Run what is asked for, or all; return the exit code."""
    if arguments:
        return subprocess.run((sys.executable, "-m", "pytest", *arguments), check=False).returncode
    return run_all()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
