"""
Shows the problems of the configuration file as an import error; a cluster with a problem has no DAGs, the others have theirs. So does a notifier that cannot be made: better now than on the night of a failure.
"""

from __future__ import annotations

# Airflow looks only into files that mention both "dag" and "airflow".
from etcdkeep.config.loading import load_config
from etcdkeep_airflow.notifications.notifiers import check_notifiers

loaded = load_config()
loaded.raise_for_problems()
check_notifiers(loaded.clusters.values(), loaded.source)
