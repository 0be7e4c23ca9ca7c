"""Airflow on one machine's loopback with our DAGs: for the demo, the end-to-end tests and acceptance. No part of the product."""
