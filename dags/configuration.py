"""
Shows the problems of the configuration file as an import error; a cluster with a problem has no DAGs, the others have theirs.
"""

from __future__ import annotations

# Airflow looks only into files that mention both "dag" and "airflow".
from etcdkeep.config_file import load_config

load_config().raise_for_problems()
