"""
For Airflow's plugin loader: the page *Browse → Backups*. What it shows is in etcdkeep_airflow.page.

Where etcdkeep is an installed package, Airflow finds the plugin by the package's entry point, and there is nothing here: a second
plugin of a name is reported as an import error.
"""

from __future__ import annotations

from importlib.metadata import entry_points

if not entry_points(group="airflow.plugins", name="etcdkeep"):
    from etcdkeep_airflow.page.plugin import BackupsPage

    __all__ = ["BackupsPage"]
