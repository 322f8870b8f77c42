"""The probability of an edge at each pixel."""
