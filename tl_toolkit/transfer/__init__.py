"""From a base with weights to a model for other classes: weights, assembly, freezing, heads."""
