"""
A stand-in for the official Airflow image: the same user, folders and Airflow, and the Python of this environment, on this machine's own Debian.

Nothing is compiled or resolved again: the packages are copied as they are installed here, with their bytecode. Two of
requirements.lock are left out, and lie beside as wheels, so that the build's `pip install` installs by hash: from a folder,
since a build has no network here.
"""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import cache_from_source
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROJECT = Path(__file__).parents[1]
USER, HOME, AIRFLOW = 50000, "home/airflow", "opt/airflow"
ENVIRONMENT = f"{HOME}/.local"
LEFT_OUT = ("cbor2", "pyrage")
CALL_S = 400
"""Far above what a step takes, for a machine that does much else."""
WANTED = ("base-files", "bash", "coreutils", "dash", "findutils", "grep", "libstdc++6", "python3", "sed")
"""Debian's python3 for the libraries that it needs: that of this environment, which is taken, needs the same."""
NOT_WANTED = re.compile(r"/usr/share/(doc|man|locale|lintian|info)/|/usr/(bin|lib)/python3")
NOT_WANTED_OF_PYTHON = re.compile(
    r"/(site-packages|dist-packages|test|idlelib|tkinter|lib2to3|config-\d[^/]*)/|\.opt-\d\.pyc$"
)
MERGED = ("bin", "sbin", "lib", "lib64")
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
SITE_PACKAGES = f"{ENVIRONMENT}/lib/{PYTHON}/site-packages"
TO_LOCAL = "s,^lib/libpython,usr/&,S;s,^\\(bin\\|lib/python\\),usr/local/&,S"
"""The library goes where the loader looks for it without a cache; `S` leaves the targets of links alone."""
SYSTEM = {
    "etc/passwd": f"root:x:0:0:root:/root:/bin/bash\nairflow:x:{USER}:0::/{HOME}:/bin/bash\n",
    "etc/group": "root:x:0:\n",
    "etc/pip.conf": "[global]\nno-index = true\nfind-links = /wheels\n",
}


def missing() -> str | None:
    """Say what this machine lacks for it; None when nothing."""
    if shutil.which("dpkg-query") is None:
        return "needs Debian or a system made from it: the image's base is put together from installed packages"
    absent = set(WANTED) - set(_dependencies())
    return f"needs Debian's {', '.join(sorted(absent))}: apt-get install" if absent else None


def import_base(folder: Path, image: str) -> str:
    """Make the image by way of an archive in the folder, and return its id."""
    archive = folder / "base.tar"
    _write_system(folder / "system")
    _write_home(folder / "home")
    interpreter = Path(sys.base_prefix)
    site_packages = Path(sysconfig.get_path("purelib"))
    _add(archive, Path("/"), [*MERGED, *_debian_files()])
    _add(archive, interpreter, _interpreter_files(interpreter), TO_LOCAL)
    _add(archive, folder / "system", ["etc", "tmp", "wheels"])
    _add(archive, folder / "home", [HOME, AIRFLOW], owner=USER)
    _add(archive, site_packages, _package_files(site_packages), f"s,^,{SITE_PACKAGES}/,S", owner=USER)
    path = f"/{ENVIRONMENT}/bin:/usr/local/bin:/usr/bin:/bin"
    changes = (f"USER {USER}", f"WORKDIR /{AIRFLOW}", f"ENV HOME=/{HOME} AIRFLOW_HOME=/{AIRFLOW} PATH={path}")
    options = [part for change in changes for part in ("--change", change)]
    try:
        return call("docker", "import", *options, archive, image).strip()
    finally:
        archive.unlink()


def build(project: Path, image: str, *, etcd: str, base: str) -> None:
    """
    Build the project's image by `make image`.

    :param project: The checkout whose Makefile it is.
    :param etcd: Id of the image that has etcd's programs; `base` likewise of Airflow's.
    """
    # BuildKit looks for an image by its id in a registry.
    call(
        "env", "DOCKER_BUILDKIT=0", "make", "-s", "-C", project, "image",
        f"IMAGE={image}", f"ETCD_IMAGE={etcd}", f"AIRFLOW_IMAGE={base}",
    )  # fmt: skip


def call(*argv: object, given: str | None = None) -> str:
    """Run a program and return its output; :raises RuntimeError: with its last output when it fails."""
    line = [str(each) for each in argv]
    done = subprocess.run(line, input=given, capture_output=True, text=True, timeout=CALL_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{line[0]} ended with {done.returncode}: {(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def _add(archive: Path, folder: Path, names: Iterable[str], transform: str = "s,^,,S", *, owner: int = 0) -> None:
    """Append files to the archive, as an owner's; names are relative to the folder. None may come twice: docker refuses that."""
    call(
        "tar", "--append", "--hard-dereference", "--file", archive, "--directory", folder,
        "--verbatim-files-from", "--files-from", "-",
        "--transform", transform, "--numeric-owner", f"--owner={owner}", "--group=0",
        given="".join(f"{name}\n" for name in sorted(set(names))),
    )  # fmt: skip


def _write_system(folder: Path) -> None:
    for name, text in SYSTEM.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "tmp").mkdir()
    (folder / "tmp").chmod(0o1777)
    part = folder.parent / "wheels.lock"
    part.write_text("".join(each for each in _locked() if each.startswith(LEFT_OUT)))
    call(
        sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes", "--only-binary", ":all:",
        "-d", folder / "wheels", "-r", part,
    )  # fmt: skip


def _write_home(folder: Path) -> None:
    programs = folder / ENVIRONMENT / "bin"
    for path in (programs, folder / SITE_PACKAGES, folder / AIRFLOW / "logs"):
        path.mkdir(parents=True)
    (programs / "python").symlink_to(f"/usr/local/bin/{PYTHON}")
    (programs.parent / "pyvenv.cfg").write_text("home = /usr/local/bin\ninclude-system-site-packages = false\n")
    for name, module in {"airflow": "airflow.__main__", "pip": "pip._internal.cli.main"}.items():
        (programs / name).write_text(
            f"#!/{ENVIRONMENT}/bin/python\nimport sys\nfrom {module} import main\nsys.exit(main())\n"
        )
        (programs / name).chmod(0o755)


def _debian_files() -> Iterator[str]:
    """Yield the files of the wanted packages and of all that these need, by their paths without links among the folders."""
    needs, found, waiting = _dependencies(), set(), list(WANTED)
    while waiting:
        name = waiting.pop()
        if name not in found and name in needs:
            found.add(name)
            waiting += needs[name]
    lines = call("dpkg-query", "--listfiles", *sorted(found)).splitlines()
    paths = (Path(line) for line in lines if not NOT_WANTED.match(line) and line[1:] not in MERGED)
    yield from (str(path.parent.resolve() / path.name)[1:] for path in paths if path.is_symlink() or path.is_file())


def _dependencies() -> dict[str, list[str]]:
    """Return what each installed package depends on."""
    lines = call("dpkg-query", "--show", "--showformat", "${Package}\t${Pre-Depends}, ${Depends}\n").splitlines()
    pairs = (line.split("\t") for line in lines)
    return {name: re.findall(r"(?:^|[,|] *)([a-z0-9][a-z0-9.+-]+)", needs) for name, needs in pairs}


def _interpreter_files(prefix: Path) -> Iterator[str]:
    yield f"bin/{PYTHON}"
    yield from (str(path.relative_to(prefix)) for path in prefix.glob("lib/libpython*.so*"))
    for path in sorted((prefix / "lib" / PYTHON).rglob("*")):
        name = str(path.relative_to(prefix))
        if path.is_file() and not NOT_WANTED_OF_PYTHON.search(name):
            yield name


def _package_files(site_packages: Path) -> Iterator[str]:
    """Yield the files of each locked package that is installed here, and of pip, but for what is left out."""
    for each in {"pip", *(re.split(r"[=[]", locked)[0] for locked in _locked())} - set(LEFT_OUT):
        try:
            record = distribution(each).read_text("RECORD") or ""
        except PackageNotFoundError:  # locked for another platform; else the build's pip tells of it
            continue
        for name, *_ in csv.reader(record.splitlines()):
            if not re.search(r"^\.\./|/__pycache__/", name):
                yield name
                if name.endswith(".py") and (site_packages / cache_from_source(name)).exists():
                    yield cache_from_source(name)


def _locked() -> list[str]:
    return re.split(r"^(?=\S)", (PROJECT / "requirements.lock").read_text(), flags=re.MULTILINE)[1:]
