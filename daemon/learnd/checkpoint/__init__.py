"""Checkpoints: the complete state of the daemon on disk, saved atomically."""
