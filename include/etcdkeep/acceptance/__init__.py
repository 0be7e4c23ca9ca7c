"""Trying a real cluster: one backup through a private Airflow, opened with stock tools; its restore, if told to."""
