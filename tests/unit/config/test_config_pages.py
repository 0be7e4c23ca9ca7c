"""The pages made from the models: current, complete, and true."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import jsonschema
import pytest
import yaml

from etcdkeep.config import pages as config_pages
from etcdkeep.config.loading import parse_config
from etcdkeep.config.models import Cluster, ConfigFile
from etcdkeep.config.profiles import ControlPlane, Section
from tests.builders import make_entry

PROJECT = Path(__file__).parents[3]
PAGES = runpy.run_path(str(PROJECT / "tools/generate_docs.py"))["PAGES"]
MODELS = {model.__name__: model for model in (ConfigFile, Cluster, ControlPlane, *config_pages._sections(Cluster))}


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_current(name):
    assert (PROJECT / name).read_text(encoding="utf-8") == PAGES[name](), "run `make docs`"


def test_the_sample_loads_and_names_every_setting():
    text = config_pages.example()
    config = parse_config(text, "sample")
    config.raise_for_problems()
    assert len(config.clusters) == 1
    for model in (model for model in MODELS.values() if not config_pages._alternatives(model)):
        for name in model.model_fields:
            assert f"{name}:" in text, f"{model.__name__}.{name}"


def test_the_sample_loads_with_all_its_comments_taken_as_settings():
    setting = re.compile(rf"^    # (?=( .*|- .*|({'|'.join(Cluster.model_fields)}):.*)$)", re.MULTILINE)
    document = yaml.safe_load(setting.sub("    ", config_pages.example()))
    (entry,) = document["clusters"]
    assert set(entry) | set(config_pages.BENEATH) == set(Cluster.model_fields)
    del entry["admin_cluster"], entry["own_kubeconfig"]  # only for another kind of cluster
    assert parse_config(yaml.safe_dump(document), "sample").problems == ()


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_every_setting_has_a_description_and_where_it_helps_an_example(model):
    for name, field in model.model_fields.items():
        assert field.description, f"{model.__name__}.{name}"
        inner = config_pages._model(field.annotation)
        described_elsewhere = inner is not None or name in ("clusters", "defaults") or model.__name__ == "EtcdTls"
        assert field.examples or described_elsewhere, f"{model.__name__}.{name} has no example"
    if issubclass(model, Section):
        assert model.__doc__


def test_the_reference_names_every_setting_of_every_section():
    page = config_pages.reference()
    for model in MODELS.values():
        for name in model.model_fields:
            assert f"| `{name}` |" in page, f"{model.__name__}.{name}"


def test_the_schema_takes_what_loads_and_refuses_an_unknown_key():
    schema = json.loads(config_pages.json_schema())
    jsonschema.validate(yaml.safe_load(config_pages.example()), schema)
    jsonschema.validate({"schema_version": 1, "clusters": [make_entry()]}, schema)
    for wrong in (
        {"clusters": [{"name": "a", "shedule": "x"}]},
        {"clusters": [], "defaults": {"name": "a"}},
        {"clusters": [{}]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"schema_version": 1, **wrong}, schema)
