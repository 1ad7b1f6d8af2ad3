"""Benchmarks: each prints a table of sides that ran interleaved, so that ratios survive a noisy machine."""
