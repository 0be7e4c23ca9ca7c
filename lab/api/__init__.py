"""The API server stand-in: keeps its objects in a real etcd, laid out as Kubernetes lays them out."""
