"""Bringing a cluster back: the plan as data, the engine that walks it, and what is asked before and after."""
