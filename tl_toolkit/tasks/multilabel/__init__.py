"""Several classes for each image, or none."""
