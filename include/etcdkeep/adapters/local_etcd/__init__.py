"""The etcd programs of this machine."""
