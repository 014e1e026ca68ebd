"""Signals: tokens, VIPs, and a service whose signals exist once they are committed."""
