"""The store's schema, step by step; applied at start by ``komas.signals.database``."""
