"""What every exchange needs, and what knows none: connections, rate limits, liveness, sequencing, gap filling."""
