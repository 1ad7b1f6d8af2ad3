"""The wiring: from settings to a pipeline."""
