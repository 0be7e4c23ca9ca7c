# The worker, scheduler and UI image: Airflow, our DAGs and code, and etcd's own tools for drills.
ARG ETCD_VERSION=v3.5.21
FROM gcr.io/etcd-development/etcd:${ETCD_VERSION} AS etcd

FROM apache/airflow:slim-3.3.2-python3.11
COPY --from=etcd /usr/local/bin/etcd /usr/local/bin/etcdctl /usr/local/bin/etcdutl /usr/local/bin/
COPY --chown=airflow:0 requirements.lock /tmp/requirements.lock
RUN pip install --no-cache-dir --require-hashes -r /tmp/requirements.lock && rm /tmp/requirements.lock
COPY --chown=airflow:0 dags /opt/airflow/dags
COPY --chown=airflow:0 plugins /opt/airflow/plugins
COPY --chown=airflow:0 include /opt/airflow/include
# Each task is a process of its own: compile once, not at every start.
RUN python -m compileall -q /opt/airflow/plugins /opt/airflow/include
# The same three folders that the Makefile puts on the path of its environment.
ENV PYTHONPATH=/opt/airflow/include:/opt/airflow/plugins \
    ETCDKEEP_CONFIG=/opt/airflow/include/clusters.yaml \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__DAG_PROCESSOR__DAG_VERSION_INFLATION_CHECK_LEVEL=error
# The base image's own user; nothing here needs root.
USER airflow
