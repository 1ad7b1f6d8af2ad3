"""Checkpoints: one atomic state on disk."""
