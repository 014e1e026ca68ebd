"""Pub/sub inside one process: every event is published once, and a publisher never waits."""
