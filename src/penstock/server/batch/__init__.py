"""Many requests from a file, answered by the application itself: OpenAI's batches, offline."""
