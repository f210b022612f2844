"""Servers that outlive whoever started them, found and ended by name."""
