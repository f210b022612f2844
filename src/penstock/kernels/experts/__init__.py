"""A mixture of gated MLPs, of which each token visits a few."""
