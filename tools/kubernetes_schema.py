"""
Write the table that ``etcdkeep.objects`` decodes by, from the sources that Debian ships.

    python tools/kubernetes_schema.py -o include/etcdkeep/objects/decoding/schema.json SOURCE...

A source is a ``.deb`` (``golang-k8s-api-dev``, ``golang-k8s-apimachinery-dev``) or the ``.orig.tar.gz`` of Debian's
``kubernetes``, oldest release first: ``apt-get download PACKAGE=VERSION`` or ``apt-get source --download-only`` bring
them. Field numbers and types come from each ``generated.proto``, JSON names and the rules of leaving out from the
struct tags of the Go types beside it. Releases are merged: a field or kind that a newer release has dropped stays,
and where two releases say different things of one field the newest counts; each such place is printed. What came and went
between the releases that Debian keeps is in ``kubernetes_schema_gone.json``, read off the test vectors
(``testdata/v1.*``) of the same packages; a field in it never replaces one of the sources.

In the table a field reads ``number name type rule``: see ``include/etcdkeep/objects/decoding/schema.py``.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE_PATH = re.compile(r"(k8s\.io/(?:api|apimachinery|kube-aggregator)/.+)/([^/]+)$")
WANTED_FILE = re.compile(r"generated\.proto|(?!zz_|generated|.*_test\.go).*\.go")
PROTO_PACKAGE = re.compile(r"^package ([\w.]+);", re.MULTILINE)
PROTO_MESSAGE = re.compile(r"^message (\w+) \{(.*?)^\}", re.MULTILINE | re.DOTALL)
PROTO_FIELD = re.compile(r"^\s*(?:optional|required|(repeated)|(?=map<))\s*([\w.]+|map<[^>]+>)\s+(\w+) = (\d+)", re.M)
GO_STRUCT = re.compile(r"^(?:type )?\s?(\w+) struct \{(.*?)^\s?\}", re.MULTILINE | re.DOTALL)
GO_FIELD = re.compile(r"^\s*(?:(\w+)\s+)?(\S+)\s+`([^`]*)`", re.MULTILINE)
GO_GROUP = re.compile(r'GroupName\s*=\s*"([^"]*)"')
GO_KNOWN = re.compile(r"&(\w+)\{\}")
GO_NAMED_LIST = re.compile(r"^type (\w+) \[\]string", re.MULTILINE)
COMMENT = re.compile(r"^\s*//.*$|(?<=[\s`])//[^\n`]*$", re.MULTILINE)
TAG = re.compile(r'(json|protobuf):"([^"]*)"')

# Only what etcd can hold matters: these are answers, requests and options, never stored.
NEVER_STORED = re.compile(
    r"(List|Options|Review)$|^(Binding|ComponentStatus|DeploymentRollback|EphemeralContainers|Eviction|PodStatusResult"
    r"|Scale|TokenRequest|APIGroupDiscovery|PartialObjectMetadata|Carp|JobTemplate)$"
)
# These print themselves, and no stored kind has one so far.
CUSTOM_JSON = {"meta.v1.Duration", "meta.v1.Verbs", "meta.v1.GroupVersion"}
# The envelope of every stored message, and what all kinds have in common.
NOT_KINDS = ("runtime.Unknown", "meta.v1.PartialObjectMetadata")
METADATA = "meta.v1.ObjectMeta"


@dataclass
class Package:
    """One directory of the Go sources."""

    proto: str = ""
    go: list[str] = field(default_factory=list)


@dataclass
class Table:
    """What the shipped file holds: API version and kind → message, message → its fields by number."""

    kinds: dict[str, str] = field(default_factory=dict)
    messages: dict[str, dict[int, str]] = field(default_factory=dict)


def source_files(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (path inside, text) of every file of a .deb or tar archive that matters."""
    data = path.read_bytes()
    if path.suffix == ".deb":
        data = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(path)], check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            place = PACKAGE_PATH.search(member.name)
            if place and WANTED_FILE.fullmatch(place[2]) and (stream := archive.extractfile(member)):
                yield member.name, stream.read().decode()


def read_packages(path: Path) -> dict[str, Package]:
    """Return the Go packages of one source by import path."""
    packages: dict[str, Package] = {}
    for name, text in source_files(path):
        package_path, file_name = name.rsplit("/", 1)
        package = packages.setdefault(package_path[package_path.index("k8s.io/") :], Package())
        bare = COMMENT.sub("", text)
        if file_name == "generated.proto":
            package.proto = bare
        else:
            package.go.append(bare)
    return packages


def short(name: str) -> str:
    """Return a message's name without what all of them share: ``core.v1.Pod``, ``meta.v1.Time``."""
    name = name.lstrip(".")
    for prefix in ("k8s.io.apimachinery.pkg.apis.", "k8s.io.apimachinery.pkg.api.", "k8s.io.apimachinery.pkg.util."):
        name = name.removeprefix(prefix)
    name = name.removeprefix("k8s.io.kube_aggregator.pkg.apis.").removeprefix("k8s.io.apimachinery.pkg.")
    return name.removeprefix("k8s.io.api.")


def go_tags(package: Package) -> dict[tuple[str, int], tuple[bool, str]]:
    """Return (is a pointer, JSON tag) of every field by (struct, field number)."""
    tags: dict[tuple[str, int], tuple[bool, str]] = {}
    for text in package.go:
        for struct, body in GO_STRUCT.findall(text):
            for _, go_type, raw in GO_FIELD.findall(body):
                values = dict(TAG.findall(raw))
                if "protobuf" in values and "json" in values:
                    number = int(values["protobuf"].split(",")[1])
                    tags[struct, number] = go_type.startswith("*"), values["json"]
    return tags


def field_type(repeated: str, declared: str, home: str, known: set[str]) -> str:
    """Return a proto field's type in the table's words."""

    def resolve(name: str) -> str:
        name = name.strip()
        return f"{home}.{name}" if name in known else short(name)

    if declared.startswith("map<"):
        key, value = declared[4:-1].split(",")
        if key.strip() != "string":
            raise SystemExit(f"{home}: a map with keys of type {key} is new; teach schema.py about it")
        return f"map:{resolve(value)}"
    return ("list:" if repeated else "") + resolve(declared)


def add_package(table: Table, path: str, package: Package, release: str) -> None:
    """Merge one package into the table."""
    declared = PROTO_PACKAGE.search(package.proto)
    if declared is None:
        return
    home = short(declared[1])
    tags = go_tags(package)
    messages = PROTO_MESSAGE.findall(package.proto)
    known = {name for name, _ in messages}
    named_lists = {name for text in package.go for name in GO_NAMED_LIST.findall(text)}
    for message, body in messages:
        fields = table.messages.setdefault(f"{home}.{message}", {})
        for repeated, proto_type, proto_name, number_text in PROTO_FIELD.findall(body):
            number = int(number_text)
            pointer, tag = tags.get((message, number), (False, proto_name))
            json_name, *rules = tag.split(",")
            kind = field_type(repeated, proto_type, home, known)
            if "inline" in rules or not json_name or message in named_lists:
                rule = "inline"
            else:
                rule = ("pointer " if pointer else "") + " ".join(r for r in rules if r in ("omitempty", "omitzero"))
            line = f"{number} {json_name or proto_name} {kind} {rule}".strip()
            before = fields.get(number)
            if before is not None and before != line:
                print(f"{release}: {home}.{message}: {before!r} is now {line!r}", file=sys.stderr)
            fields[number] = line
    add_kinds(table, path, package, home)


def add_kinds(table: Table, path: str, package: Package, home: str) -> None:
    """Register every kind of the package that has object metadata and is stored."""
    groups = [name for text in package.go for name in GO_GROUP.findall(text)]
    if not groups:
        return
    version = path.rsplit("/", 1)[1]
    api_version = f"{groups[0]}/{version}" if groups[0] else version
    for kind in {name for text in package.go for name in GO_KNOWN.findall(text)}:
        message = f"{home}.{kind}"
        first = table.messages.get(message, {}).get(1, "")
        if METADATA in first and not NEVER_STORED.search(kind):
            table.kinds[f"{api_version} {kind}"] = message


def add_gone(table: Table, gone: dict[str, dict[str, Any]]) -> None:
    """Add what no source of the table has any more."""
    table.kinds = {**gone["kinds"], **table.kinds}
    for message, lines in gone["messages"].items():
        fields = table.messages.setdefault(message, {})
        for line in lines:
            fields.setdefault(int(line.split()[0]), line)


def reachable(table: Table) -> Table:
    """Return the table with only the messages that a stored kind needs."""
    wanted: set[str] = set()
    queue = [*table.kinds.values(), *NOT_KINDS]
    while queue:
        message = queue.pop()
        if message not in wanted and message in table.messages:
            wanted.add(message)
            queue += [line.split()[2].rpartition(":")[2] for line in table.messages[message].values()]
    return Table(table.kinds, {name: table.messages[name] for name in wanted})


def refuse_unknown_rules(table: Table) -> None:
    """Stop when the table says something that ``etcdkeep.objects.decoding.go_json`` has not been taught."""
    scalars = {"string", "bytes", "bool", "int32", "int64"}
    for message, fields in table.messages.items():
        for line in fields.values():
            kind, *rules = line.split()[2:]
            if "." not in kind and kind.rpartition(":")[2] not in scalars:
                raise SystemExit(f"{message}: {line!r} has a new type; teach go_json.py and schema.py about it")
            if "omitzero" in rules and kind != "meta.v1.Time":
                raise SystemExit(f"{message}: {line!r} has omitzero on a {kind}; teach go_json.py about it")
    for message in CUSTOM_JSON & table.messages.keys():
        raise SystemExit(f"{message} prints its JSON itself; teach go_json.py about it")


def render(table: Table, sources: list[Path]) -> str:
    """Return the file's text: JSON, one message a line, so that a change of one field shows as one."""
    lines = [f" {json.dumps(kind)}: {json.dumps(message)}" for kind, message in sorted(table.kinds.items())]
    messages = [
        f" {json.dumps(name)}: {json.dumps([fields[number] for number in sorted(fields)])}"
        for name, fields in sorted(table.messages.items())
    ]
    return (
        f'{{"sources": {json.dumps([path.name for path in sources])},\n'
        + '"kinds": {\n' + ",\n".join(lines) + '},\n"messages": {\n' + ",\n".join(messages) + "}}\n"
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--gone", type=Path, default=Path(__file__).with_name("kubernetes_schema_gone.json"))
    parser.add_argument("sources", type=Path, nargs="+")
    arguments = parser.parse_args()
    table = Table()
    for source in arguments.sources:
        for path, package in sorted(read_packages(source).items()):
            add_package(table, path, package, source.name)
    add_gone(table, json.loads(arguments.gone.read_text()))
    table = reachable(table)
    refuse_unknown_rules(table)
    arguments.output.write_text(render(table, arguments.sources))
    print(f"{len(table.kinds)} kinds, {len(table.messages)} messages", file=sys.stderr)


if __name__ == "__main__":
    main()
