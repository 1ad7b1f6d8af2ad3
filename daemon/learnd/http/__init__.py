"""What learnd shows over HTTP."""
