"""The public Python API: what `learnd.__all__` lists, for notebooks and tests. Nothing else is public."""
