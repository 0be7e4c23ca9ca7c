"""
Cut the values schema of Airflow's Helm chart down to what deploy/values.yaml sets: python tools/chart_schema.py SCHEMA VERSION

The chart's own schema has 14,000 lines. What is left here is word for word of it for every key that our file has, without
descriptions and defaults; a key that the chart does not know ends this with an error. The chart lets a worker set hold anything and
merges it over `workers.celery`: so it is checked as that, and may have no other key.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import yaml

PROJECT = Path(__file__).resolve().parent.parent
VALUES = PROJECT / "deploy/values.yaml"
TARGET = PROJECT / "tests/data/chart/values.schema.json"
KEPT = ("type", "enum", "pattern", "minProperties", "required", "additionalProperties")
Schema = dict[str, Any]


def cut(schema: Schema, values: list[Any], definitions: Schema) -> Schema:
    """Return what a schema says of these values; references are replaced by what they refer to."""
    if "$ref" in schema:
        named = definitions[schema["$ref"].removeprefix("#/definitions/")]
        schema = {**named, **{key: value for key, value in schema.items() if key != "$ref"}}
    kept = {key: schema[key] for key in KEPT if key in schema}
    known: Schema = schema.get("properties", {})
    fields = [field for value in values if isinstance(value, dict) for field in value.items()]
    used = {name: [value for key, value in fields if key == name] for name, _ in fields}
    if properties := {name: cut(known[name], used[name], definitions) for name in sorted(used.keys() & known.keys())}:
        kept["properties"] = properties
    others = [value for name in used.keys() - known.keys() for value in used[name]]
    if isinstance(schema.get("additionalProperties"), dict):
        kept["additionalProperties"] = cut(schema["additionalProperties"], others, definitions)
    if "items" in schema:
        elements = [element for value in values if isinstance(value, list) for element in value]
        kept["items"] = cut(schema["items"], elements, definitions)
    return kept


def with_worker_sets(schema: Schema) -> Schema:
    """Return the chart's schema where each worker set is checked as `workers.celery`, and has a name."""
    celery = schema["properties"]["workers"]["properties"]["celery"]
    fields = {name: value for name, value in celery["properties"].items() if name != "sets"}
    one = {**celery, "properties": {**fields, "name": {"type": "string"}}, "required": ["name"]}
    one["additionalProperties"] = False
    celery["properties"]["sets"]["items"] = one
    return schema


def main(source: Path, version: str) -> None:
    """Check our values against the whole schema, and write what is left of it."""
    schema, values = with_worker_sets(json.loads(source.read_text())), yaml.safe_load(VALUES.read_text())
    jsonschema.Draft7Validator(schema).validate(values)
    small = {
        "$comment": f"of the Helm chart of Apache Airflow {version}; see NOTICE",
        **cut(schema, [values], schema["definitions"]),
    }
    small["additionalProperties"] = False
    jsonschema.Draft7Validator(small).validate(values)
    TARGET.write_text(json.dumps(small, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
