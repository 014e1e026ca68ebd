"""Egress: the only package that knows Quart and Hypercorn."""
