"""What we measure: records and counts, read from what the rooms hand over."""
