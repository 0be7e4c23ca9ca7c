"""Drills: proving that a backup restores, by restoring it into a throw-away etcd and reading all of it back."""
