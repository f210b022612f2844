"""What happens to queries, keys and values between their projection and attention."""
