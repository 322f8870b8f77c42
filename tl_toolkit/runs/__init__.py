"""Run folders: their numbers, artifacts, atomic files and locks."""
