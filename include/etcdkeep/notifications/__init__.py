"""Who is told of what: the settings, the events, how often, and how a message is delivered within a bounded time."""
