"""
Runs the whole suite as pytest processes side by side: what computes, and two parts of what mostly waits for labs and Airflow.

Each part has a lab of its own. The computing part is given less of the machine, so that nothing in the others runs into
its deadlines. The output of all but the last is shown when everything has ended.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

COMPUTING = ("tests/unit", "tests/operators", "tests/dags")
RESTORES = ("tests/integration/restore", "tests/integration/drill")
WAITING = ("tests/integration", "tests/e2e", *(f"--ignore={folder}" for folder in RESTORES))


def pytest(*arguments: str, nice: int = 0, **options: object) -> subprocess.Popen[bytes]:
    """Start pytest."""
    line = ("nice", "-n", str(nice), sys.executable, "-m", "pytest", *arguments)
    return subprocess.Popen(line, **options)  # type: ignore[call-overload,no-any-return]


def main(arguments: list[str]) -> int:
    """Run what is asked for, or all; return the exit code."""
    if arguments:
        return pytest(*arguments).wait()
    with tempfile.TemporaryFile() as computed, tempfile.TemporaryFile() as restored:
        parts = [
            pytest(*COMPUTING, nice=10, stdout=computed, stderr=subprocess.STDOUT),
            pytest(*RESTORES, stdout=restored, stderr=subprocess.STDOUT),
            pytest(*WAITING),
        ]
        codes = [part.wait() for part in reversed(parts)]
        for told in (computed, restored):
            told.seek(0)
            sys.stdout.buffer.write(told.read())
            sys.stdout.flush()
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
