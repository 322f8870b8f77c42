"""Phases of training on the outputs of a frozen prefix."""
