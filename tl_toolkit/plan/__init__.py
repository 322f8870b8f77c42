"""Recipe, catalog and sources together: all that can be known before training."""
