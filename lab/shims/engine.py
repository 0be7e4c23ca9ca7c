"""
What docker, nerdctl and ctr do on a node, as far as a restore needs them: list images, run one, find and remove containers.

A container is a process with the image's programs on its PATH. There is no mount namespace, so a folder can only be
seen in it at the path that it has on the node (``-v /x:/x``); anything else is refused.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

VIEW_FD = 60
VIEW = Path(f"/proc/self/fd/{VIEW_FD}")
IMAGES = VIEW / "images"
STATE = VIEW / "run/engine"
REFUSED = 125


def fail(message, code=REFUSED):
    print(message, file=sys.stderr)
    sys.exit(code)


def images():
    """Return reference → folder of the programs."""
    return {path.read_text().strip(): path.with_suffix("") for path in IMAGES.glob("*.ref")}


def image_id(reference):
    return f"sha256:{hashlib.sha256(reference.encode()).hexdigest()}"


def find_image(name):
    return next(
        (programs for reference, programs in images().items() if name in (reference, image_id(reference))), None
    )


def image_ls(words):
    shown = "{0} {1}" if "{{.ID}}" in " ".join(words) else "{0}"
    print("".join(f"{shown.format(reference, image_id(reference))}\n" for reference in sorted(images())), end="")


def run(words):
    parser = argparse.ArgumentParser(prog="run")
    for flag in ("--rm", "--privileged"):
        parser.add_argument(flag, action="store_true")
    for flag in ("--name", "--network", "--pull", "--user", "--security-opt", "--entrypoint", "--workdir"):
        parser.add_argument(flag)
    for flag in (("-v", "--volume"), ("--mount",), ("-e", "--env")):
        parser.add_argument(*flag, action="append", default=[])
    parser.add_argument("image")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(words)
    start(options.name or f"engine-{os.getpid()}", options, options.command)


def ctr_run(words):
    parser = argparse.ArgumentParser(prog="run")
    parser.add_argument("--rm", action="store_true")
    parser.add_argument("--user")
    for flag in ("--mount", "--env"):
        parser.add_argument(flag, action="append", default=[])
    parser.add_argument("image")
    parser.add_argument("name")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(words)
    options.volume, options.entrypoint = [], None
    start(options.name, options, options.command)


def start(name, options, command):
    programs = find_image(options.image)
    if programs is None:
        fail(f"Unable to find image '{options.image}' locally: pull access denied or no network")
    mounts = [tuple(volume.split(":")[:2]) for volume in options.volume]
    for mount in options.mount:
        fields = dict(field.partition("=")[::2] for field in mount.split(","))
        mounts.append((fields.get("src") or fields.get("source"), fields.get("dst") or fields.get("target")))
    if any(source != target for source, target in mounts):
        fail(f"the lab cannot mount a folder at another path: {mounts}")
    command = [options.entrypoint, *command] if options.entrypoint else command
    program = programs / command[0].removeprefix("/bin/").removeprefix("/usr/bin/") if command else None
    if program is None or not program.exists():
        fail(f'exec: "{command[0] if command else ""}": executable file not found in $PATH', 127)
    STATE.mkdir(parents=True, exist_ok=True)
    record = STATE / name
    try:
        with open(record, "x") as file:
            json.dump({"pid": os.getpid(), "image": options.image}, file)
    except FileExistsError:
        fail(f'Conflict. The container name "/{name}" is already in use')
    environment = {
        "PATH": os.path.realpath(programs),
        "HOME": "/",
        **dict(pair.partition("=")[::2] for pair in options.env),
    }
    # Its output goes through this client, so that a killed client leaves a container that holds nobody's pipes.
    child = subprocess.Popen(
        command, executable=os.path.realpath(program), env=environment, start_new_session=True, pass_fds=(VIEW_FD,),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    record.write_text(json.dumps({"pid": child.pid, "image": options.image}))
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    relays = [threading.Thread(target=shutil.copyfileobj, args=pair) for pair in (
        (child.stdout, sys.stdout.buffer), (child.stderr, sys.stderr.buffer),
    )]  # fmt: skip
    for relay in relays:
        relay.start()
    code = child.wait()
    for relay in relays:
        relay.join()
    if options.rm:
        record.unlink(missing_ok=True)
    sys.exit(code if code >= 0 else 128 - code)


def ps(words):
    parser = argparse.ArgumentParser(prog="ps")
    parser.add_argument("-a", "--all", action="store_true")
    parser.add_argument("-q", "--quiet", action="store_true")
    parser.add_argument("--filter", "-f", default="name=")
    wanted = parser.parse_args(words).filter.partition("=")[2]
    print("".join(f"{path.name}\n" for path in sorted(STATE.glob("*")) if re.search(wanted, path.name)), end="")


def ctr_ls(words):
    wanted = words[-1].partition("==")[2]
    print("".join(f"{path.name}\n" for path in STATE.glob("*") if path.name == wanted), end="")


def remove(words):
    for name in words:
        record = STATE / name
        if name.startswith("-") or not record.exists():
            continue
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(json.loads(record.read_text())["pid"], signal.SIGKILL)
        record.unlink(missing_ok=True)


def version(words):
    print("27.0.3-lab")


DOCKER = {
    ("image", "ls"): image_ls,
    ("images",): image_ls,
    ("run",): run,
    ("ps",): ps,
    ("rm",): remove,
    ("kill",): remove,
    ("version",): version,
    ("info",): version,
}
CTR = {
    ("images", "ls"): image_ls,
    ("run",): ctr_run,
    ("containers", "ls"): ctr_ls,
    ("task", "kill"): remove,
    ("tasks", "kill"): remove,
    ("tasks", "rm"): remove,
    ("containers", "rm"): remove,
    ("containers", "delete"): remove,
    ("version",): version,
}


def main():
    engine, *words = sys.argv[1:]
    if os.environ.get("LAB_ROOT_USER") != "1":
        fail("permission denied while trying to connect to the daemon socket", 1)
    while words[:1] in (["--namespace"], ["-n"]):
        words = words[2:]
    commands = CTR if engine == "ctr" else DOCKER
    for verb, command in commands.items():
        if tuple(words[: len(verb)]) == verb:
            return command(words[len(verb) :])
    return fail(f"{engine}: the lab does not know {' '.join(words)!r}", 1)


main()
