"""What is found of a cluster before a restore, on nodes and in pods: data, and pure readers of it."""
