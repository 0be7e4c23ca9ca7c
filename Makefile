# `make demo` and `make test` do all their own set-up; nothing needs root.
SHELL := bash
PYTHON ?= python3
IMAGE ?= etcdkeep
EXECUTOR ?= local
BIN := .venv/bin
export ETCDKEEP_CONFIG ?= $(CURDIR)/.lab/clusters.yaml

.PHONY: demo help up down test bench lint docs acceptance image package lock clean

demo: .venv/ready  ## lab, Airflow, a verified backup of two clusters, and what to do next
	$(BIN)/python -m demo run

help:  ## the targets, in one line each
	@sed -nE 's/^([a-z-]+):.*  ## /\1: /p' Makefile

up: .venv/ready  ## make up [EXECUTOR=celery]: the lab and Airflow's UI on loopback; celery: as a team has it, with PostgreSQL and Redis
	$(BIN)/python -m demo up --executor '$(EXECUTOR)'

down: .venv/ready  ## stop both; what they keep stays in .lab, .airflow and .airflow-celery
	$(BIN)/python -m demo down

test: .venv/ready lint  ## the whole suite
	$(BIN)/python tools/run_tests.py $(PYTEST_ARGS)

lint: .venv/ready
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

bench: .venv/ready  ## the figures of docs/performance.md
	$(BIN)/python -m bench

docs: .venv/ready  ## the generated pages: configuration reference, schema, sample
	$(BIN)/python tools/generate_docs.py

acceptance: .venv/ready  ## make acceptance CONFIG=clusters.yaml CLUSTER=name [RESTORE=yes]: one backup of a real cluster; its restore
	@tools=$$($(BIN)/python -c 'from lab.tools import etcd_folder; print(etcd_folder())') && \
	  PATH="$$tools:$(BIN):$$PATH" ETCDKEEP_CONFIG="$(CONFIG)" $(BIN)/python -m etcdkeep acceptance "$(CLUSTER)" $(if $(RESTORE),--restore "$(RESTORE)")

image:  ## make image ETCD_IMAGE=name:tag@sha256:… AIRFLOW_IMAGE=name:tag@sha256:… [IMAGE=etcdkeep]: the image, from bases by digest
	@for base in ETCD_IMAGE='$(ETCD_IMAGE)' AIRFLOW_IMAGE='$(AIRFLOW_IMAGE)'; do \
	  [[ $$base =~ =([^[:space:]@]+@)?sha256:[0-9a-f]{64}$$ ]] || { echo "$$base: a base image is named by digest, name:tag@sha256:…; the Dockerfile's head says how to find it" >&2; exit 2; }; done
	docker build --build-arg ETCD_IMAGE='$(ETCD_IMAGE)' --build-arg AIRFLOW_IMAGE='$(AIRFLOW_IMAGE)' -t '$(IMAGE)' .

package: .venv/ready  ## dist/etcdkeep-VERSION-py3-none-any.whl: code for an Airflow or a laptop; the DAG folder stays outside
	$(BIN)/python -m hatchling build -t wheel

lock: .venv/ready  ## resolve the pinned versions again
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate requirements-bootstrap.txt -o requirements-bootstrap.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate requirements.txt -o requirements.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate requirements-dev.txt -c requirements.lock -o requirements-dev.lock

clean: down  ## remove what demo, up and test made
	rm -rf .lab .airflow .airflow-celery .venv

.venv/ready: requirements-dev.lock requirements-bootstrap.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "etcdkeep needs Python 3.11 or later; set PYTHON=python3.x")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-bootstrap.lock
	$(BIN)/uv pip install -q --compile-bytecode --python .venv --require-hashes -r requirements-dev.lock
	printf '%s\n' '$(CURDIR)/include' '$(CURDIR)/plugins' '$(CURDIR)' > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/etcdkeep.pth"
	$(BIN)/python -m compileall -q include plugins  # where Python may not write bytecode, every start would compile it all
	touch $@
