"""The Kubernetes API and commands in pods."""
