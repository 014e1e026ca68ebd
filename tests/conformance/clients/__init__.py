"""Small programs around clients that others wrote; each runs beside its client, in an environment of its own."""
