"""Fixtures that every test may take."""

pytest_plugins = ["learnd.testing.kafka"]
