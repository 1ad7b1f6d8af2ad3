"""Test helpers, for learnd itself and for projects that use it."""
