"""What every layer may speak of: requests, sampling options, outputs and errors."""
