"""The numbers of a check for Prometheus, StatsD and OpenTelemetry: what `check` says, under names with base units."""
