"""Object stores: a directory, Google Cloud Storage."""
