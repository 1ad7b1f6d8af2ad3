"""Metrics, logs, and the HTTP server for metrics and health checks."""
