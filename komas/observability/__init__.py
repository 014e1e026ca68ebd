"""Logs and metrics, read from the statistics of the components."""
