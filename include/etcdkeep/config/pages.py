"""The configuration's sample file, JSON Schema and reference page, all made from the models."""

from __future__ import annotations

import json
import textwrap
import types
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

import yaml
from pydantic_core import PydanticUndefined

from etcdkeep.config.loading import CONFIG_VARIABLE
from etcdkeep.config.models import Cluster, ConfigFile
from etcdkeep.config.profiles import PROFILES, ControlPlane, Section

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

WIDTH = 110
BENEATH = ("repository", "age_recipients", "age_identity", "signing")
"""Settings that the sample gives once for all clusters."""

SET = ("name", "profile", "kubeconfig")
"""Settings that the sample gives its cluster; the others stand there as comments."""


ASIDE = ("connection", "key_passphrase_file", "password_file")
"""Settings of a host that stay comments when their section is taken out of its comment."""


def json_schema() -> str:
    """Return the JSON Schema of the file, for editors. What the defaults may hold instead is not required of a cluster."""
    schema = ConfigFile.model_json_schema()
    models = schema["$defs"]
    for model in models.values():
        model.pop("required", None)
    settings = {name: setting for name, setting in models["Cluster"]["properties"].items() if name != "name"}
    models["Cluster"]["required"] = ["name"]
    models["Defaults"] = {"type": "object", "properties": settings, "additionalProperties": False}
    schema["properties"]["defaults"] = {
        "$ref": "#/$defs/Defaults",
        "description": ConfigFile.model_fields["defaults"].description,
    }
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def example() -> str:
    """Return a file that loads, with every setting in it: the required ones set, the others as comments at their defaults."""
    lines = [
        "# What etcdkeep backs up. Checked by `python -m etcdkeep config check`; every setting is explained in",
        "# docs/configuration.md. This file holds no secret: only connection ids, file paths and public keys.",
        "schema_version: 1",
        *_commented("housekeeping_schedule", ConfigFile.model_fields["housekeeping_schedule"], ""),
        "",
        "# Defaults for every cluster; any setting of a cluster may be given here.",
        "defaults:",
    ]
    for name in BENEATH:
        lines += _set(name, Cluster.model_fields[name], "  ")
    lines += ["", "clusters:"]
    for name, field in Cluster.model_fields.items():
        if name in SET:
            lines += _set(name, field, "    ")
        elif name not in BENEATH:
            lines += _commented(name, field, "    ")
    lines[lines.index("clusters:") + 2] = lines[lines.index("clusters:") + 2].replace("    name", "  - name")
    return "\n".join(lines) + "\n"


def reference() -> str:
    """Return the reference page, Markdown."""
    parts = [
        "# Configuration",
        "",
        f"One YAML file; `{CONFIG_VARIABLE}` holds its path. Generated from the models (`make docs`). Do not edit it.",
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


def _set(name: str, field: FieldInfo, indent: str) -> list[str]:
    return [*_comment(field, indent), *textwrap.indent(_yaml({name: _example(field)}), indent).splitlines()]


def _commented(name: str, field: FieldInfo, indent: str) -> list[str]:
    return [*_comment(field, indent), *(f"{indent}# {line}" for line in _setting(name, field))]


def _setting(name: str, field: FieldInfo) -> list[str]:
    """Return a setting at its default, or its example where the default is empty, with what is inside it explained."""
    model = _model(field.annotation)
    if model is not None and not _alternatives(model):
        inner = [
            line for key, value in model.model_fields.items() for line in (*_comment(value, ""), *_inner(key, value))
        ]
        return [f"{name}:", *(f"  {line}" for line in inner)]
    value = _default(field)
    return _yaml({name: value if value not in (None, "", [], {}) else _example(field)}).splitlines()


def _inner(name: str, field: FieldInfo) -> list[str]:
    """Return a setting of a section; one that few need, or that takes the place of others, stays a comment."""
    lines = _setting(name, field)
    return [f"# {line}" for line in lines] if name in ASIDE else lines


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, default_flow_style=False, width=200, allow_unicode=True).strip()


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
        rows.append(f"| `{name}` | {default} | {field.description or ''}{example} |")
    return [*rows, ""]


def _sections(model: type[Section]) -> Iterator[type[Section]]:
    for field in model.model_fields.values():
        inner = _model(field.annotation) or _element(field.annotation)
        if inner is not None:
            yield inner
            yield from _sections(inner)


def _model(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType):
        return next((model for model in map(_model, get_args(annotation)) if model), None)
    return None


def _element(annotation: Any) -> type[Section] | None:
    """Return the model of a list's entries."""
    return _model(get_args(annotation)[0]) if get_origin(annotation) is tuple else None
