"""Everything that replaces a part of Hypercorn; nothing outside this package touches its internals."""
