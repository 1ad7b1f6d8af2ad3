"""Sinks for rejected records and for predictions."""
