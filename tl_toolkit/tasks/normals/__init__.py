"""The direction that the surface faces at each pixel."""
