"""The client for Python programs: market streams and callbacks, without a server."""
