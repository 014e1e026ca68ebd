"""Everything that replaces a part of Hypercorn, or of Quart-Trio on it; nothing outside touches their internals.

``install.py`` puts the parts in place. Each of the other modules that replaces something says what, where upstream
knows of the reason, and which tests fail without it: once they pass with a new release, the module can go.
"""
