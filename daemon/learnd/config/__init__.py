"""The configuration: its settings, how a file is read, and what is reported about it."""
