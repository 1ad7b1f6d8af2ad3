"""Drift: detectors on the loss and on the readings, and a chain of reactions."""
