"""Ingress: one package for each exchange, over a core that knows none."""
