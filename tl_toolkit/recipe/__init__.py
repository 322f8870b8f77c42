"""Recipes: their schema, and how they are read, changed and written."""
