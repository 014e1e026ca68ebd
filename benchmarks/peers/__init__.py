"""Other servers and clients, each set up as its own documentation advises, doing what komas does."""
