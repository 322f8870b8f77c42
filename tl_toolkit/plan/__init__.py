"""Plans: recipe, catalog and sources together, checked before training."""
