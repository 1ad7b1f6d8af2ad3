"""The configuration: its settings, the loader, the checks and their error messages."""
