"""Commands on nodes, over SSH."""
