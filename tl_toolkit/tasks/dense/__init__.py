"""Modules that tasks with one output per pixel share."""
