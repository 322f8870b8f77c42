"""Features that a suffix is trained on: the prefix's outputs, computed live or stored."""
