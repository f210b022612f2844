"""Models: one decoder, a spec for each checkpoint, and a file for each family."""
