"""What things are: streams, market facts, and the bytes of a fact."""
