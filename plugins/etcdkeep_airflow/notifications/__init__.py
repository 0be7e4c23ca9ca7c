"""Airflow's callbacks and notifiers: what of a run becomes an event, and who is told."""
