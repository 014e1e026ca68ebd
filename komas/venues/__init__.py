"""The way in: one folder for each outside world, and what they share."""
