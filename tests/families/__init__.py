"""Every family against its oracle."""
