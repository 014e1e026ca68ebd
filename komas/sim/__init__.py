"""The room of the exchange double: it imports nothing of komas but errors."""
