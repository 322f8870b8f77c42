"""A closer look at architectures: costs, diagrams, probes."""
