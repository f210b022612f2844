"""What the front process costs, and what it withstands: python -m benchmarks.front."""
