"""
Settings of Celery: Airflow's own, and what every task imports is imported once, before a worker forks.

To import it takes half a second of processor or more, which each task would spend again: half of what it takes in all. The processes
share the memory too. ``[celery] celery_config_options`` names these settings; workers alone import what they list.
"""

from __future__ import annotations

from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG

OPERATORS = ("backup", "drill", "housekeeping", "recover", "rehearse", "replicate", "restore", "verify")
IMPORTS = (
    "airflow.dag_processing.dagbag",
    "etcdkeep_airflow.hooks",
    "etcdkeep_airflow.notifications.backups",
    "etcdkeep_airflow.notifications.restores",
    "etcdkeep_airflow.page.plugin",
    *(f"etcdkeep_airflow.operators.{name}" for name in OPERATORS),
)
CONFIG = {**DEFAULT_CELERY_CONFIG, "imports": IMPORTS}
