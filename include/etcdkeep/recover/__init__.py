"""Recovering single objects: clean manifests out of a backup, in order, compared with the live cluster, applied when approved."""
