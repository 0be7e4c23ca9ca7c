"""
Runs the whole suite as two pytest processes side by side: what computes, and what mostly waits for labs and Airflow.

The computing half is given less of the machine, so that nothing in the other half runs into its deadlines. Its output is
shown when it has ended.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

COMPUTING = ("tests/unit", "tests/operators", "tests/dags")
WAITING = ("tests/integration", "tests/e2e")


def pytest(*arguments: str, nice: int = 0, **options: object) -> subprocess.Popen[bytes]:
    """Start pytest."""
    line = ("nice", "-n", str(nice), sys.executable, "-m", "pytest", *arguments)
    return subprocess.Popen(line, **options)  # type: ignore[call-overload,no-any-return]


def main(arguments: list[str]) -> int:
    """Run what is asked for, or all; return the exit code."""
    if arguments:
        return pytest(*arguments).wait()
    with tempfile.TemporaryFile() as told:
        computing = pytest(*COMPUTING, nice=10, stdout=told, stderr=subprocess.STDOUT)
        waiting = pytest(*WAITING)
        codes = (waiting.wait(), computing.wait())
        told.seek(0)
        sys.stdout.buffer.write(told.read())
        sys.stdout.flush()
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
