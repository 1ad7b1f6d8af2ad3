"""Loaders of pretrained models in every supported format. The entry point is `learnd.models.stored.open`.

This package imports nothing by itself, so that reading the settings does not import TensorFlow.
"""
