"""Measurements of komas beside its peers, on loopback; never part of the tests."""
