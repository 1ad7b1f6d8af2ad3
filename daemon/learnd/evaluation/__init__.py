"""Evaluation of the model on samples that it has not learned yet."""
