"""The hall: everything that came in is published here once, and nobody here ever waits."""
