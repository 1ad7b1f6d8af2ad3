"""Where rejects and predictions go."""
