"""Tests of the exchange double."""
