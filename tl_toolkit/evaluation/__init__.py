"""Metrics of a model, thresholds for them, and baselines."""
