"""The steps of a backup run: each does one task's work over the ports and returns plain data."""
