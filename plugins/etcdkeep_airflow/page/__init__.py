"""The page of backups in Airflow's interface, and the same as JSON. It reads; it changes nothing."""
