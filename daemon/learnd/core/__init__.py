"""Types, protocols and small tools that every other package may import."""
