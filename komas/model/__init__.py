"""What things are: streams, market events, signals, and their envelopes."""
