"""Kubernetes objects inside a snapshot: stored bytes to the JSON that the API server gives."""
