"""Inspects architectures: costs, diagrams, probes."""
