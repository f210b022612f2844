"""Measurements that go beyond this engine: how they are made, and what came of them."""
