"""From targets to steps, for nodes and for pods: nothing here can fail."""
