"""What is asked of etcd's own programs, and what they print."""
