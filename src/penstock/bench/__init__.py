"""Measuring: latency and throughput of an engine in this process, and servers under load."""
