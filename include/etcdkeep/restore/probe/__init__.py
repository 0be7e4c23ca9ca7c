"""Asking nodes and pods what a restore must know of them. Reads only."""
