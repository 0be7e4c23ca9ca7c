"""One configured cluster with its clients."""
