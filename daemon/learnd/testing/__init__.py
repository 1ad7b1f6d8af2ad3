"""Helpers for the tests of learnd and of its users."""
