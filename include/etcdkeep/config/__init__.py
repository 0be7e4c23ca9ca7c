"""The configuration: its models, reading it, and the pages that are made from it."""
