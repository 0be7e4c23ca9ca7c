# The worker, scheduler and UI image: Airflow, our DAGs and code, and etcd's own tools for drills. Build it by `make image`.
#
# Both bases are given by digest; a tag can be moved by whoever can push. They have no default: where this file was written no
# registry could be reached, so no digest could be read. Tested tags, and how to read what they stand for today:
#   ETCD_IMAGE      gcr.io/etcd-development/etcd:v3.5.21
#   AIRFLOW_IMAGE   apache/airflow:slim-3.3.2-python3.11
#   docker buildx imagetools inspect TAG --format '{{.Manifest.Digest}}'
# Compare the digest with what the project publishes or signs, and keep it with your own build. An image that is on this machine alone has no
# digest; its id (sha256:…) says as exactly what it holds.
ARG ETCD_IMAGE
ARG AIRFLOW_IMAGE
FROM ${ETCD_IMAGE} AS etcd

FROM ${AIRFLOW_IMAGE}
ARG ETCD_IMAGE
ARG AIRFLOW_IMAGE
RUN for base in "$ETCD_IMAGE" "$AIRFLOW_IMAGE"; do \
      printf '%s\n' "$base" | grep -Eqx '([^[:space:]@]+@)?sha256:[0-9a-f]{64}' || { echo "$base is not named by digest"; exit 1; }; \
    done
COPY --from=etcd /usr/local/bin/etcd /usr/local/bin/etcdctl /usr/local/bin/etcdutl /usr/local/bin/
COPY --chown=airflow:0 requirements.lock /tmp/requirements.lock
RUN pip install --no-cache-dir --require-hashes -r /tmp/requirements.lock && rm /tmp/requirements.lock
COPY --chown=airflow:0 dags /opt/airflow/dags
COPY --chown=airflow:0 plugins /opt/airflow/plugins
COPY --chown=airflow:0 include /opt/airflow/include
# Each task is a process of its own: compile once, not at every start. The configuration is empty, since all settings come from the
# environment: without the file Airflow would write one, with the secrets of its environment in it, and a root file system that is
# read-only would stop it.
RUN python -m compileall -q /opt/airflow/plugins /opt/airflow/include && touch /opt/airflow/airflow.cfg
# The same three folders that the Makefile puts on the path of its environment.
ENV PYTHONPATH=/opt/airflow/include:/opt/airflow/plugins \
    ETCDKEEP_CONFIG=/opt/airflow/include/clusters.yaml \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__DAG_PROCESSOR__DAG_VERSION_INFLATION_CHECK_LEVEL=error
# The base image's own user; nothing here needs root.
USER airflow
