"""Backup sets in a repository."""
