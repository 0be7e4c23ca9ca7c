"""The configuration's sample file, JSON Schema and reference page, all made from the models."""

from __future__ import annotations

import json
import textwrap
import types
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

import yaml
from pydantic_core import PydanticUndefined

from etcdkeep.config import CONFIG_VARIABLE, Cluster, ConfigFile
from etcdkeep.profiles import PROFILES, ControlPlane, Section

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

WIDTH = 110


def json_schema() -> str:
    """Return the JSON Schema of the file, for editors."""
    return json.dumps(ConfigFile.model_json_schema(), indent=2, sort_keys=True) + "\n"


def example() -> str:
    """Return a file that loads, with every setting in it: the required ones set, the others as comments at their defaults."""
    lines = [
        "# What etcdkeep backs up. Checked by `python -m etcdkeep config check`; every setting is explained in",
        "# docs/configuration.md. No key stands here: only connection ids, file paths and public keys.",
        "schema_version: 1",
        "",
        "# Beneath every cluster's own settings; any setting of a cluster may stand here.",
        "defaults:",
    ]
    for name in ("repository", "age_recipients", "age_identity", "signing"):
        lines += _set(name, Cluster.model_fields[name], "  ")
    lines += ["", "clusters:"]
    first = "  - "
    for name, field in Cluster.model_fields.items():
        if name in ("name", "profile", "kubeconfig"):
            lines += [
                f"{first}{line[4:]}" if index == 0 else line
                for index, line in enumerate(_set(name, field, "    ", comment=name != "name"))
            ]
            first = "    "
        elif name not in ("repository", "age_recipients", "age_identity", "signing"):
            lines += _commented(name, field, "    ")
    return "\n".join(lines) + "\n"


def reference() -> str:
    """Return the reference page, Markdown."""
    parts = [
        "# Configuration",
        "",
        f"One YAML file; `{CONFIG_VARIABLE}` holds its path. Generated from the models (`make docs`): do not edit.",
        "Unknown keys are errors; all errors are reported at once, each with its path. A cluster with an error has no DAGs;",
        "the others have theirs.",
        "",
        *_table("The file", ConfigFile),
        *_table("A cluster", Cluster),
    ]
    seen: dict[str, type[Section]] = {}
    for model in _sections(Cluster):
        seen.setdefault(model.__name__, model)
    for name, model in seen.items():
        if model is not ControlPlane:
            parts += _table(name, model)
    parts += [
        *_table("ControlPlane", ControlPlane),
        "## Profiles",
        "",
        "What each profile sets in `control_plane`; the rest is as in the table above.",
        "",
    ]
    for name, values in PROFILES.items():
        parts += [
            f"### {name}",
            "",
            "```yaml",
            yaml.safe_dump(values, sort_keys=False).strip() if values else "{}  # kubeadm's layout is the default",
            "```",
            "",
        ]
    return "\n".join(parts).rstrip() + "\n"


def _set(name: str, field: FieldInfo, indent: str, *, comment: bool = True) -> list[str]:
    text = yaml.safe_dump({name: _example(field)}, sort_keys=False, default_flow_style=False, width=200).strip()
    return [*(_comment(field, indent) if comment else []), *textwrap.indent(text, indent).splitlines()]


def _commented(name: str, field: FieldInfo, indent: str) -> list[str]:
    model = _model(field.annotation)
    if model is None or _alternatives(model):
        value = _default(field)
        text = yaml.safe_dump(
            {name: value if value not in (None, [], {}) else _example(field)}, sort_keys=False, width=200
        ).strip()
        return [*_comment(field, indent), *(f"{indent}# {line}" for line in text.splitlines())]
    lines = [*_comment(field, indent), f"{indent}# {name}:"]
    for inner, inner_field in model.model_fields.items():
        lines += [
            f"{indent}#   {line}" for line in (each.removeprefix("# ") for each in _commented(inner, inner_field, ""))
        ]
    return lines


def _comment(field: FieldInfo, indent: str) -> list[str]:
    return [f"{indent}# {line}" for line in textwrap.wrap(field.description or "", WIDTH - len(indent))]


def _alternatives(model: type[Section]) -> bool:
    return model.__name__.endswith("Ref")


def _example(field: FieldInfo) -> Any:
    if field.examples:
        return field.examples[0]
    model = _model(field.annotation)
    if model is not None:
        return {
            name: _example(inner) for name, inner in model.model_fields.items() if inner.examples or inner.is_required()
        }
    return _default(field)


def _default(field: FieldInfo) -> Any:
    value = (
        None
        if field.default is PydanticUndefined and field.default_factory is None
        else field.get_default(call_default_factory=True, validated_data={})
    )
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return {key: _plain(inner) for key, inner in value if inner is not None}
    if isinstance(value, tuple):
        return [_plain(inner) for inner in value]
    return dict(value) if isinstance(value, Mapping) else value


def _table(title: str, model: type[Section]) -> list[str]:
    rows = [
        f"## {title}",
        "",
        " ".join((model.__doc__ or "").split()),
        "",
        "| setting | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in model.model_fields.items():
        inner = _model(field.annotation)
        default = (
            "**required**"
            if field.is_required()
            else f"see {inner.__name__}"
            if inner and _default(field)
            else f"`{json.dumps(_default(field))}`"
        )
        example = f" Example: `{json.dumps(field.examples[0], ensure_ascii=False)}`." if field.examples else ""
        rows.append(f"| `{name}` | {default} | {field.description or ''}{example} |".replace("|0", "\\|0"))
    return [*rows, ""]


def _sections(model: type[Section]) -> Iterator[type[Section]]:
    for field in model.model_fields.values():
        inner = _model(field.annotation)
        if inner is not None:
            yield inner
            yield from _sections(inner)


def _model(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType):
        return next((model for model in map(_model, get_args(annotation)) if model), None)
    return None
