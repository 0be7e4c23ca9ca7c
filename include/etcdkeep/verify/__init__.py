"""Proving a backup set good."""
