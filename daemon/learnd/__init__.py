"""learnd keeps a Keras model learning from a stream, without losing or repeating a record."""

__version__ = "0.1.0"
