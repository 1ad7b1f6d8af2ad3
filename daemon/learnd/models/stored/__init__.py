"""Models that somebody trained once, opened from whatever format they were written in; `stored.open` is the way in.

Nothing is imported here: TensorFlow must not be, where only the settings are wanted.
"""
