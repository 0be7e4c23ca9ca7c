"""What crictl says of the containers of the node that this runs on, in crictl's own words."""

import argparse
import contextlib
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

CONTAINERS = Path("/proc/self/fd/60/containers")
NAMES = {"CONTAINER_RUNNING": "Running", "CONTAINER_EXITED": "Exited", "CONTAINER_CREATED": "Created"}


def states():
    found = []
    for path in CONTAINERS.glob("*/*/state.json"):
        with contextlib.suppress(FileNotFoundError):  # a pod is being removed
            found.append(json.loads(path.read_text()))
    return sorted(found, key=lambda state: -state["created_at"])


def find(prefix):
    matches = [state for state in states() if state["id"].startswith(prefix)]
    if not matches:
        sys.exit(
            f'FATA[0000] rpc error: code = NotFound desc = an error occurred when try to find container "{prefix}": not found'
        )
    return matches[0]


def nanoseconds(moment):
    return str(int(moment * 1e9))


def entry(state):
    labels = {
        "container.name": state["name"],
        "pod.name": state["pod"],
        "pod.namespace": state["namespace"],
        "pod.uid": state["pod_uid"],
    }
    return {
        "id": state["id"],
        "podSandboxId": state["pod_uid"].replace("-", ""),
        "metadata": {"name": state["name"], "attempt": state["attempt"]},
        "image": {"image": state["image"]},
        "imageRef": state["image"],
        "state": state["state"],
        "createdAt": nanoseconds(state["created_at"]),
        "labels": {f"io.kubernetes.{key}": value for key, value in labels.items()},
        "annotations": {},
    }


def ps(options):
    chosen = [state for state in states() if options.all or state["state"] == "CONTAINER_RUNNING"]
    chosen = [state for state in chosen if re.search(options.name, state["name"])]
    if options.state:
        chosen = [state for state in chosen if NAMES[state["state"]].lower() == options.state.lower()]
    if options.label:
        key, _, value = options.label.partition("=")
        chosen = [state for state in chosen if entry(state)["labels"].get(key) == value]
    if options.quiet:
        print("".join(state["id"] + "\n" for state in chosen), end="")
    elif options.output == "json":
        print(json.dumps({"containers": [entry(state) for state in chosen]}, indent=2))
    else:
        rows = [("CONTAINER", "IMAGE", "CREATED", "STATE", "NAME", "ATTEMPT", "POD ID", "POD", "NAMESPACE")]
        for state in chosen:
            age = f"{int(time.time() - state['created_at'])} seconds ago"
            ids = state["id"][:13], state["image"], age, NAMES[state["state"]], state["name"], str(state["attempt"])
            rows.append((*ids, state["pod_uid"].replace("-", "")[:13], state["pod"], state["namespace"]))
        table(rows)


def sandboxes():
    """Return the pods of the node, newest first: a pod is one folder, whose containers come and go."""
    by_uid = {}
    for state in states():
        by_uid.setdefault(state["pod_uid"], state)
    return list(by_uid.values())


def sandbox(state):
    return {
        "id": state["pod_uid"].replace("-", ""),
        "metadata": {"name": state["pod"], "uid": state["pod_uid"], "namespace": state["namespace"], "attempt": 0},
        "state": "SANDBOX_READY",
        "createdAt": nanoseconds(state["created_at"]),
        "labels": {key: value for key, value in entry(state)["labels"].items() if not key.endswith("container.name")},
        "annotations": {"kubernetes.io/config.source": state["source"]},
        "runtimeHandler": "",
    }


def pods(options):
    chosen = [state for state in sandboxes() if options.state.lower() in ("", "ready")]
    chosen = [state for state in chosen if re.search(options.name, state["pod"])]
    chosen = [state for state in chosen if re.search(options.namespace, state["namespace"])]
    if options.quiet:
        print("".join(sandbox(state)["id"] + "\n" for state in chosen), end="")
    elif options.output == "json":
        print(json.dumps({"items": [sandbox(state) for state in chosen]}, indent=2))
    else:
        rows = [("POD ID", "CREATED", "STATE", "NAME", "NAMESPACE", "ATTEMPT", "RUNTIME")]
        for state in chosen:
            age = f"{int(time.time() - state['created_at'])} seconds ago"
            rows.append((sandbox(state)["id"][:13], age, "Ready", state["pod"], state["namespace"], "0", "(default)"))
        table(rows)


def table(rows):
    widths = [max(map(len, column)) for column in zip(*rows, strict=False)]
    for row in rows:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip())


def inspect(options):
    for prefix in options.ids:
        state = find(prefix)
        log = f"{state['folder']}/log"
        status = entry(state) | {
            "startedAt": nanoseconds(state["started_at"]),
            "finishedAt": nanoseconds(state["finished_at"]),
            "exitCode": state["exit_code"],
            "reason": "" if state["state"] == "CONTAINER_RUNNING" else "Completed",
            "logPath": log,
            "mounts": [],
        }
        pid = state["pid"] if state["state"] == "CONTAINER_RUNNING" else 0
        process = {"args": state["command"], "env": [f"{key}={value}" for key, value in state["env"].items()]}
        spec = {"process": process, "root": {"path": "/"}}
        print(
            json.dumps(
                {"status": status, "info": {"pid": pid, "sandboxID": status["podSandboxId"], "runtimeSpec": spec}},
                indent=2,
            )
        )


def logs(options):
    state = find(options.ids[0])
    lines = Path(state["folder"], "log").read_text(errors="replace").splitlines(True)
    sys.stdout.write("".join(lines[-options.tail :] if options.tail >= 0 else lines))


def stop(options):
    for prefix in options.ids:
        state = find(prefix)
        deadline = time.monotonic() + options.timeout
        kill(state, signal.SIGTERM)
        while any(other["id"] == state["id"] and other["state"] == "CONTAINER_RUNNING" for other in states()):
            if time.monotonic() > deadline:
                kill(state, signal.SIGKILL)
            time.sleep(0.02)
        print(prefix)


def remove(options):
    for prefix in options.ids:
        state = find(prefix)
        if state["state"] == "CONTAINER_RUNNING":
            sys.exit(f'ERRO[0000] container "{prefix}" is running, please stop it first')
        for path in CONTAINERS.glob("*/*/state.json"):
            with contextlib.suppress(FileNotFoundError):
                if json.loads(path.read_text())["id"] == state["id"]:
                    path.unlink()
        print(prefix)


def kill(state, number):
    if state["state"] == "CONTAINER_RUNNING":
        with contextlib.suppress(ProcessLookupError):
            os.kill(state["pid"], number)


def version(options):
    print("Version:  0.1.0\nRuntimeName:  containerd\nRuntimeVersion:  2.1.4\nRuntimeApiVersion:  v1")


def main():
    parser = argparse.ArgumentParser(prog="crictl")
    parser.add_argument("--runtime-endpoint", "-r")
    parser.add_argument("--timeout", dest="connect")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("ps")
    command.set_defaults(run=ps)
    command.add_argument("-a", "--all", action="store_true")
    command.add_argument("-q", "--quiet", action="store_true")
    command.add_argument("-o", "--output", default="table")
    command.add_argument("--name", default="")
    command.add_argument("--state", "-s", default="")
    command.add_argument("--label", default="")
    command.add_argument("--no-trunc", action="store_true")
    command = commands.add_parser("pods")
    command.set_defaults(run=pods)
    command.add_argument("-q", "--quiet", action="store_true")
    command.add_argument("-o", "--output", default="table")
    command.add_argument("--name", default="")
    command.add_argument("--namespace", default="")
    command.add_argument("--state", "-s", default="")
    command = commands.add_parser("inspect")
    command.set_defaults(run=inspect)
    command.add_argument("-o", "--output", default="json")
    command.add_argument("ids", nargs="+")
    command = commands.add_parser("logs")
    command.set_defaults(run=logs)
    command.add_argument("--tail", type=int, default=-1)
    command.add_argument("ids", nargs=1)
    command = commands.add_parser("stop")
    command.set_defaults(run=stop)
    command.add_argument("-t", "--timeout", type=float, default=0)
    command.add_argument("ids", nargs="+")
    command = commands.add_parser("rm")
    command.set_defaults(run=remove)
    command.add_argument("ids", nargs="+")
    commands.add_parser("version").set_defaults(run=version)
    options = parser.parse_args()
    if os.environ.get("LAB_ROOT_USER") != "1":
        sys.exit(
            "FATA[0000] validate service connection: validate CRI v1 runtime API for endpoint "
            '"unix:///run/containerd/containerd.sock": dial unix: connect: permission denied'
        )
    options.run(options)


main()
