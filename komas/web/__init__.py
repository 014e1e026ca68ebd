"""The way out: the only room that knows Quart and Hypercorn."""
