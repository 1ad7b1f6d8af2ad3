"""Settings to a wired pipeline."""
