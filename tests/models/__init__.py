"""Configurations, checkpoints, and the rules of the house."""
