"""The form in which keys and values are kept."""
