"""etcdkeep: backups of Kubernetes control planes that have been verified. The domain library; imports no Airflow."""

__version__ = "0.2.0"
