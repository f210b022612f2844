"""Looking up rows of a table."""
