"""The loop: plan, lay out, compute, sample, commit. And the ways to talk to it."""
