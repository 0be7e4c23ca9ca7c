"""Copies of backup sets in other repositories."""
